"""Make the PRoot that the tests of its rung run with: its source, fetched and checked, built in .cache/proot.

Distributions that are in use have none that is new enough (5.3). Where it cannot be had, why is left beside it, and is
what the tests say that they skip; it is tried again a day later.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

VERSION = "5.4.0"
SOURCES = (
    f"https://deb.debian.org/debian/pool/main/p/proot/proot_{VERSION}.orig.tar.gz",
    f"http://deb.debian.org/debian/pool/main/p/proot/proot_{VERSION}.orig.tar.gz",
    f"https://github.com/proot-me/proot/archive/refs/tags/v{VERSION}.tar.gz",
)
SHA256 = "8ae8d9a253e539e8398cb8383be573d500f0d74c76204baa9e6330de82133bf0"
"""Of the archive itself: who compressed it may have done so in another way."""
HOME = Path(__file__).resolve().parent.parent / ".cache" / "proot"
PROGRAM, WHY = HOME / "bin" / "proot", HOME / "why"
_MOST_BYTES = 8 << 20
_LINKS = ("-static -ltalloc", "-ltalloc")
"""Without libraries of its own it runs in any place that it is brought to."""
_AGAIN_S, _IN_VAIN = 86_400, "in vain"


class NotMade(Exception):
    """There is none, and this is why."""


def main() -> None:
    """Make it, unless it is there; where that fails, say why, and that is all."""
    made = HOME / "made-from"
    if PROGRAM.exists() and made.exists() and made.read_text() == SHA256:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    if lacks := missing():
        WHY.write_text(f"no PRoot was built: {lacks}\n")
        return
    if WHY.exists() and _IN_VAIN in WHY.read_text() and time.time() - WHY.stat().st_mtime < _AGAIN_S:
        return
    try:
        archive = fetched()
        print(f"building PRoot {VERSION}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=HOME) as directory:
            built(archive, Path(directory))
    except NotMade as error:
        WHY.write_text(f"no PRoot was built, {_IN_VAIN}: {error}\n")
        print(WHY.read_text(), end="", file=sys.stderr)
        return
    made.write_text(SHA256)
    WHY.unlink(missing_ok=True)


def missing() -> str:
    """What is not installed that it is built with."""
    programs = [name for name in ("cc", "make", "objcopy") if shutil.which(name) is None]
    if programs:
        return f"there is no {programs[0]} in PATH"
    words = ("cc", "-E", "-include", "talloc.h", "-include", "uthash.h", "-x", "c", os.devnull)
    done = subprocess.run(words, capture_output=True, check=False)
    return "" if done.returncode == 0 else "talloc.h or uthash.h is missing (Debian packages libtalloc-dev, uthash-dev)"


def fetched() -> bytes:
    """The archive, from the first that has it. Raises NotMade."""
    said = []
    for url in SOURCES:
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                data = gzip.GzipFile(fileobj=io.BytesIO(answer.read(_MOST_BYTES))).read(_MOST_BYTES)
        except (OSError, EOFError, http.client.HTTPException) as error:
            said.append(f"{url}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() == SHA256:
            return data
        said.append(f"{url}: it is not what it was")
    raise NotMade("; ".join(said))


def built(archive: bytes, directory: Path) -> None:
    """The program, at its place. Raises NotMade."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(directory, filter="data")
    source = directory / f"proot-{VERSION}" / "src"
    for links in _LINKS:
        # Its version is that of its source, of whatever repository this directory is in.
        words = ("make", "-C", str(source), "proot", "VERSION=", "CFLAGS=-O2 -w", f"LDFLAGS={links}")
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            os.replace(source / "proot", PROGRAM)
            return
    raise NotMade(done.stderr.strip()[-300:])


if __name__ == "__main__":
    main()
