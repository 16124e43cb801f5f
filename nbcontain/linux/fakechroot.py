"""fakechroot's library, which stands between programs and their libc and translates paths there: found, and tried."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = "libfakechroot.so"
MISSING = "there is no libfakechroot.so, nor a fakechroot in PATH that has one"
_TIMEOUT_S = 10
_LOOK = """import ctypes, os, sys
os.stat("/looked/there")
sys.exit(0 if ctypes.CDLL(None).statx(-100, b"/looked/there", 0, 2047, bytes(256)) == 0 else 3)"""
_SEPARATORS = frozenset(": ;$\\\n")
"""Which the loader reads as something else in a list of paths (ld.so(8))."""
_OURS = ("LD_", "FAKECHROOT", "FAKEROOT", "PROOT_")
_NEEDS = re.compile(rb"\0GLIBC_2\.(\d{1,3})(?=[.\0])")
_LIMIT_BYTES = 32 << 20


def library() -> str:
    """The first there is, as an absolute path: that of the fakechroot in PATH before the usual places; "" for none."""
    for place in _places():
        if not _SEPARATORS & {*place} and os.path.isfile(place):
            return place
    return ""


def _places() -> Iterator[str]:
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        if directory.startswith("/") and os.access(f"{directory}/fakechroot", os.X_OK):
            yield from _below(os.path.dirname(directory.rstrip("/")))
    for prefix in ("/usr", "/usr/local", ""):
        yield from _below(prefix)


def _below(prefix: str) -> Iterator[str]:
    """Where distributions have it: Debian below lib/TRIPLET, Fedora below lib64."""
    for lib in (f"{prefix}/lib/{os.uname().machine}-linux-gnu", f"{prefix}/lib64", f"{prefix}/lib"):
        yield f"{lib}/fakechroot/{_NAME}"


def known_by() -> str:
    """What one that was tried is known again by, unless it has been changed since; "" if there is none."""
    found = library()
    try:
        return f"{found} {os.stat(found).st_mtime_ns}" if found else ""
    except OSError:
        return ""


def tried() -> tuple[bool, str]:
    """Whether there is one that hides this machine's files, with its path; or what is wrong with the one there."""
    found = library()
    if not found:
        return False, MISSING
    import subprocess
    import sys
    import tempfile

    try:
        with tempfile.TemporaryDirectory() as scratch:
            base = os.path.realpath(scratch)
            os.makedirs(f"{base}/looked")
            os.mkdir(f"{base}/looked/there")
            # All that is there is this machine's, but for what is not.
            shown = [f"/{name}" for name in os.listdir("/")]
            env = {"PATH": os.defpath, "LD_PRELOAD": found, **told(base, shown)}
            words = [sys.executable, "-I", "-S", "-c", _LOOK]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    if done.returncode == 3:
        return False, f"{found} lets statx(2) through, so that programs see this machine's files"
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if _NAME in line), "it translates no paths here")
        return False, f"{found}: {said.strip()[-200:]}"
    return True, found


def told(base: str, shown: list[str], **more: str) -> dict[str, str]:
    """What the library is told: the directory that is the root, and which paths it is to let through.

    `more` are settings of its own by their last word (fakechroot(1)).
    """
    settings = {"BASE": base, "EXCLUDE_PATH": ":".join(shown), **more}
    return {"FAKECHROOT": "true", **{f"FAKECHROOT_{name}": value for name, value in settings.items()}}


def may_be_base(path: str) -> bool:
    """Whether a directory can be the root: its path is part of lists."""
    return not _SEPARATORS & {*path}


def without_ours(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of an image but for those that would be the loader's, the library's, and PRoot's."""
    return {name: value for name, value in env.items() if not name.startswith(_OURS)}


def glibc_of(file: int) -> int:
    """The newest glibc, 2.N, whose symbols an open library has, or wants; 0 if it has nothing of glibc's."""
    with os.fdopen(os.dup(file), "rb") as stream:
        return max((int(each) for each in _NEEDS.findall(stream.read(_LIMIT_BYTES))), default=0)
