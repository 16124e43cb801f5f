"""Getting at the tar inside a compressed stream, by its first bytes and not by what somebody calls it.

gzip (RFC 1952), zstd (RFC 8878), bzip2, xz, or nothing. Several streams behind each other are one, as
their own programs read them; only zero bytes may follow. Memory is bounded whatever a stream claims.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress

from nbcontain.errors import BadArchive
from nbcontain.store.tar import BLOCK, Readable

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any, Protocol

    from _typeshed import WriteableBuffer
else:
    Protocol = object

FREE_BYTES = 4 << 30
"""So much may come of any stream, as empty as it is."""
RATIO = 200
"""Beyond that, so many bytes of one that was compressed. Of zeros gzip makes 1,030, zstd and bzip2 tens of thousands;
of the files of images three, of text ten."""
_READ_BYTES = 256 << 10
_CHUNK_BYTES = 256 << 10
"""What the processor's cache holds: uncompressed, hashed and handed on before it is forgotten."""
_GZIP = 31
"""zlib's word for a window of 32 KiB in gzip's wrapping."""
_XZ_MEMORY_BYTES = 128 << 20
_ZSTD_WINDOW_LOG = 27
"""128 MiB, which is what zstd --long asks for."""


class Decompressor(Protocol):
    """As bz2, lzma and zstd have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's gzip in the shape of the others, where ISA-L is not installed."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._rest and not self._is_full

    _is_full = False

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._rest + data if self._rest else data, max(0, max_length))
        self._rest = self._inner.unconsumed_tail
        # Some output may wait inside although all input is taken.
        self._is_full = len(out) == max_length
        return out


def _bunzip2() -> Decompressor:
    from bz2 import BZ2Decompressor

    return BZ2Decompressor()


def _unxz() -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _unzstd() -> Decompressor:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise BadArchive(
            "the archive is compressed with zstd, which cannot be read here", why=str(error),
            hint="pip install backports.zstd",
        ) from error  # fmt: skip
    made: Decompressor = zstd.ZstdDecompressor(
        options={int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    )
    return made


_KINDS: dict[bytes, tuple[str, Callable[[], Decompressor]]] = {
    b"\x1f\x8b": ("gzip", _Gunzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _unzstd),
    b"BZh": ("bzip2", _bunzip2),
    b"\xfd7zXZ\x00": ("xz", _unxz),
    # A frame of something else, to be skipped (RFC 8878, 3.1.2): pzstd begins with one.
    **{bytes((0x50 | number,)) + b"\x2a\x4d\x18": ("zstd", _unzstd) for number in range(16)},
}
MAGICS = tuple(_KINDS)
"""What compressed data begins with."""


def load() -> None:
    """Import all that reading may need: for a process that soon cannot import any more."""
    for name, make in {*_KINDS.values()}:
        with suppress(BadArchive):
            _opened(_Packed(io.BytesIO(), name), make)


def uncompressed(stream: Readable) -> Uncompressed:
    """What is inside a stream, which is told by its first bytes. Reading raises BadArchive for damage."""
    start = bytearray(BLOCK)
    count = 0
    while count < len(start) and (got := stream.readinto(memoryview(start)[count:])):
        count += got
    first = bytes(start[:count])
    rest = _Prefixed(first, stream)
    if kind := _kind(first):
        name, make = kind
        return Uncompressed(_opened(_Packed(rest, name), make), name)
    if first.startswith(b"\x04\x22\x4d\x18") and not _is_tar(first):
        raise BadArchive("the archive is compressed with lz4", hint="Decompress it first.")
    return Uncompressed(rest)


def kind_of(first: bytes) -> str:
    """What data that begins with this block is compressed with: gzip, zstd, bzip2 or xz; "" for what is not."""
    kind = _kind(first)
    return kind[0] if kind else ""


def _kind(first: bytes) -> tuple[str, Callable[[], Decompressor]] | None:
    return None if _is_tar(first) else next((kind for magic, kind in _KINDS.items() if first.startswith(magic)), None)


def _is_tar(first: bytes) -> bool:
    """Then it is one whatever its first name begins with."""
    return first[257:262] == b"ustar"


class _Prefixed:
    """A stream with its first bytes put back."""

    def __init__(self, first: bytes, rest: Readable) -> None:
        self._first = first
        self._rest = rest

    def readinto(self, buffer: memoryview, /) -> int | None:
        if not self._first:
            return self._rest.readinto(buffer)
        count = min(len(buffer), len(self._first))
        buffer[:count] = self._first[:count]
        self._first = self._first[count:]
        return count


class Uncompressed:
    """The data inside a stream; `compression` is the name of what it was wrapped in, "" for nothing."""

    def __init__(self, data: Readable, compression: str = "") -> None:
        self.compression = compression
        self._data = data
        self._buffer = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        """Some more, there; 0 at the end."""
        return self._data.readinto(buffer) or 0

    def chunk(self) -> memoryview:
        """Some more, valid until the next call; nothing at the end."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        return self._buffer[: self.readinto(self._buffer)]


