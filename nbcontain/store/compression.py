"""Getting at the tar inside a compressed stream, by its first bytes and not by what somebody calls it.

gzip (RFC 1952), zstd (RFC 8878), bzip2, xz, or nothing. Several streams behind each other are one, as
their own programs read them; only zero bytes may follow. Memory is bounded whatever a stream claims.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable

from nbcontain.errors import BadArchive
from nbcontain.store.tar import BLOCK, Readable

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import NoReturn, Protocol
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


def _gunzip() -> Decompressor:
    """By ISA-L, which is three times as fast as zlib, where it is installed."""
    try:
        from isal import igzip_lib
    except ImportError:
        return _Gunzip()
    made: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return made


class _Gunzip:
    """zlib's gzip in the shape of the others."""

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
    b"\x1f\x8b": ("gzip", _gunzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _unzstd),
    b"BZh": ("bzip2", _bunzip2),
    b"\xfd7zXZ\x00": ("xz", _unxz),
}


def load() -> None:
    """Import all that reading may need: for a process that soon cannot import any more."""
    for _, make in _KINDS.values():
        try:
            make()
        except BadArchive:
            continue


def uncompressed(stream: Readable) -> Uncompressed:
    """What is inside a stream, which is told by its first bytes. Reading raises BadArchive for damage."""
    start = bytearray(BLOCK)
    count = 0
    while count < len(start) and (got := stream.readinto(memoryview(start)[count:])):
        count += got
    first = bytes(start[:count])
    rest = _Prefixed(first, stream)
    if first[257:262] != b"ustar":
        # Else it is a tar, whatever its first name begins with.
        for magic, (name, make) in _KINDS.items():
            if first.startswith(magic):
                return Uncompressed(rest, name, make)
        if first.startswith(b"\x04\x22\x4d\x18"):
            raise BadArchive("the archive is compressed with lz4", hint="Decompress it first.")
    return Uncompressed(rest, "", None)


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

    def __init__(self, stream: Readable, compression: str, make: Callable[[], Decompressor] | None) -> None:
        self.compression = compression
        self._stream = stream
        self._make = make
        self._inner = make() if make is not None else None
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._input = b""
        self._waiting = memoryview(b"")
        self._taken_bytes = self._given_bytes = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        if self._make is None and not self._waiting:
            return self._stream.readinto(buffer)
        if not self._waiting:
            self._waiting = memoryview(self.chunk(len(buffer)))
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def chunk(self, limit: int = _CHUNK_BYTES) -> bytes | memoryview:
        """Some more, at most so much and valid until the next call; nothing at the end."""
        if self._make is None:
            return self._buffer[: self._stream.readinto(self._buffer[:limit]) or 0]
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
                    raise BadArchive(f"the {self.compression} data is cut off")
            data = self._decompressed(self._inner, limit)
            if self._inner.eof:
                self._input = self._inner.unused_data
                self._inner = None
            if data:
                self._given_bytes += len(data)
                if self._given_bytes > FREE_BYTES + RATIO * self._taken_bytes:
                    self._refuse()
                return data

    _is_over = False

    def _more(self) -> bytes:
        count = self._stream.readinto(self._buffer[:_READ_BYTES]) or 0
        self._is_over = not count
        self._taken_bytes += count
        return bytes(self._buffer[:count])

    def _refuse(self) -> NoReturn:
        raise BadArchive(
            f"the {self.compression} data is a bomb",
            why=f"{self._taken_bytes} bytes of it unpack to more than {self._given_bytes}",
            hint=f"Beyond {FREE_BYTES >> 30} GiB it may be {RATIO} times as large as it is compressed, and no larger.",
        )

    def _decompressed(self, inner: Decompressor, limit: int) -> bytes:
        given, self._input = self._input, b""
        try:
            return inner.decompress(given, limit)
        except Exception as error:
            # Each library has an error of its own: zlib.error, LZMAError, ZstdError, OSError, EOFError, MemoryError.
            why = str(error) or type(error).__name__
            raise BadArchive(f"the {self.compression} data is damaged", why=why) from error
