"""Digests, and the two identities built on them: diff IDs and chain IDs (image-spec config.md#layer-chainid)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from nbcontain.errors import BadDigest, DigestMismatch
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
# The interpreter's own, for documents: OpenSSL's, which is faster on megabytes, takes milliseconds to be loaded.
if TYPE_CHECKING:
    from hashlib import sha256 as sha256
    from typing import NewType
else:
    try:
        from _sha2 import sha256
    except ImportError:
        # Python 3.11
        from _sha256 import sha256

_LENGTHS = {"sha256": 64, "sha512": 128}
_GRAMMAR = re.compile(r"(sha256|sha512):([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of some bytes: an algorithm and the lowercase hex of its result."""

    algorithm: str
    hex: str

    def __hash__(self) -> int:
        # A text remembers its own, and a listing looks up thousands.
        return hash(self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits, as docker prints them."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read "sha256:…"; raises BadDigest, so that nothing else ever becomes part of a path."""
        match = _GRAMMAR.fullmatch(text)
        if match is None or len(match[2]) != _LENGTHS[match[1]]:
            raise BadDigest(f"{text!r} is no digest", hint="A digest reads sha256: and 64 hex digits.")
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The SHA-256 digest of these bytes."""
        return cls("sha256", sha256(data).hexdigest())

    def is_of(self, data: bytes) -> bool:
        """Whether these are the bytes."""
        return self._found(data) == self.hex

    def verify(self, data: bytes) -> None:
        """Raise DigestMismatch unless these are the bytes."""
        if (found := self._found(data)) != self.hex:
            raise DigestMismatch(self, f"{self.algorithm}:{found}")

    def _found(self, data: bytes) -> str:
        if self.algorithm == "sha256":
            return sha256(data).hexdigest()
        import hashlib

        return hashlib.new(self.algorithm, data).hexdigest()


if TYPE_CHECKING:
    DiffID = NewType("DiffID", Digest)
    """The digest of an uncompressed layer tar."""

    ChainID = NewType("ChainID", Digest)
    """The identity of a stack of layers."""
else:

    def _same(digest):
        return digest

    DiffID = ChainID = _same


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """The chain ID of `diff_id` laid on `parent`; the lowest layer's chain ID is its diff ID.

    Of two or more it is a SHA-256, whatever the diff IDs are, as for all who use image-spec's own `identity`.
    """
    if parent is None:
        return ChainID(diff_id)
    return ChainID(Digest.of(f"{parent} {diff_id}".encode()))


def chain_ids(diff_ids: Iterable[DiffID]) -> Iterator[ChainID]:
    """The chain IDs of the stacks that end with each of these layers, lowest first."""
    chain: ChainID | None = None
    for diff_id in diff_ids:
        chain = chain_id(chain, diff_id)
        yield chain


def chain_id_of(diff_ids: Iterable[DiffID]) -> ChainID | None:
    """The chain ID of a whole stack, lowest first; None for no layers, which is `scratch`."""
    chains = [*chain_ids(diff_ids)]
    return chains[-1] if chains else None
