"""ADD's local archives: told by their content, and unpacked onto a directory. Run by init, but for the telling.

A tar, plain or compressed with gzip, bzip2, xz or zstd. A file that merely begins like one is copied as it is.
"""

from __future__ import annotations

import bz2
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from nbcontain.build.walk import Entry, opened_file
from nbcontain.errors import BadArchive
from nbcontain.store import tar
from nbcontain.store.unpack import add_tar

# Before the root changes, after which nothing can be imported.
if sys.version_info >= (3, 14):
    from compression import zstd as _zstd
else:
    from backports import zstd as _zstd

_READ_BYTES = 256 << 10
_XZ_MEMORY_BYTES = 256 << 20
_ZSTD_WINDOW_LOG = 27
"""128 MiB, which is what zstd --long asks for."""


class _Decompressor(Protocol):
    """As bz2, lzma and zstd have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _zstandard() -> _Decompressor:
    options = {int(_zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    decompressor: _Decompressor = _zstd.ZstdDecompressor(options=options)
    return decompressor


_KINDS: dict[bytes, Callable[[], _Decompressor]] = {
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": _xz,
    b"\x28\xb5\x2f\xfd": _zstandard,
}
_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, _zstd.ZstdError)


def with_archives(root_fd: int, entries: Iterable[Entry]) -> list[Entry]:
    """The entries, those that are archives and sources themselves marked as such."""
    return [
        replace(entry, is_archive=True)
        if entry.kind == "file" and not entry.is_content and _is_archive(root_fd, entry.path)
        else entry
        for entry in entries
    ]


def _is_archive(root_fd: int, path: str) -> bool:
    """Whether a file is, uncompressed, a tar with at least one entry."""
    with opened_file(root_fd, path) as fd:
        head = os.read(fd, 4096)
        decompress = _opener(head)
        if decompress is None and not head.startswith(b"\x1f\x8b"):
            return _begins_a_tar(head)
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            return _begins_a_tar(_first_block(fd, decompress))
        except _ERRORS:
            return False


def _opener(head: bytes) -> Callable[[], _Decompressor] | None:
    return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)


def _first_block(fd: int, decompress: Callable[[], _Decompressor] | None) -> bytes:
    block = b""
    inflater = decompress() if decompress is not None else None
    gunzip = zlib.decompressobj(31)
    while len(block) < tar.BLOCK and (data := os.read(fd, _READ_BYTES)):
        if inflater is None:
            block += gunzip.decompress(data, tar.BLOCK - len(block))
            if gunzip.eof:
                break
        else:
            block += inflater.decompress(data, tar.BLOCK - len(block))
            while len(block) < tar.BLOCK and not inflater.needs_input and not inflater.eof:
                block += inflater.decompress(b"", tar.BLOCK - len(block))
            if inflater.eof:
                break
    return block


def _begins_a_tar(block: bytes) -> bool:
    if len(block) < tar.BLOCK or not any(block[: tar.BLOCK]):
        return False
    header = block[: tar.BLOCK]
    stated = header[148:156].strip(b"\0 ")
    if not stated.isdigit():
        return False
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return stated.translate(None, b"01234567") == b"" and int(stated, 8) == total


def unpack(fd: int, directory: str, owner: tuple[int, int] | None) -> int:
    """Unpack an archive onto a directory, with `owner` as everybody's; gives how many owners could not be kept.

    What is there is merged with, or replaced, as it is when one extracts a tar. Raises BadArchive.
    """
    head = os.pread(fd, 16, 0)
    decompress = _opener(head)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
        stream: tar.Readable = raw if decompress is None else _Inflated(raw, decompress)
        return add_tar(stream, directory, owner=owner).lost_owners


class _Inflated:
    """The data of one or more streams behind each other. Memory is bounded."""

    def __init__(self, raw: Any, decompress: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._decompress = decompress
        self._stream: _Decompressor | None = decompress()
        self._input = b""

    def readinto(self, buffer: memoryview, /) -> int | None:
        while True:
            if not self._input and (self._stream is None or self._stream.needs_input):
                self._input = self._raw.read(_READ_BYTES)
                if not self._input:
                    if self._stream is not None:
                        raise BadArchive("the compressed data is cut off")
                    return 0
            if self._stream is None:
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
                self._stream = self._decompress()
            try:
                data = self._stream.decompress(self._input, len(buffer))
            except _ERRORS as error:
                raise BadArchive("the compressed data is damaged", why=str(error)) from error
            self._input = b""
            if self._stream.eof:
                self._input = self._stream.unused_data
                self._stream = None
            if data:
                buffer[: len(data)] = data
                return len(data)
