"""Reading and writing tar archives as streams: ustar, PAX and GNU's long names (POSIX pax, image-spec layer.md).

Python's `tarfile` forgives what must not be forgiven in foreign bytes, and is slow. The reader here
hashes what it reads, keeps one buffer however large a member is, and raises BadArchive for what two
readers could read in two ways. Names are bytes. Where the standard leaves room, Go's archive/tar
decides, because the images of this world were written with it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from nbcontain.errors import BadArchive
from nbcontain.values import dataclass, field

BLOCK = 512
_CHUNK = 256 << 10
"""What the processor's cache holds: read, hashed and written before it is forgotten."""
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_HAS_NO_DATA = frozenset({LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_XATTR = b"SCHILY.xattr."
_MAX_ID = (1 << 32) - 2
_MAX_TIME_NS = (1 << 40) * 1_000_000_000
"""What any time_t holds; beyond, a time is nonsense and becomes 0."""
_MAX_OCTAL_ID = 0o7777777
_MAX_OCTAL_SIZE = 0o77777777777


class Readable(Protocol):
    """What an archive is read from."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may cost before it is taken for a bomb."""

    entries: int = 4_000_000
    stream_bytes: int = 256 << 30
    """Of the whole uncompressed tar."""
    header_bytes: int = 1 << 20
    """Of one PAX header or long name."""
    path_bytes: int = 4096
    """PATH_MAX."""


DEFAULT_LIMITS = Limits()


@dataclass(slots=True)
class Entry:
    """One member, as its headers describe it. Not frozen, for speed: one is made per file."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    """Bytes of data that follow; 0 for all but regular files."""
    mtime_ns: int
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Reader:
    """Members of a tar stream in order. `next`, then one of `copy_to`, `chunk`s and `skip`, then `next` again."""

    def __init__(self, stream: Readable, limits: Limits = DEFAULT_LIMITS, *, hashes: bool = True) -> None:
        self._stream = stream
        self._limits = limits
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._read_bytes = 0
        self._sum = hashlib.sha256() if hashes else None
        self._body = 0
        self._padding = 0
        self._defaults: dict[bytes, bytes] = {}
        self.entries = 0

    def next(self) -> Entry | None:
        """The next member, or None at the end of the archive. Raises BadArchive."""
        extended: dict[bytes, bytes] = {}
        long_name = long_link = b""
        headers = 0
        while True:
            self.skip()
            header = self._header()
            if header is None:
                if extended or long_name or long_link:
                    raise BadArchive("the archive ends after an extended header")
                return None
            headers += 1
            if headers > 16:
                raise BadArchive("too many extended headers for one entry")
            kind = header[156:157]
            if kind == b"x":
                extended |= parse_pax(self._small_body(header))
            elif kind == b"g":
                self._take_defaults(parse_pax(self._small_body(header)))
            elif kind == b"L":
                long_name = self._small_body(header).rstrip(b"\0")
            elif kind == b"K":
                long_link = self._small_body(header).rstrip(b"\0")
            else:
                break
        if self._defaults:
            extended = self._defaults | extended
        entry = self._entry(header, extended, long_name, long_link)
        self.entries += 1
        if self.entries > self._limits.entries:
            raise BadArchive(f"the archive has more than {self._limits.entries} entries")
        return entry

    def copy_to(self, fd: int) -> None:
        """Write the current member's data to `fd`. Raises OSError, BadArchive if the archive ends inside."""
        while self._body:
            count = self._end - self._start
            if not count:
                self._fill()
                continue
            if count > self._body:
                count = self._body
            written = os.write(fd, self._view[self._start : self._start + count])
            self._start += written
            self._body -= written

    def chunk(self) -> memoryview:
        """Some more of the current member's data, valid until the next call; nothing at its end."""
        if not self._body:
            return self._view[:0]
        if self._start == self._end:
            self._fill()
        count = min(self._body, self._end - self._start)
        found = self._view[self._start : self._start + count]
        self._start += count
        self._body -= count
        return found

    def skip(self) -> None:
        """Pass over what is left of the current member."""
        left = self._body + self._padding
        while left:
            count = min(left, self._end - self._start)
            if not count:
                self._fill()
                continue
            self._start += count
            left -= count
        self._body = self._padding = 0

    def finish(self) -> str:
        """Read to the end of the stream; the hex SHA-256 of all of it, or "" where it is not to hash."""
        self._start = self._end
        while self._more():
            self._start = self._end
        return self._sum.hexdigest() if self._sum is not None else ""

    # --- bytes ---

    def _more(self) -> bool:
        """Read and hash some more; False at the end of the stream."""
        if self._start:
            rest = self._end - self._start
            if rest:
                self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        count = self._stream.readinto(self._view[self._end :]) or 0
        if not count:
            return False
        if self._sum is not None:
            self._sum.update(self._view[self._end : self._end + count])
        self._end += count
        self._read_bytes += count
        if self._read_bytes > self._limits.stream_bytes:
            raise BadArchive(f"the archive unpacks to more than {self._limits.stream_bytes} bytes")
        return True

    def _fill(self) -> None:
        if not self._more():
            raise BadArchive("the archive is cut off", why="it ends in the middle of an entry")

    def _header(self) -> bytes | None:
        """The next header block, its checksum verified; None at the end mark or at the end of the stream."""
        while self._end - self._start < BLOCK:
            if self._more():
                continue
            if self._end == self._start and self._read_bytes:
                # Old writers leave out the two zero blocks; a digest tells truncation from that.
                return None
            raise BadArchive("the archive is cut off" if self._read_bytes else "the archive is empty")
        header = bytes(self._view[self._start : self._start + BLOCK])
        self._start += BLOCK
        if not header[0] and not any(header):
            return None
        # Adler-32's low half is one plus the sum of the bytes modulo 65521: C adds them up for us.
        total = zlib.adler32(header[156:], zlib.adler32(b"        ", zlib.adler32(header[:148]))) & 0xFFFF
        stated = _octal(header[148:156], "checksum")
        if (stated + 1 - total) % 65521 or stated > BLOCK * 255:
            signed = sum(struct.unpack("512b", header[:148] + b"        " + header[156:]))
            if stated != signed:
                raise BadArchive("a header's checksum is wrong", why="this is no tar archive, or it is damaged")
        return header

    def _small_body(self, header: bytes) -> bytes:
        """The data of an extended header, whole."""
        size = _number(header[124:136], "size")
        if not 0 <= size <= self._limits.header_bytes:
            raise BadArchive(f"an extended header of {size} bytes")
        self._padding = -size % BLOCK
        data = bytearray()
        while len(data) < size:
            if self._start == self._end:
                self._fill()
            count = min(size - len(data), self._end - self._start)
            data += self._view[self._start : self._start + count]
            self._start += count
        return bytes(data)

    def _take_defaults(self, records: dict[bytes, bytes]) -> None:
        """A global header. What would name, size or label every later entry has no honest use."""
        for key, value in records.items():
            if key in (b"path", b"linkpath", b"size") or key.startswith((b"SCHILY.xattr.", b"GNU.sparse.")):
                raise BadArchive(f"a global header sets {key.decode('ascii', 'replace')!r}")
            if key in (b"uid", b"gid", b"mtime"):
                self._defaults[key] = value

    # --- meaning ---

    def _entry(self, header: bytes, extended: dict[bytes, bytes], long_name: bytes, long_link: bytes) -> Entry:
        (name, mode, uid, gid, size, mtime, _, kind, link, magic, _, _, major, minor, prefix, tail) = _HEADER.unpack(
            header
        )
        name, link = name.partition(b"\0")[0], link.partition(b"\0")[0]
        if magic == b"ustar\00000" and prefix[0]:
            # star keeps times in the last bytes of the prefix.
            prefix = (prefix[:131] if tail[8:] == b"tar\0" else prefix).partition(b"\0")[0]
            name = prefix + b"/" + name
        if kind == b"\0" or kind == b"7":
            kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else REGULAR
        entry = Entry(
            long_name or name,
            kind,
            _octal(mode, "mode") & 0o7777,
            _number(uid, "uid"),
            _number(gid, "gid"),
            _number(size, "size"),
            _number(mtime, "mtime") * 1_000_000_000,
            long_link or link,
        )
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = _octal(major, "device"), _octal(minor, "device")
        if extended:
            _extend(entry, extended)
        if kind != REGULAR and kind not in _HAS_NO_DATA:
            words = "a sparse file" if kind == b"S" else f"an entry of the unknown type {kind!r}"
            raise BadArchive(f"{words}: {entry.name!r}", hint="Make the archive without --sparse or other extensions.")
        if entry.size < 0 or entry.size >= 1 << 63:
            raise BadArchive(f"{entry.name!r} has the size {entry.size}")
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise BadArchive(f"{entry.name!r} belongs to an impossible user or group")
        if abs(entry.mtime_ns) > _MAX_TIME_NS:
            entry.mtime_ns = 0
        if kind in _HAS_NO_DATA:
            entry.size = 0
        limit = self._limits.path_bytes
        if len(entry.name) > limit or len(entry.link) > limit or b"\0" in entry.name or b"\0" in entry.link:
            raise BadArchive(f"an impossible name: {entry.name[:80]!r}…")
        self._body, self._padding = entry.size, -entry.size % BLOCK
        return entry


def _extend(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Let PAX records overrule the header's fields; an empty value takes a record back."""
    for key, value in records.items():
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif key.startswith(b"GNU.sparse."):
            raise BadArchive(f"a sparse file: {entry.name!r}", hint="Make the archive without --sparse.")
        elif not value:
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _decimal(value, "size")
        elif key == b"uid":
            entry.uid = _decimal(value, "uid")
        elif key == b"gid":
            entry.gid = _decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime_ns = _nanoseconds(value)


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form `LENGTH key=value\\n`, where LENGTH counts all of it in decimal. Raises BadArchive."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        if space < 0:
            raise BadArchive("a PAX record without a length")
        end = position + _decimal(data[position:space], "record length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key or b"\0" in key:
            raise BadArchive("a malformed PAX record")
        records[key] = value
        position = end
    return records


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadArchive(f"{text[:40]!r} is no {what}")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    """Seconds since the epoch with a fraction, as in `-1.5`."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise BadArchive(f"{text[:40]!r} is no time")
    value = _decimal(whole, "time") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


@lru_cache(4096)
def _octal(data: bytes, what: str) -> int:
    # Remembered, since modes, owners and small sizes are few.
    text = data.strip(b"\0 ")
    if not text:
        return 0
    try:
        # int() alone would take signs, underscores and 0o.
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        why = "this is no tar archive, or it is damaged"
        raise BadArchive(f"a header's {what} is no number: {data!r}", why=why) from None


def _number(data: bytes, what: str) -> int:
    """An octal number, or GNU's base-256: the first bit set, the rest big-endian two's complement."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ((1 << (len(data) * 8 - 1)) - 1)
        return value - (1 << (len(data) * 8 - 1)) if data[0] & 0x40 else value
    return _octal(data, what)


# --- writing --------------------------------------------------------------------------------------


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
        records.append((_XATTR + key, entry.xattrs[key]))
    header = _block(name, entry.kind, entry.mode, uid, gid, size, mtime, entry.link[:100], entry, prefix)
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records)
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


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


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