class _Packed(io.RawIOBase):
    """The compressed bytes, and whether what comes of them is in proportion."""

    def __init__(self, stream: Readable, name: str) -> None:
        self.name = name
        self._stream = stream
        self._taken_bytes = self._given_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._stream.readinto(memoryview(buffer).cast("B")) or 0
        self._taken_bytes += count
        return count

    def gave(self, count: int) -> int:
        """So many bytes came of them. Raises BadArchive where that is too much."""
        self._given_bytes += count
        if self._given_bytes > FREE_BYTES + RATIO * self._taken_bytes:
            raise BadArchive(
                f"the {self.name} data is a bomb",
                why=f"{self._taken_bytes} bytes of it unpack to more than {self._given_bytes}",
                hint=f"Beyond {FREE_BYTES >> 30} GiB it may be {RATIO} times as large as it is compressed, no larger.",
            )
        return count

    def cut_off(self) -> BadArchive:
        return BadArchive(f"the {self.name} data is cut off")

    def damaged(self, error: Exception) -> BadArchive:
        return BadArchive(f"the {self.name} data is damaged", why=str(error) or type(error).__name__)


class _ByIsal:
    """gzip by ISA-L, which is three times as fast as zlib, and writes straight to where the data is wanted.

    Raises ImportError where it is not installed.
    """

    def __init__(self, packed: _Packed) -> None:
        from isal import isal_zlib

        isal: Any = isal_zlib
        self._packed = packed
        # What stands before the data, a name for one, has to fit into what it reads at once.
        self._reader: Readable = isal._GzipReader(packed, _READ_BYTES)
        self._errors: tuple[type[Exception], ...] = (isal.error, OSError, ArithmeticError)

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._packed.gave(self._reader.readinto(buffer) or 0)
        except EOFError as error:
            raise self._packed.cut_off() from error
        except self._errors as error:
            if isinstance(error, OSError) and error.errno:
                # The disk's own; BadGzipFile has none.
                raise
            raise self._packed.damaged(error) from error


class _Decompressed:
    """What comes in pieces of memory that the decompressor makes, from which it is copied."""

    def __init__(self, packed: _Packed, make: Callable[[], Decompressor]) -> None:
        self._packed = packed
        self._make = make
        self._inner: Decompressor | None = make()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._input = b""
        self._waiting = memoryview(b"")
        self._is_over = False

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._waiting:
            self._waiting = memoryview(self._next(len(buffer)))
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return self._packed.gave(count)

    def _next(self, limit: int) -> bytes:
        """Some more, at most so much; nothing at the end."""
        while True:
            if self._inner is None:
                # Behind the end of one stream: another, or padding.
                self._input = self._input.lstrip(b"\0") or self._more().lstrip(b"\0")
                if self._input:
                    self._inner = self._make()
                elif self._is_over:
                    return b""
                continue
            if not self._input and self._inner.needs_input:
                self._input = self._more()
                if not self._input:
                    raise self._packed.cut_off()
            given, self._input = self._input, b""
            try:
                data = self._inner.decompress(given, limit)
            except Exception as error:
                # Each library has errors of its own: zlib.error, LZMAError, ZstdError, OSError, EOFError, MemoryError.
                raise self._packed.damaged(error) from error
            if self._inner.eof:
                self._input = self._inner.unused_data
                self._inner = None
            if data:
                return data

    def _more(self) -> bytes:
        count = self._packed.readinto(self._buffer)
        self._is_over = not count
        return bytes(self._buffer[:count])


def _opened(packed: _Packed, make: Callable[[], Decompressor]) -> Readable:
    """The data, by ISA-L where it can."""
    if make is _Gunzip:
        # Its reader has no public name, and may have another one some day.
        with suppress(ImportError, AttributeError):
            return _ByIsal(packed)
    return _Decompressed(packed, make)
