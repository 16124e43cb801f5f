"""Fetch the library that the tests of the rung `preload` load into programs: Debian's, unpacked in .cache/fakechroot.

Nothing is installed, and it takes no root: apt downloads two packages, and dpkg unpacks them. Where the machine has a
fakechroot in PATH, or that cannot be done, nothing is; in the latter case why is left beside it, and is what the tests
say. It is tried again a day later.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ("fakechroot", "libfakechroot")
HOME = Path(__file__).resolve().parent.parent / ".cache" / "fakechroot"
ROOT, WHY = HOME / "root", HOME / "why"
PROGRAM = ROOT / "usr" / "bin" / "fakechroot"
_AGAIN_S = 86_400


def main() -> None:
    """Have it there, unless it is; where that fails, say why, and that is all."""
    if PROGRAM.exists() or shutil.which("fakechroot"):
        return
    HOME.mkdir(parents=True, exist_ok=True)
    if WHY.exists() and time.time() - WHY.stat().st_mtime < _AGAIN_S:
        return
    with tempfile.TemporaryDirectory(dir=HOME) as directory:
        # Whoever apt drops to for downloading has to get in.
        os.chmod(directory, 0o755)  # noqa: S103
        if why := fetched(Path(directory)):
            WHY.write_text(f"no fakechroot was fetched: {why}\n")
            print(WHY.read_text(), end="", file=sys.stderr)
            return
    WHY.unlink(missing_ok=True)


def fetched(directory: Path) -> str:
    """Fetch and unpack it; "", or what went wrong."""
    download = ("apt-get", "download", "-q", *PACKAGES)
    try:
        if subprocess.run(download, cwd=directory, capture_output=True).returncode:
            # apt has no lists yet, or old ones: those of packages that are there no more.
            subprocess.run(("apt-get", "update", "-q"), capture_output=True)
            subprocess.run(download, cwd=directory, capture_output=True, check=True)
        for each in directory.glob("*.deb"):
            subprocess.run(("dpkg", "-x", each, directory / "root"), capture_output=True, check=True)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except subprocess.CalledProcessError as error:
        return error.stderr.decode(errors="replace").strip()[-300:]
    shutil.rmtree(ROOT, ignore_errors=True)
    os.replace(directory / "root", ROOT)
    return ""


if __name__ == "__main__":
    main()
