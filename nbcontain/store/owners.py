"""Whose each file truly is, and which device, where the host lets nobody say so on the disk.

In a user namespace of one id every file belongs to that id, and device nodes cannot be made at all. What the layer
said is then recorded: the owner in the attribute that umoci and PRoot use too (rootlesscontainers/proto), a device
in one of ours on an empty file. What can carry no attribute of a user's (xattr(7): symlinks, pipes; anything on some
file systems) is in a ledger beside the tree: JSON lines, of which the last about a path holds.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable

from nbcontain.errors import StoreError
from nbcontain.store.whiteouts import join
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

OWNER = b"user.rootlesscontainers"
"""A protocol buffer: uid in field 1, gid in field 2, 0 if it is left out; 2^32-1 is "as on the disk"."""
NODE = b"user.nbcontain.node"
"""On an empty file: "c 1 3", the device that it stands for."""
LIMIT_BYTES = 256 << 20

_AS_ON_DISK = 0xFFFF_FFFF
_NO_ATTRIBUTES = frozenset({
    errno.EPERM, errno.EOPNOTSUPP, errno.E2BIG, errno.ENOSPC, errno.ERANGE, errno.EACCES, errno.ENOSYS,
})  # fmt: skip
_NODE_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one path."""

    uid: int
    gid: int
    node: tuple[str, int, int] | None = None
    """The device: "c" or "b", major, minor."""
    mtime_ns: int | None = None
    """Holds only for what still has this time: a symlink that was made anew is another."""


def encode(uid: int, gid: int) -> bytes:
    """OWNER's value. Root is whom it belongs to on the disk; umoci says that so."""
    return b"\x08" + _varint(uid or _AS_ON_DISK) + b"\x10" + _varint(gid or _AS_ON_DISK)


def decode(data: bytes) -> tuple[int, int]:
    """Uid and gid of OWNER's value; 2^32-1 is nobody's. Raises StoreError for what is none."""
    found, at = {1: 0, 2: 0}, 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 or key >> 3 not in found:
            raise StoreError(f"{data[:32]!r} is no owner's record")
        found[key >> 3], at = _read_varint(data, at)
    if max(found.values()) > _AS_ON_DISK:
        raise StoreError(f"{data[:32]!r} is no owner's record")
    return found[1], found[2]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
    raise StoreError(f"{data[:32]!r} is no owner's record")


