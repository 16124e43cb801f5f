"""What is known of a context's files, kept in the store: a command on a terminal has seen none of them itself.

A hint and no more: who finds nothing, or what is not whole, reads the files again. A file is known by what `walk.Stat`
says of it, whose change time nobody can set. Whoever makes a file system that is only read (squashfs, EROFS) can, and
the next one of that name may have other files with the same times and inodes: so nothing is kept of such.
"""

from __future__ import annotations

import json
import os
import zlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import StoreError
from nbcontain.oci.digest import sha256
from nbcontain.store import files

if TYPE_CHECKING:
    from nbcontain.build.walk import Stat

Known = dict[str, tuple["Stat", str]]
"""By a file's path, what it looked like when it was read, and the digest of its content."""

_FORMAT = 1
_MAX_BYTES = 64 << 20
_MAX_FILES = 300_000


def load(place: Path, root: str) -> Known:
    """What was kept of the files below a directory."""
    path = _path(place, root)
    try:
        data = files.read(path, _MAX_BYTES)
        files.touch(path)
    except (OSError, StoreError):
        return {}
    mark, _, body = data.partition(b"\n")
    # Written without waiting for the disk, and so after a power cut it may be anything.
    if mark != _mark(body):
        return {}
    said = json.loads(body)
    if (said["format"], said["root"]) != (_FORMAT, root):
        return {}
    return {
        f"{directory}{name}": ((device, inode, size, mtime_ns, ctime_ns), digest)
        for directory, names in said["files"].items()
        for name, (device, inode, size, mtime_ns, ctime_ns, digest) in names.items()
    }


def keep(place: Path, root: str, known: Known) -> None:
    """Keep it in place of what was kept, but for what is mounted below the root. Raises OSError, StoreError."""
    device = os.stat(root).st_dev
    here = ((path, found) for path, found in known.items() if found[0][0] == device)
    by_directory: dict[str, dict[str, list[object]]] = {}
    for path, (seen, digest) in islice(here, _MAX_FILES):
        above, separator, name = path.rpartition("/")
        by_directory.setdefault(above + separator, {})[name] = [*seen, digest]
    body = json.dumps({"format": _FORMAT, "root": root, "files": by_directory}, separators=(",", ":")).encode()
    data = _mark(body) + b"\n" + body
    if len(data) <= _MAX_BYTES:
        files.make_directory(place, durable=False)
        files.replace(_path(place, root), data, durable=False)


def _mark(body: bytes) -> bytes:
    """Tells what was cut off or damaged; who can write here can write whatever it likes to the store."""
    return b"%08x %d" % (zlib.crc32(body), len(body))


def _path(place: Path, root: str) -> Path:
    return place / sha256(os.fsencode(root)).hexdigest()[:32]
