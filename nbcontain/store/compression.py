"""Getting at the tar inside a compressed stream: gzip, by its first bytes and not by what somebody calls it."""

from __future__ import annotations

import zlib

from nbcontain.errors import BadArchive
from nbcontain.store.tar import BLOCK, Readable

_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}


def uncompressed(stream: Readable) -> Readable:
    """The tar inside a stream: gzip is recognised by its first bytes, other compressions are refused by name."""
    start = bytearray(BLOCK)
    count = 0
    while count < len(start) and (got := stream.readinto(memoryview(start)[count:])):
        count += got
    first = bytes(start[:count])
    rest = _Prefixed(first, stream)
    if first[257:262] == b"ustar":
        # A tar, whatever its first name begins with.
        return rest
    if first.startswith(b"\x1f\x8b"):
        return _Gunzip(rest)
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise BadArchive(f"the archive is compressed with {name}", hint="Decompress it first; gzip is understood.")
    return rest


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


class _Gunzip:
    """The data of one or more gzip members (RFC 1952); zero bytes may follow them. Memory is bounded."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = memoryview(bytearray(256 << 10))
        self._input = b""
        self._member: zlib._Decompress | None = zlib.decompressobj(31)

    def readinto(self, buffer: memoryview, /) -> int | None:
        while True:
            if not self._input:
                count = self._stream.readinto(self._buffer) or 0
                if not count:
                    if self._member is not None:
                        raise BadArchive("the gzip data is cut off")
                    return 0
                self._input = bytes(self._buffer[:count])
            if self._member is None:
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
                self._member = zlib.decompressobj(31)
            try:
                data = self._member.decompress(self._input, len(buffer))
            except zlib.error as error:
                raise BadArchive("the gzip data is damaged", why=str(error)) from error
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            if data:
                buffer[: len(data)] = data
                return len(data)
