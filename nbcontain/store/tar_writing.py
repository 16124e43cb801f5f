"""Writing tar archives: ustar, and PAX where that is too narrow (POSIX pax, image-spec layer.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from nbcontain.store.tar import BLOCK, XATTR, Entry
from nbcontain.store.tar_fields import record

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_MAX_OCTAL_ID, _MAX_OCTAL_SIZE = 0o7777777, 0o77777777777


def header_of(entry: Entry) -> bytes:
    """The blocks that stand before an entry's data: one ustar header, and a PAX header where that is too narrow."""
    records: list[tuple[bytes, bytes]] = []
    name, prefix = _split(entry.name)
    if len(name) > 100:
        records.append((b"path", entry.name))
        name = name[:100]
    if len(entry.link) > 100:
        records.append((b"linkpath", entry.link))
    uid, gid, size, mtime = entry.uid, entry.gid, entry.size, entry.mtime_ns // 1_000_000_000
    if uid > _MAX_OCTAL_ID:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _MAX_OCTAL_ID:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if size > _MAX_OCTAL_SIZE:
        records.append((b"size", b"%d" % size))
        size = 0
    if not 0 <= mtime <= _MAX_OCTAL_SIZE:
        records.append((b"mtime", b"%d" % mtime))
        mtime = 0
    for key in sorted(entry.xattrs):
        records.append((XATTR + key, entry.xattrs[key]))
    header = _block(name, entry.kind, entry.mode, uid, gid, size, mtime, entry.link[:100], entry, prefix)
    if not records:
        return header
    body = b"".join(record(key, value) for key, value in records)
    title = b"PaxHeaders.0/" + (entry.name.rstrip(b"/").rpartition(b"/")[2][:80] or b"root")
    return b"".join(
        (
            _block(title, b"x", 0o644, 0, 0, len(body), 0, b"", None, b""),
            body,
            bytes(-len(body) % BLOCK),
            header,
        )
    )


def _split(name: bytes) -> tuple[bytes, bytes]:
    """A path as ustar's name and prefix; the whole of it as name if it cannot be split."""
    if len(name) <= 100:
        return name, b""
    slash = name.find(b"/", len(name) - 101)
    if 0 < slash <= 155 and slash < len(name) - 1:
        return name[slash + 1 :], name[:slash]
    return name, b""


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes,
    entry: Entry | None, prefix: bytes,
) -> bytes:  # fmt: skip
    major, minor = (entry.major, entry.minor) if entry is not None else (0, 0)
    block = bytearray(
        _HEADER.pack(
            name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % mtime, b"        ", kind,
            link, b"ustar\00000", b"", b"", b"%07o" % major, b"%07o" % minor, prefix, b"",
        )
    )  # fmt: skip
    block[148:156] = b"%06o\0 " % _sum(block)
    return bytes(block)


def _sum(block: bytearray) -> int:
    """Of all bytes: the lower half of an Adler-32 is that and 1, modulo 65,521, which 256 bytes cannot reach."""
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def write_archive(entries: list[tuple[Entry, bytes]], write: Callable[[bytes], object]) -> None:
    """Entries with their data in memory, as one whole archive."""
    for entry, data in entries:
        write(header_of(entry) + data + bytes(-len(data) % BLOCK))
    write(bytes(2 * BLOCK))
