"""What a layer's tar says of its entries, kept beside its snapshot: who looks into the layer need not read the tar.

Written by whoever unpacks the layer, or by the first who read its tar, and gone with the snapshot. It is a copy: where
there is none, or it is damaged, the tar is read. zlib's own checksum tells what a power cut left of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import repeat

from nbcontain.errors import StoreError
from nbcontain.store import files, tar

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    from nbcontain.oci.digest import ChainID
    from nbcontain.store.plain_members import Made
    from nbcontain.store.snapshots import Snapshotter

    More = tuple[bytes, tuple[int, int], dict[bytes, bytes]]
    """What few entries have: link, device, extended attributes."""
    Row = tuple[bytes, bytes, int, int, int, int, int, More | None, bytes]
    """Name, kind, mode, uid, gid, size, mtime_ns; what few have; the digest of its bytes, where it was made."""

INVENTORY = "inventory"
LIMIT_BYTES = 64 << 20
_VERSION = 1
_WORTH_ENTRIES, _WORTH_BYTES = 256, 8 << 20
"""With less of both the tar is read as quickly."""
_KEPT_BYTES, _ENTRY_BYTES = 32 << 20, 150
"""Of more memory there is no inventory: so much it takes for each entry, beside its name."""
_MORE_BYTES, _ESCAPED = 300, 6
"""What few have takes so much more, and each of its bytes up to as many of JSON's."""
_TOGETHER = 512
_LEVEL = 1
_COLUMNS = ("modes", "uids", "gids", "sizes", "mtimes")


class Recorder:
    """Takes down the members of one tar, in their order. What takes too much memory is forgotten."""

    def __init__(self) -> None:
        self._left_bytes = _KEPT_BYTES
        self._names: list[bytes] = []
        """Of one member each, or of several, with a zero byte between them."""
        self._kinds = bytearray()
        self._columns: tuple[list[int], ...] = ([], [], [], [], [])
        self._more: dict[int, list[Any]] = {}
        self._size_bytes = 0

    def take(self, entry: tar.Entry) -> None:
        """One more."""
        self._left_bytes -= len(entry.name) + _ENTRY_BYTES
        if entry.link or entry.xattrs or entry.major or entry.minor:
            more = len(entry.link) + sum(map(len, (*entry.xattrs, *entry.xattrs.values())))
            self._left_bytes -= _MORE_BYTES + _ESCAPED * more
            xattrs = {_text(key): _text(value) for key, value in entry.xattrs.items()}
            self._more[len(self._kinds)] = [_text(entry.link), [entry.major, entry.minor], xattrs]
        if self._left_bytes < 0:
            self._forget()
            return
        self._names.append(entry.name)
        self._kinds += entry.kind
        modes, uids, gids, sizes, mtimes = self._columns
        modes.append(entry.mode)
        uids.append(entry.uid)
        gids.append(entry.gid)
        sizes.append(entry.size)
        mtimes.append(entry.mtime_ns)
        self._size_bytes += entry.size

    def take_made(self, made: Made) -> None:
        """Several more."""
        links, count = made.kinds.count(tar.SYMLINK), len(made.kinds)
        self._left_bytes -= len(made.names) - count + count * _ENTRY_BYTES  # zero bytes are no part of a name
        self._left_bytes -= links * _MORE_BYTES + _ESCAPED * (len(made.links) - links)
        if self._left_bytes < 0:
            self._forget()
            return
        first, place = len(self._kinds), -1
        for link in made.links.split(b"\0")[:-1]:
            place = made.kinds.index(tar.SYMLINK, place + 1)
            self._more[first + place] = [_text(link), [0, 0], {}]
        self._names.append(made.names[:-1])
        self._kinds += made.kinds
        for known, new in zip(self._columns, made.columns, strict=True):
            known += new
        self._size_bytes += made.size_bytes

    def _forget(self) -> None:
        """There will be no inventory."""
        self._names.clear()
        self._kinds.clear()
        self._more.clear()
        for column in self._columns:
            column.clear()
        self._size_bytes = 0

    @property
    def is_worth_it(self) -> bool:
        """Whether there is to be an inventory."""
        if self._left_bytes < 0:
            return False
        return len(self._kinds) >= _WORTH_ENTRIES or self._size_bytes >= _WORTH_BYTES

    def packed(self, digests: Mapping[int, bytes] | None = None) -> bytes:
        """The inventory's bytes; nothing where it is not worth a file. `digests` are by the entries' places."""
        if not self.is_worth_it:
            return b""
        packer = zlib.compressobj(_LEVEL)
        return b"".join(map(packer.compress, self._parts(digests or {}))) + packer.flush()

    def _parts(self, digests: Mapping[int, bytes]) -> Iterator[bytes]:
        """The document, part by part: as a whole it takes several times the memory of what it says."""
        yield b'{"version":%d,"names":"' % _VERSION
        for start in range(0, len(self._names), _TOGETHER):
            names = _json(_text(b"\0".join(self._names[start : start + _TOGETHER])))
            yield (b"\\u0000" if start else b"") + names[1:-1]
        yield b'"'
        others: dict[str, Any] = {
            "kinds": _text(bytes(self._kinds)), **dict(zip(_COLUMNS, self._columns, strict=True)),
            "more": self._more, "digests": {place: digest.hex() for place, digest in digests.items()},
        }  # fmt: skip
        for name, value in others.items():
            yield b",%s:%s" % (_json(name), _json(value))
        yield b"}"


def rows(data: bytes) -> Iterator[Row]:
    """What an inventory says, entry by entry. Raises StoreError, at once, for one that is damaged."""
    try:
        opened = zlib.decompressobj()
        text = opened.decompress(data, LIMIT_BYTES)
        if not opened.eof:
            raise ValueError("it is cut off, or too large")
        document = json.loads(text)
        if document["version"] != _VERSION:
            raise ValueError("it is of another version")
        kinds = [each.encode("latin-1") for each in document["kinds"]]
        names = document["names"].encode("latin-1").split(b"\0") if kinds else []
        more = {
            int(place): (link.encode("latin-1"), (int(major), int(minor)),
                         {key.encode("latin-1"): value.encode("latin-1") for key, value in xattrs.items()})
            for place, (link, (major, minor), xattrs) in document["more"].items()
        }  # fmt: skip
        digests = {int(place): bytes.fromhex(digest) for place, digest in document["digests"].items()}
        columns = [document[name] for name in _COLUMNS]
        if any(len(column) != len(kinds) for column in (names, *columns)):
            raise ValueError("its columns differ in length")
        if any(set(map(type, column)) - {int} for column in columns):
            raise ValueError("its numbers are none")
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("an inventory is damaged", why=str(error)) from error

    places = range(len(kinds))
    return zip(names, kinds, *columns, map(more.get, places), map(digests.get, places, repeat(b"")), strict=True)


def read(snapshots: Snapshotter, name: ChainID) -> bytes:
    """That of the topmost layer of a committed snapshot; nothing where nobody has taken it down."""
    if snapshots.holds(name):
        with suppress(OSError, StoreError):
            return files.read(snapshots.shelf.snapshot(name) / INVENTORY, LIMIT_BYTES)
    return b""


def keep(snapshots: Snapshotter, name: ChainID, data: bytes) -> None:
    """Put it there for whoever asks next. The caller holds the store's lock. What cannot be kept, is not."""
    if data and snapshots.holds(name):
        with suppress(OSError, StoreError):
            files.replace(snapshots.shelf.snapshot(name) / INVENTORY, data, durable=False)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _text(data: bytes) -> str:
    """Bytes as JSON holds them."""
    return data.decode("latin-1")
