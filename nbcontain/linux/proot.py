"""PRoot, which translates a program's paths where no root can be changed: found in PATH, and tried."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    import subprocess

_LEAST = (5, 3)
"""The first PRoot that translates statx(2): before it, programs see this machine's files."""
_LEAKS = "lets statx(2) through, so that programs see this machine's files"
MISSING = "there is no proot in PATH"
_TIMEOUT_S = 10
_LOOK = "import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).statx(-100, b'/looked', 0, 2047, bytes(256)) == 0 else 3)"


def on_path() -> str:
    """The first proot in PATH, as an absolute path; "" if there is none."""
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory}/proot"
        if directory.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def known_by() -> str:
    """What one that was tried is known again by, unless it has been changed since; "" if there is none."""
    program = on_path()
    try:
        return f"{program} {os.stat(program).st_mtime_ns}" if program else ""
    except OSError:
        return ""


def tried() -> tuple[bool, str]:
    """Whether there is a PRoot that hides this machine's files, with its path; or what is wrong with the one there."""
    program = on_path()
    if not program:
        return False, MISSING
    import re
    import subprocess
    import sys
    import tempfile

    try:
        said = _run([program, "-V"], "").stdout
        match = re.search(r"\bv?(\d+)\.(\d+)\.\d+", said.partition("accelerators")[0])
        if match and (int(match[1]), int(match[2])) < _LEAST:
            return False, f"PRoot {match[0]} {_LEAKS}: 5.3 and later do not"
        with tempfile.TemporaryDirectory() as scratch:
            words = [program, "-r", "/", "-b", f"{scratch}:/looked", sys.executable, "-I", "-S", "-c", _LOOK]
            done = _run(words, scratch)
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    if done.returncode == 3:
        return False, f"this PRoot {_LEAKS}"
    return done.returncode == 0, program if done.returncode == 0 else (done.stderr or "it ended").strip()[-200:]


def _run(words: list[str], scratch: str) -> subprocess.CompletedProcess[str]:
    import subprocess

    env = {"PATH": os.defpath, **environment(scratch)}
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=env)


def environment(scratch: str) -> dict[str, str]:
    """What PRoot is told: a directory for its loader; and to look at each call before any filter does.

    With its own filter a call would be answered (`runtime.answering`) before its path is translated.
    """
    return {"PROOT_NO_SECCOMP": "1", "PROOT_TMP_DIR": scratch}
