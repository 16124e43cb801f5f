"""How a layer's tar lies in its blob: gzip, zstd (RFC 8878), or as it is.

Each is made of blocks that are compressed each by itself, so that several threads can do that, and the bytes do not
depend on how many they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nbcontain.errors import UsageError
from nbcontain.oci.image import LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD
from nbcontain.store import gzip_stream
from nbcontain.store.gzip_stream import Block
from nbcontain.values import dataclass

ZSTD_LEVEL = 3
"""zstd's own, and buildx's."""
ZSTD_LEVELS = range(1, 23)


class Packs(Protocol):
    """Compresses blocks, for one thread."""

    def pack(self, block: Block) -> Sequence[bytes]:
        """What it becomes in the stream, in pieces."""


class Tallies(Protocol):
    """What a stream's end says of all that is in it."""

    def add(self, block: Block) -> None:
        """The next block."""

    def end(self) -> bytes:
        """The end of the stream."""


class _Nothing:
    """Of a stream whose end says nothing."""

    def add(self, block: Block) -> None:
        """Nothing is kept of it."""

    def end(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class Form:
    """One of them. `name` is buildx's word for it; without a `packer` the blob is the tar itself."""

    name: str
    media_type: str
    packer: Callable[[], Packs] | None = None
    head: bytes = b""
    tally: Callable[[], Tallies] = _Nothing


PLAIN = Form("uncompressed", LAYER_TAR)
GZIP = Form("gzip", LAYER_TAR_GZIP, gzip_stream.Packer, gzip_stream.HEAD, gzip_stream.Tally)


def zstd(level: int = ZSTD_LEVEL) -> Form:
    """zstd of this level. Each block is a frame: whoever reads several behind each other reads one stream."""
    return Form("zstd", LAYER_TAR_ZSTD, lambda: _Zstd(level))


FORMS = ("gzip", "zstd", "uncompressed")


def form_of(name: str, level: int | None = None) -> Form:
    """The form of that name. Raises UsageError."""
    if name not in FORMS:
        raise UsageError(f"{name!r} is no compression that is to be had", hint="gzip, zstd or uncompressed")
    if name == "zstd":
        if level is not None and level not in ZSTD_LEVELS:
            raise UsageError(f"zstd has no level {level}", hint="1 is quickest, 22 smallest; 3 unless you say it")
        return zstd(level or ZSTD_LEVEL)
    if level is not None:
        raise UsageError(f"{name} has no levels here", hint="zstd has")
    return GZIP if name == "gzip" else PLAIN


class _Zstd:
    def __init__(self, level: int) -> None:
        self._compressor: Any = _tools().ZstdCompressor(level)
        self._whole = self._compressor.FLUSH_FRAME

    def pack(self, block: Block) -> tuple[bytes, ...]:
        return (self._compressor.compress(block, self._whole),) if block else ()


def _tools() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
