"""Reading tar archives as streams: ustar, PAX and GNU's long names (POSIX pax, image-spec layer.md).

Python's `tarfile` forgives what must not be forgiven in foreign bytes, and is slow. The reader here
hashes what it reads, keeps one buffer however large a member is, and raises BadArchive for what two
readers could read in two ways. Names are bytes. Where the standard leaves room, Go's archive/tar
decides, because the images of this world were written with it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable

from nbcontain.errors import BadArchive
from nbcontain.store.tar_fields import DEFAULT_LIMITS as DEFAULT_LIMITS
from nbcontain.store.tar_fields import Limits as Limits
from nbcontain.store.tar_fields import decimal, nanoseconds, number, octal
from nbcontain.store.tar_fields import parse_pax as parse_pax
from nbcontain.store.whiteouts import is_kept_xattr
from nbcontain.values import dataclass, field

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

BLOCK = 512
_CHUNK = 256 << 10
"""What the processor's cache holds: read, hashed and written before it is forgotten."""
_READ = struct.Struct("100s24s12s12s8xc")
"""What is read of each: name, rights (mode, user and group), size, time and kind."""
_REMEMBERED = 4096

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
SET_IDS = 0o6000
"""By which who executes a file becomes its owner, or of its group."""
_HAS_NO_DATA = frozenset({LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_PLAIN = _HAS_NO_DATA | {REGULAR}
XATTR = b"SCHILY.xattr."
_MAX_ID = (1 << 32) - 2
_MAX_TIME_NS = (1 << 40) * 1_000_000_000
"""What any time_t holds; beyond, a time is nonsense and becomes 0."""


class Readable(Protocol):
    """What an archive is read from."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Pieces(Protocol):
    """The same in pieces that somebody made: their bytes are copied once, to the disk."""

    def chunk(self) -> bytes | memoryview: ...  # the next one, valid until the call after; nothing at the end


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
    """Those that a layer keeps."""


class Reader:
    """Members of a tar stream in order. `next`, then its data by one of the ways, or none, then `next` again.

    `leaving` is called before a piece of the stream is given up, and with it what `whole` gave.
    """

    def __init__(
        self, stream: Readable | Pieces, limits: Limits = DEFAULT_LIMITS, *, hashes: bool = True,
        leaving: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._pieces = stream if hasattr(stream, "chunk") else _Buffer(stream)
        self._readinto: Callable[[memoryview], int | None] | None = getattr(stream, "readinto", None)
        self._limits = limits
        self._leaving = leaving
        self._view = memoryview(b"")
        self._start = self._end = 0
        self._read_bytes = 0
        self._sum = None
        if hashes:
            # Only who wants that: it comes with OpenSSL, whose pages every process of ours would be forked with.
            import hashlib

            self._sum = hashlib.sha256()
        self._body = 0
        self._padding = 0
        self._defaults: dict[bytes, bytes] = {}
        self._octals: dict[bytes, int] = {}
        self._right: dict[bytes, int] = {}
        """By the text of a right checksum, what Adler-32 made of its header: both follow from the sum of the others."""
        self._rights: dict[bytes, tuple[int, int, int]] = {}
        self.entries = 0

    def next(self) -> Entry | None:
        """The next member, or None at the end of the archive. Raises BadArchive."""
        extended: dict[bytes, bytes] | None = None
        long_name = long_link = b""
        headers = 0
        while True:
            if self._body or self._padding:
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
            if kind in _PLAIN:
                break
            if kind == b"x":
                extended = (extended or {}) | parse_pax(self._small_body(header))
            elif kind == b"g":
                self._take_defaults(parse_pax(self._small_body(header)))
            elif kind == b"L":
                long_name = self._small_body(header).rstrip(b"\0")
            elif kind == b"K":
                long_link = self._small_body(header).rstrip(b"\0")
            else:
                break
        if self._defaults:
            extended = self._defaults | (extended or {})
        entry = self._entry(header, extended, long_name, long_link)
        self.entries += 1
        if self.entries > self._limits.entries:
            raise BadArchive(f"the archive has more than {self._limits.entries} entries")
        return entry

    @property
    def left(self) -> int:
        """So many more members may come."""
        return self._limits.entries - self.entries

    def at_hand(self) -> tuple[memoryview, int, int]:
        """What is next, for who can read it: the piece, and from where to where. Nothing where it is not simple."""
        start = self._start + self._padding
        if self._body or self._defaults or start > self._end:
            return self._view, self._end, self._end
        return self._view, start, self._end

    def passed(self, size_bytes: int, count: int) -> None:
        """So many bytes of that, and members, were read."""
        self._start, self._padding = self._start + self._padding + size_bytes, 0
        self.entries += count

    def whole(self) -> memoryview | None:
        """All of the current member's data, where it is at hand; it is valid until `leaving` is called."""
        start, size = self._start, self._body
        end = start + size
        if end > self._end:
            return None
        self._start, self._body = end, 0
        return self._view[start:end]

    def copy_to(self, fd: int) -> None:
        """Write the current member's data to `fd`. Raises OSError, BadArchive if the archive ends inside."""
        while self._body:
            start = self._start
            count = self._end - start
            if not count:
                self._fill()
                continue
            if count > self._body:
                count = self._body
            written = os.write(fd, self._view[start : start + count])
            self._start = start + written
            self._body -= written

    def chunk(self) -> memoryview:
        """Some more of the current member's data, valid until the next call; nothing at its end."""
        return self._held(self._body)

    def _held(self, limit: int) -> memoryview:
        if not limit:
            return self._view[:0]
        if self._start == self._end:
            self._fill()
        count = min(limit, self._end - self._start)
        found = self._view[self._start : self._start + count]
        self._start += count
        self._body -= count
        return found

    def readinto(self, buffer: memoryview, /) -> int:
        """The same, there: what is not in memory yet is read straight to it, where the stream can do that."""
        count = min(len(buffer), self._body)
        if count and self._start == self._end and self._readinto is not None:
            count = self._readinto(buffer[:count]) or 0
            if not count:
                raise _cut_off()
            self._took(buffer[:count])
            self._body -= count
            return count
        piece = self._held(count)
        buffer[: len(piece)] = piece
        return len(piece)

    @property
    def at(self) -> int:
        """How many bytes of the stream come before what is next."""
        return self._read_bytes - (self._end - self._start)

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
        while self._more():
            pass
        return self._sum.hexdigest() if self._sum is not None else ""

    # --- bytes ---

    def _more(self) -> bool:
        """Take and hash the next piece, all of the last one being used up; False at the end of the stream."""
        self._leaving()
        piece = self._pieces.chunk()
        count = len(piece)
        if not count:
            self._start = self._end = 0
            return False
        self._view = memoryview(piece)
        self._start, self._end = 0, count
        self._took(self._view)
        return True

    def _took(self, piece: memoryview) -> None:
        """This came of the stream."""
        if self._sum is not None:
            self._sum.update(piece)
        self._read_bytes += len(piece)
        if self._read_bytes > self._limits.stream_bytes:
            raise BadArchive(f"the archive unpacks to more than {self._limits.stream_bytes} bytes")

    def _fill(self) -> None:
        if not self._more():
            raise _cut_off()

    def _header(self) -> bytes | None:
        """The next header block, its checksum verified; None at the end mark or at the end of the stream."""
        start = self._start
        if start + BLOCK <= self._end:
            header = bytes(self._view[start : start + BLOCK])
            self._start = start + BLOCK
        else:
            header = self._joined_block()
        # Old writers leave out the two zero blocks; a digest tells truncation from that.
        if not header or (not header[0] and not any(header)):
            return None
        # Adler-32's low half is one plus the sum of the bytes modulo 65521: C adds them up for us.
        checksum = header[148:156]
        low = zlib.adler32(header) & 0xFFFF
        if self._right.get(checksum) == low:
            return header
        total = low - (zlib.adler32(checksum) & 0xFFFF) + 8 * 32
        if checksum == b"%06o\0 " % total:
            # As nearly everybody writes it.
            if len(self._right) < _REMEMBERED:
                self._right[checksum] = low
            return header
        stated = self._octal(checksum, "checksum")
        if (stated - total) % 65521 or stated > BLOCK * 255:
            signed = sum(struct.unpack("512b", header[:148] + b"        " + header[156:]))
            if stated != signed:
                raise BadArchive("a header's checksum is wrong", why="this is no tar archive, or it is damaged")
        return header

    def _joined_block(self) -> bytes:
        """The next 512 bytes, of several pieces; nothing at the end of the stream. Raises BadArchive within them.

        A stream of nothing is an archive of nothing: there are such layers.
        """
        block = bytes(self._view[self._start : self._end])
        self._start = self._end
        while len(block) < BLOCK:
            if not self._more():
                if block:
                    raise BadArchive("the archive is cut off")
                return block
            count = min(BLOCK - len(block), self._end)
            block += self._view[:count]
            self._start = count
        return block

    def _small_body(self, header: bytes) -> bytes:
        """The data of an extended header, whole."""
        size = number(header[124:136], "size")
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

    def _entry(
        self, header: bytes, extended: dict[bytes, bytes] | None, long_name: bytes, long_link: bytes
    ) -> Entry:
        name, rights, size, mtime, kind = _READ.unpack_from(header)
        name = name.partition(b"\0")[0]
        link = header[157:257].partition(b"\0")[0] if header[157] else b""
        if header[345] and header[257:265] == b"ustar\00000":
            # star keeps times in the last bytes of the prefix.
            prefix = header[345:476] if header[508:512] == b"tar\0" else header[345:500]
            name = prefix.partition(b"\0")[0] + b"/" + name
        if kind == b"\0" or kind == b"7":
            kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else REGULAR
        known = self._octal
        is_wide = (rights[8] | rights[16] | size[0] | mtime[0]) & 0x80
        if is_wide:
            mode, uid, gid = known(rights[:8], "mode"), number(rights[8:16], "uid"), number(rights[16:], "gid")
            size, mtime = number(size, "size"), number(mtime, "mtime")
        else:
            mode, uid, gid = self._rights.get(rights) or self._read_rights(rights)
            size, mtime = known(size, "size"), known(mtime, "mtime")
        entry = Entry(
            long_name or name, kind, mode & 0o7777, uid, gid, size, mtime * 1_000_000_000, long_link or link
        )  # fmt: skip
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = known(header[329:337], "device"), known(header[337:345], "device")
        if extended:
            _extend(entry, extended, self._limits)
        if kind not in _PLAIN:
            words = "a sparse file" if kind == b"S" else f"an entry of the unknown type {kind!r}"
            raise BadArchive(f"{words}: {entry.name!r}", hint="Make the archive without --sparse or other extensions.")
        if is_wide or extended or long_name or long_link:
            # What the fields of a header alone can say is in these limits.
            self._limit(entry)
        if kind != REGULAR:
            entry.size = 0
        self._body, self._padding = entry.size, -entry.size % BLOCK
        return entry

    def _limit(self, entry: Entry) -> None:
        """Refuse what cannot be, and forget a time that is nonsense. Raises BadArchive."""
        if entry.size < 0 or entry.size >= 1 << 63:
            raise BadArchive(f"{entry.name!r} has the size {entry.size}")
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise BadArchive(f"{entry.name!r} belongs to an impossible user or group")
        if abs(entry.mtime_ns) > _MAX_TIME_NS:
            entry.mtime_ns = 0
        limit = self._limits.path_bytes
        if len(entry.name) > limit or len(entry.link) > limit or b"\0" in entry.name or b"\0" in entry.link:
            raise BadArchive(f"an impossible name: {entry.name[:80]!r}…")

    def _read_rights(self, data: bytes) -> tuple[int, int, int]:
        """Mode, user and group, remembered together, since few differ. Raises BadArchive."""
        rights = self._octal(data[:8], "mode"), self._octal(data[8:16], "uid"), self._octal(data[16:], "gid")
        if len(self._rights) < _REMEMBERED:
            self._rights[data] = rights
        return rights

    def _octal(self, data: bytes, what: str) -> int:
        """Remembered, since modes, owners and small sizes are few. Raises BadArchive."""
        value = self._octals.get(data)
        if value is None:
            value = octal(data, what)
            if len(self._octals) < _REMEMBERED:
                self._octals[data] = value
        return value


def _cut_off() -> BadArchive:
    return BadArchive("the archive is cut off", why="it ends in the middle of an entry")


class _Buffer:
    """A stream in pieces of the size that the processor's cache holds, each valid until the next."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._view = memoryview(bytearray(_CHUNK))

    def chunk(self) -> memoryview:
        return self._view[: self._stream.readinto(self._view) or 0]


def _extend(entry: Entry, records: dict[bytes, bytes], limits: Limits) -> None:
    """Let PAX records overrule the header's fields; an empty value takes a record back.

    Attributes that are no layer's business are dropped here, before anybody keeps them.
    """
    left = limits.xattrs_bytes
    for key, value in records.items():
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not is_kept_xattr(name):
                continue
            left -= len(name) + len(value)
            if len(value) > limits.xattr_bytes or left < 0:
                raise BadArchive(f"{entry.name!r} has extended attributes of more bytes than a file can have")
            entry.xattrs[name] = value
        elif key.startswith(b"GNU.sparse."):
            raise BadArchive(f"a sparse file: {entry.name!r}", hint="Make the archive without --sparse.")
        elif not value:
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = decimal(value, "size")
        elif key == b"uid":
            entry.uid = decimal(value, "uid")
        elif key == b"gid":
            entry.gid = decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime_ns = nanoseconds(value)
