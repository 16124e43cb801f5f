"""What each file of a copied tree was like when it was copied, so that what was changed can be told without reading it.

A change moves a file's ctime, and nobody can set that. So whatever has the same inode, times, size, mode and owner as
noted is as it was, provided that time has moved on between the noting and the first change (`write_index` waits for
that), and that the file system keeps ctime as a disk's does: tmpfs does not tell of what is written through mmap(2),
a server on the network may have other ideas. There, and without an index, contents are compared with the original.

The file is JSON lines: a head, a line for each directory, and `"end"`.
"""

from __future__ import annotations

import json
import os
import stat
import time

from nbcontain.linux import syscalls, trees
from nbcontain.store import files
from nbcontain.store.whiteouts import join

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

Noted = tuple[int, int, int, int, int, int, int]
"""Inode, ctime and mtime in ns, size, mode, uid, gid."""

_VERSION = 1
_PATIENCE_S = 3.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
TELLS_OF_CHANGES = frozenset({
    0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x794C7630, 0xCA451A4E, 0x2FC12FC1,
})  # fmt: skip
"""ext2 to ext4, XFS, Btrfs, F2FS, overlayfs (which asks the one below), bcachefs, ZFS."""


def noted(status: os.stat_result) -> Noted:
    """What is noted of a file."""
    return (
        status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid,
        status.st_gid,
    )  # fmt: skip


class TreeIndex:
    """An index as it was read. Raises ValueError where it is none, is damaged, or is of another boot or disk."""

    def __init__(self, data: bytes, root: int, boot: str) -> None:
        lines = data.splitlines()
        if len(lines) < 2 or lines[-1] != b'"end"':
            raise ValueError("the index is not whole")
        head = json.loads(lines[0])
        if not isinstance(head, dict) or head.get("version") != _VERSION:
            raise ValueError("the index is of another version")
        if head.get("boot") != boot or not head["boot"] or head.get("device") != os.fstat(root).st_dev:
            raise ValueError("inodes may have other numbers by now")
        self.is_trusted = head.get("trusted") is True
        self.is_linked = head.get("linked") is True
        """Files are those of the original, by another name, and replaced where they differ."""
        self.has_lasting_numbers = head.get("lasting") is True
        """Directories keep their inodes' numbers: an overlay of several disks makes them up, anew after each mount."""
        self.directories: dict[bytes, dict[bytes, Noted]] = dict(map(_parsed, lines[1:-1]))


def write_index(root: int, fd: int, *, linked: bool, boot: str) -> None:
    """Note the tree `root` in the open, empty file `fd` of the same file system; waits until a change would show.

    `boot` is this boot's id: who runs where the tree is the root cannot find it out there.
    """
    latest, devices = 0, {os.fstat(root).st_dev}
    body: list[bytes] = []
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        place = trees.open_beneath(root, os.fsdecode(path), _DIRECTORY)
        try:
            values = []
            for name in os.listdir(place):
                status = os.stat(name, dir_fd=place, follow_symlinks=False)
                values.append([name, *noted(status)])
                latest = max(latest, status.st_ctime_ns)
                devices.add(status.st_dev)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(join(path, os.fsencode(name)))
        finally:
            os.close(place)
        body.append(json.dumps([os.fsdecode(path), values]).encode())
    is_later = _wait_until_later(fd, latest)
    trusted = is_later and syscalls.file_system_type(root) in TELLS_OF_CHANGES
    head = {
        "version": _VERSION, "boot": boot, "device": os.fstat(root).st_dev, "trusted": trusted, "linked": linked,
        "lasting": len(devices) == 1,
    }  # fmt: skip
    files.write(fd, b"\n".join((json.dumps(head).encode(), *body, b'"end"\n')))


def _wait_until_later(fd: int, ctime_ns: int) -> bool:
    """Until what is changed now gets a later ctime than that, by the file system's own clock; False if it does not."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        os.fchmod(fd, 0o600)
        if os.fstat(fd).st_ctime_ns > ctime_ns:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)


def _parsed(line: bytes) -> tuple[bytes, dict[bytes, Noted]]:
    values: Any = json.loads(line)
    if not isinstance(values, list) or len(values) != 2 or not isinstance(values[0], str):
        raise ValueError("no directory")
    return os.fsencode(values[0]), dict(map(_one, values[1]))


def _one(values: Any) -> tuple[bytes, Noted]:
    name, *numbers = values
    if not isinstance(name, str) or len(numbers) != 7 or not all(type(each) is int for each in numbers):
        raise ValueError("no entry")
    return os.fsencode(name), tuple(numbers)