class Ledger:
    """The records of a tree: read from attributes and from lines, written to attributes and, where none can be, lines.

    `write` takes new lines, as bytes.
    """

    def __init__(self, lines: bytes = b"", write: Callable[[bytes], object] | None = None) -> None:
        self._known: dict[bytes, Record] = dict(map(_parsed, lines.splitlines()))
        self._write = write
        self._prefix = b""

    def below(self, directory: bytes) -> Ledger:
        """The same ledger, for who takes this directory for the root."""
        ledger = Ledger(write=self._write)
        ledger._known, ledger._prefix = self._known, join(self._prefix, directory)
        return ledger

    def record(self, place: int | str | None, path: bytes, record: Record) -> bool:
        """Keep it for `place`: an fd or a path; None for what carries no attributes. Gives whether the disk has it now.

        `path` is the file's, below the root, with no symlink in it.
        """
        if place is not None:
            try:
                os.setxattr(place, OWNER, encode(record.uid, record.gid))
                if record.node is not None:
                    os.setxattr(place, NODE, "{} {} {}".format(*record.node).encode())
                return True
            except OSError as error:
                if error.errno not in _NO_ATTRIBUTES:
                    raise
        path = join(self._prefix, path) if self._prefix else path
        self._known[path] = record
        if self._write is not None:
            self._write(_line(path, record))
        return False

    @property
    def remembers(self) -> bool:
        """Whether any line is known."""
        return bool(self._known)

    def forget(self, place: int | str | None, path: bytes) -> bool:
        """What is open as `place` is root's from now on. Gives whether the disk said otherwise, and says so now.

        `place` is None for what is new, or carries no attributes: its name may have been somebody else's.
        """
        is_on_disk = place is not None
        try:
            if place is not None:
                os.removexattr(place, OWNER)
        except OSError as error:
            if error.errno not in (*_NO_ATTRIBUTES, errno.ENODATA):
                raise
            is_on_disk = False
        path = join(self._prefix, path) if self._prefix else path
        if self._known.pop(path, None) is not None and self._write is not None:
            self._write(_line(path, Record(0, 0)))
        return is_on_disk

    def link(self, source: bytes, path: bytes) -> None:
        """What is said of `source` holds for its further name, too."""
        known = self._known.get(join(self._prefix, source) if self._prefix else source)
        if known is None:
            self.forget(None, path)
        else:
            self.record(None, path, known)

    def supersede(self, below: Ledger, has: Callable[[bytes], bool]) -> None:
        """What those of lower layers say of paths that this one's tree `has` itself, and says nothing of, is over."""
        for path in below._known.keys() - self._known.keys():
            if has(path):
                self._known[path] = Record(0, 0)
                if self._write is not None:
                    self._write(_line(path, Record(0, 0)))

    def owner(self, place: int | str | None, path: bytes, status: os.stat_result) -> tuple[int, int]:
        """Whose it is; root's, where nobody is named."""
        return self.known(place, path, status) or (0, 0)

    def known(self, place: int | str | None, path: bytes, status: os.stat_result) -> tuple[int, int] | None:
        """Whose it is, if anybody is named. What the disk says holds where that is not root: then somebody might."""
        # Who looks is root, by the number that it has here: outside of a user namespace it is an ordinary one.
        uid, gid = os.geteuid(), os.getegid()
        on_disk = (0 if status.st_uid == uid else status.st_uid, 0 if status.st_gid == gid else status.st_gid)
        if on_disk != (0, 0):
            return on_disk
        if place is not None and (data := _attribute(place, OWNER)) is not None:
            try:
                uid, gid = decode(data)
            except StoreError:
                # Whoever is root inside may write what they like there.
                return None
            return 0 if uid == _AS_ON_DISK else uid, 0 if gid == _AS_ON_DISK else gid
        known = self._of(path, status)
        return (known.uid, known.gid) if known else None

    def node(self, place: int, path: bytes, status: os.stat_result) -> tuple[str, int, int] | None:
        """The device that a file stands for; None if it is just a file."""
        if status.st_size or not stat.S_ISREG(status.st_mode):
            return None
        if (data := _attribute(place, NODE)) is not None:
            return _parsed_node(data.decode("ascii", "replace").split(" ")) if len(data) < _NODE_LIMIT else None
        known = self._of(path, status)
        return known.node if known else None

    def _of(self, path: bytes, status: os.stat_result) -> Record | None:
        known = self._known.get(join(self._prefix, path) if self._prefix else path)
        return None if known is None or known.mtime_ns not in (None, status.st_mtime_ns) else known


def _attribute(place: int | str, name: bytes) -> bytes | None:
    try:
        return os.getxattr(place, name)
    except OSError as error:
        if error.errno == errno.ENODATA or error.errno in _NO_ATTRIBUTES:
            return None
        raise


def _line(path: bytes, record: Record) -> bytes:
    values = [os.fsdecode(path), record.uid, record.gid, record.mtime_ns, record.node]
    return json.dumps(values).encode() + b"\n"


def _parsed(line: bytes) -> tuple[bytes, Record]:
    """One line: [path, uid, gid, mtime in ns or null, [kind, major, minor] or null]. Raises StoreError."""
    try:
        values = json.loads(line)
        path, uid, gid, mtime_ns, node = values
        if not (isinstance(path, str) and _is_id(uid) and _is_id(gid)):
            raise ValueError("no path and owner")
        if not (mtime_ns is None or type(mtime_ns) is int):
            raise ValueError("no time")
        device = None if node is None else _parsed_node(node)
        if node is not None and device is None:
            raise ValueError("no device")
        return os.fsencode(path), Record(uid, gid, device, mtime_ns)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError("the list of a tree's owners is damaged", why=str(error)) from error


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < _AS_ON_DISK


def _parsed_node(words: Any) -> tuple[str, int, int] | None:
    """A device of words or JSON; None for anything else, and for 0/0, which would be a whiteout."""
    if not (isinstance(words, list) and len(words) == 3 and words[0] in ("c", "b")):
        return None
    try:
        major, minor = int(words[1]), int(words[2])
    except (ValueError, TypeError):
        return None
    return (words[0], major, minor) if 0 <= major < 1 << 12 and 0 <= minor < 1 << 20 and (major or minor) else None
