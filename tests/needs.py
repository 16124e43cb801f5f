"""What a test needs of the machine. Without it the test skips and says so; in CI (CI=true) it fails instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from nbcontain.host import Ability, Host
from nbcontain.linux import syscalls

SUITE = "bookworm"
PROOT = Path(__file__).resolve().parent.parent / ".cache" / "proot"
"""Where tools/proot.py puts one that is new enough, or why there is none."""
FAKECHROOT = Path(__file__).resolve().parent.parent / ".cache" / "fakechroot"
"""Where tools/fakechroot.py puts one, or why there is none."""
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing(reason: str) -> NoReturn:
    """End this test: skipped here, failed in CI, where everything is expected to be installed."""
    if IN_CI:
        pytest.fail(f"{reason} (in CI this is a failure)", pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str = "") -> str:
    """The path of a program, or the end of this test."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed (Debian package {package or name})")
    return found


def proot(host: Host) -> None:
    """The end of this test where no PRoot of 5.3 or later is; no release of Debian has one."""
    if not host.can(Ability.PROOT):
        proot_is_missing(host.abilities[Ability.PROOT].why)


def fakechroot(host: Host) -> None:
    """The end of this test where fakechroot's library is not, or its rung cannot be had with it."""
    if not host.can(Ability.PRELOAD):
        said = FAKECHROOT / "why"
        missing(f"{host.abilities[Ability.PRELOAD].why}; {said.read_text() if said.exists() else 'tools/setup test'}")
    for each in (Ability.LANDLOCK, Ability.NOTIFY_OUTSIDE):
        if not host.can(each):
            pytest.skip(f"{each.value}: {host.abilities[each].why}")


def proot_is_missing(why: str) -> NoReturn:
    """The end of a test that takes one, and why none was built for it."""
    said = PROOT / "why"
    pytest.skip(f"{why}; {said.read_text() if said.exists() else ''}")


def kernel() -> None:
    """The end of this test where the kernel lacks openat2(2), as gVisor did before September 2026."""
    try:
        os.close(syscalls.openat2(-100, "/", os.O_PATH))
    except OSError as error:
        pytest.skip(f"openat2: {error.strerror}")


def chromium() -> str | None:
    """The path of a browser that playwright can drive; None where it is to take its own."""
    for candidate in (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome", "chrome"):
        if candidate and (found := shutil.which(candidate)):
            return found
    if any(Path.home().glob(".cache/ms-playwright/chromium*")):
        return None
    missing("no Chromium is installed (Debian package chromium, or: playwright install chromium)")


def debian_mirror() -> str:
    """Where this machine's own apt has Debian's main archive from; the end of this test where that is out of reach.

    The main archive alone: unlike that of the updates its index does not expire, and mirrors may be old.
    """
    import http.client
    import urllib.error
    import urllib.request

    asked = [program("apt-get", "apt"), "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    listed = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    sites = [site for site, release in zip(listed[::2], listed[1::2], strict=True) if release == SUITE]
    if not sites:
        missing(f"this machine's apt knows no archive of Debian {SUITE}")
    try:
        urllib.request.urlopen(f"{sites[0]}dists/{SUITE}/InRelease", timeout=15).close()
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        missing(f"Debian's archive is out of reach: {error}")
    return sites[0]


def scratch(*, runs: bool = True) -> str:
    """A directory whose file system can hold an overlay's upper directory: not itself an overlay.

    Programs can be run from it, unless it is for files that nobody `runs`: containers' /dev/shm often forbids that.
    """
    for candidate in (os.environ.get("NBCONTAIN_TEST_DIR", ""), tempfile.gettempdir(), "/var/tmp", "/dev/shm"):
        if not candidate or not Path(candidate).is_dir() or file_system_of(Path(candidate)) == "overlay":
            continue
        if not runs or not os.statvfs(candidate).f_flag & os.ST_NOEXEC:
            return candidate
    return tempfile.gettempdir()


def memory() -> str:
    """A directory in memory, for stores of tests that unpack whole distributions and are about the programs in them.

    On a disk they would take most of their time for waiting until files are gone, or are written out. Where there is
    not plenty of memory, or overlays could not be had there as on a disk, this is scratch().
    """
    place = Path("/dev/shm")
    if os.environ.get("NBCONTAIN_TEST_DIR") or not place.is_dir():
        return scratch()
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) << 10
    status = os.statvfs(place)
    if status.f_flag & os.ST_NOEXEC or min(available, status.f_bavail * status.f_frsize) < 8 << 30:
        return scratch()
    with tempfile.NamedTemporaryFile(dir=place) as tried:
        try:
            os.setxattr(tried.name, "user.nbcontain", b"1")  # Linux 6.6
        except OSError:
            return scratch()
    return str(place)


def file_system_of(path: Path) -> str:
    """The type of the file system that holds a path, as in /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if (path.resolve().is_relative_to(point)) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
