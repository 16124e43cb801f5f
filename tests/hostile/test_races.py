"""Races for mount targets: who shares a directory with a container swaps what leads there while that one starts (E5).

CVE-2021-30465, CVE-2024-45310. Swapped is by one call (renameat2(2), RENAME_EXCHANGE), as fast as the kernel does it;
where from makes no difference to whoever walks there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.errors import NbcontainError, SetupFailed
from nbcontain.oci.spec import Device
from nbcontain.runtime import devices
from nbcontain.runtime.beforehand import USUAL
from rounds import SOAK

ROUNDS = 10_000 if SOAK else 300
"""Of all attacks of this page together; an ordinary user makes a few of them."""
DEEP = f"deep{os.getpid()}"
"""What is mounted over, or behind a symlink, has this name: such a mount is known wherever on this machine it is."""
EVERYBODYS = {each.destination for each in USUAL}
"""Where each container has something mounted."""

SWAP = """\
import ctypes, os, sys
libc = ctypes.CDLL(None)
one, other = (os.fsencode(each) for each in sys.argv[1:])
print("ready", flush=True)
while True:
    libc.syscall({number}, -100, one, -100, other, 2)
"""


@contextmanager
def swapped(one: Path, other: Path) -> Iterator[None]:
    """The two exchange their names all the time."""
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    words = [sys.executable, "-I", "-S", "-c", SWAP.format(number=number), str(one), str(other)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
            assert swapper.poll() is None
        finally:
            swapper.kill()


def rounds(machine: Machine, count: int, **options: object) -> int:
    """Start a container so often; how often it did start."""
    started = 0
    for _ in range(count):
        try:
            machine.run("/bin/true", **options)
            started += 1
        except NbcontainError:
            # It may be refused, as long as nothing happens outside.
            continue
    return started


@pytest.fixture
def anyone(_hostile_machine: Machine) -> Iterator[Machine]:
    yield _hostile_machine
    _hostile_machine.clear()
    _hostile_machine.engine.volumes.prune(all=True)


@pytest.fixture
def outside(anyone: Machine, tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's where nothing may appear; and nothing of ours may be mounted there or elsewhere."""
    directory = tmp_path / "outside"
    (directory / DEEP).mkdir(parents=True)
    (directory / DEEP / "canary").write_text("do not touch\n")
    # Those of other programs come and go. A path may be told from its file system on.
    ours = (DEEP, f"{tmp_path.parent.name}/{tmp_path.name}", anyone.engine.layout.root.name)

    def mounts() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if any(name in line for name in ours) or line.split()[4] in EVERYBODYS]

    before = len(mounts())
    yield directory
    found = sorted(str(each.relative_to(directory)) for each in directory.rglob("*"))
    assert found == [DEEP, f"{DEEP}/canary"]
    assert (directory / DEEP / "canary").read_text() == "do not touch\n"
    assert len(mounts()) <= before, mounts()


@pytest.mark.of_mounts
@pytest.mark.slow
@pytest.mark.timeout(3000 if SOAK else 120)
def test_targets_in_a_shared_volume_that_are_swapped_with_symlinks_stay_inside(
    profile: str, anyone: Machine, tmp_path: Path, outside: Path
) -> None:
    anyone.engine.volumes.create("shared")
    data = anyone.engine.volumes["shared"].data
    (data / "a").mkdir()
    up = "../" * 40
    (data / "b").symlink_to(f"{up}{outside}")
    (data / "c").mkdir()
    (data / "d").symlink_to("/proc/self/root/../../..")
    count = ROUNDS // 12 if profile == "root" or SOAK else ROUNDS // 60
    started = 0
    for one, other in (("a", "b"), ("c", "d")):
        with swapped(data / one, data / other):
            for target in (f"/v/{one}/{DEEP}", f"/v/{one}/{DEEP}/new/er"):
                started += rounds(anyone, count, volumes=("shared:/v",), tmpfs=(target,))
            started += rounds(anyone, count, volumes=("shared:/v", f"{tmp_path}/{one}-made:/v/{one}/{DEEP}/file"))
    assert started
    # Not one of the made directories is a mount or outside; what is inside is the volume's.
    assert set(os.listdir(data)) == {"a", "b", "c", "d"}


@pytest.mark.of_mounts
@pytest.mark.slow
@pytest.mark.timeout(3000 if SOAK else 120)
def test_a_part_of_a_volume_that_is_swapped_with_a_symlink_shows_nothing_of_the_hosts(
    profile: str, anyone: Machine, outside: Path
) -> None:
    anyone.engine.volumes.create("shared")
    data = anyone.engine.volumes["shared"].data
    (data / "a").mkdir()
    (data / "b").symlink_to(f"{'../' * 40}{outside}/{DEEP}")
    mount = ("type=volume,source=shared,target=/part,volume-subpath=a",)
    shown = 0
    with swapped(data / "a", data / "b"):
        for _ in range(ROUNDS // 3 if profile == "root" or SOAK else ROUNDS // 30):
            try:
                seen = anyone.sh("ls -A /part; cat /part/canary 2>/dev/null; touch /part/evil; true", mount=mount)
            except NbcontainError:
                continue
            assert "canary" not in seen and "do not touch" not in seen
            shown += 1
    assert shown


@pytest.mark.slow
@pytest.mark.timeout(3000 if SOAK else 120)
def test_a_volume_that_is_filled_while_it_is_swapped_reaches_nothing_outside(
    profile: str, anyone: Machine, tmp_path: Path, outside: Path
) -> None:
    """:U and copy-up walk a tree that somebody changes meanwhile: by descriptors, following no symlink."""
    given = tmp_path / "given"
    (given / "a").mkdir(parents=True)
    (given / "a/x").write_text("x")
    (given / "b").symlink_to(outside / DEEP)
    before = os.stat(outside / DEEP / "canary")
    user = "1000:1001" if profile != "rootless-single" else "0"
    with swapped(given / "a", given / "b"):
        for _ in range(ROUNDS // 12 if profile == "root" or SOAK else ROUNDS // 60):
            for each in (user, "0:0"):
                try:
                    anyone.run("/bin/true", volumes=(f"{given}:/d:U",), user=each)
                except (NbcontainError, OSError):
                    continue
    after = os.stat(outside / DEEP / "canary")
    assert (before.st_uid, before.st_gid, before.st_ctime_ns) == (after.st_uid, after.st_gid, after.st_ctime_ns)


@pytest.mark.skipif(os.geteuid() != 0, reason="nodes are root's to make")
@pytest.mark.parametrize("what", ["usual", "fifo"])
def test_a_symlink_that_takes_a_new_nodes_place_leads_nothing_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "dev").mkdir()
    canary, make = tmp_path / "canary", os.mknod
    canary.write_text("do not touch\n")
    canary.chmod(0o600)

    def overtaken(name: str, mode: int, device: int, *, dir_fd: int) -> None:
        make(name, mode, device, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink(canary, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", overtaken)
    root_fd = os.open(tmp_path, os.O_PATH)
    with suppress(SetupFailed):
        if what == "usual":
            devices.make_usual(devices.opened(root_fd), by_binding=False)
        else:
            devices.make(root_fd, Device("/dev/pipe", "p", uid=1, gid=1, mode=0o666), by_binding=False)
    os.close(root_fd)
    status = canary.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, 0)
