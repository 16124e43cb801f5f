"""What is in layers: their files as values, read from the stored tars, without unpacking and without privileges."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from nbcontain.errors import BadArchive, StoreError
from nbcontain.oci.image import Layer
from nbcontain.store import tar
from nbcontain.store.blobs import Blobs
from nbcontain.store.compression import uncompressed
from nbcontain.values import dataclass

LIMITS = tar.Limits(entries=1_000_000)
"""What a layer may hold to be looked at: every entry is a value in memory."""
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"
_STRIKE_BYTES = 4 << 20
_TYPES = {
    "directory": stat.S_IFDIR, "link": stat.S_IFLNK, "character device": stat.S_IFCHR, "block device": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}  # fmt: skip
_KINDS = {
    tar.REGULAR: "file", tar.SYMLINK: "link", tar.DIRECTORY: "directory", tar.CHARACTER: "character device",
    tar.BLOCK_DEVICE: "block device", tar.FIFO: "fifo", tar.LINK: "file",
}  # fmt: skip
UNHASHED = b"unhashed"
"""In place of a digest. Two of these tell nothing of each other."""


@dataclass(slots=True, eq=False)
class File:
    """One file of a layer, of whatever kind. Not frozen, for speed: there are many. Hard links are one File."""

    kind: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    target: str
    """Of a symbolic link."""
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    digest: bytes
    """SHA-256 of its bytes; `UNHASHED` where nobody was going to ask."""
    layer: Layer
    """The layer that it is of."""
    place: int
    """Which entry of that layer's tar, counted from 0."""

    @property
    def permissions(self) -> str:
        """Type and mode as ls -l has them: drwxr-xr-x."""
        return stat.filemode(self.mode | _TYPES.get(self.kind, stat.S_IFREG))

    def differs(self, other: File) -> tuple[str, ...]:
        """In what: "type", "content", "mode", "owner", "target", "device", "xattrs", "time"."""
        if self.kind != other.kind:
            return ("type",)
        assert UNHASHED not in (self.digest, other.digest), "hashed as nobody was going to compare it"
        said = {
            "content": self.digest != other.digest, "mode": self.mode != other.mode,
            "owner": (self.uid, self.gid) != (other.uid, other.gid), "target": self.target != other.target,
            "device": self.device != other.device, "xattrs": self.xattrs != other.xattrs,
            # A directory's time tells of what is in it, and that is told itself.
            "time": self.kind != "directory" and self.mtime_ns != other.mtime_ns,
        }  # fmt: skip
        return tuple(name for name, differs in said.items() if differs)


@dataclass(frozen=True, slots=True)
class Contents:
    """One layer: its entries in the order of the tar, and what it hides of the layers below."""

    entries: tuple[tuple[bytes, File], ...]
    links: tuple[tuple[bytes, bytes], ...]
    """Hard links: where, and to what."""
    removed: tuple[bytes, ...]
    opaque: tuple[bytes, ...]
    size_bytes: int
    """Of the files' bytes."""
    hashed: frozenset[bytes] | None = None
    """The paths at which files are hashed; None for all."""

    def is_hashed_at(self, paths: frozenset[bytes] | None) -> bool:
        """Whether what is at these paths, or anywhere (None), can be compared."""
        return self.hashed is None or paths is not None and paths <= self.hashed


def paths_of(layers: Sequence[Contents]) -> frozenset[bytes]:
    """Where these layers could have something otherwise than one below them."""
    found: set[bytes] = set()
    for each in layers:
        found.update([path for path, _ in each.entries])
        for link in each.links:
            found.update(link)
    return frozenset(found)


def read_contents(
    blobs: Blobs, layer: Layer, strike: Callable[[int], None], hashed: frozenset[bytes] | None = None
) -> Contents:
    """Read a layer's tar, its blob verified on the way. `strike` is told the bytes read, and raises when unwanted.

    Where it is known at which paths files are going to be compared, only those are hashed. Raises BadArchive,
    DigestMismatch, StoreError.
    """
    with blobs.open_beside(layer.descriptor.digest) as blob:
        found = parse_contents(uncompressed(blob), layer, strike, hashed)
    if hashed is not None and (more := {target for path, target in found.links if path in hashed} - hashed):
        # A file of that name is compared by another of its names, and that is found out afterwards.
        return read_contents(blobs, layer, strike, hashed | more)
    return found


def parse_contents(
    stream: tar.Readable, layer: Layer, strike: Callable[[int], None], hashed: frozenset[bytes] | None = None
) -> Contents:
    """What a tar says, read to the stream's end. Raises BadArchive."""
    entries: list[tuple[bytes, File]] = []
    links: list[tuple[bytes, bytes]] = []
    removed: list[bytes] = []
    opaque: list[bytes] = []
    read_bytes = told = 0
    reader = tar.Reader(stream, LIMITS, hashes=False)
    while (entry := reader.next()) is not None:
        path = _normal(entry.name)
        if _WHITEOUT in path and (leaf := path.rpartition(b"/")[2]).startswith(_WHITEOUT):
            if leaf == _OPAQUE:
                opaque.append(path[: -len(_OPAQUE)].rstrip(b"/"))
            elif not leaf.startswith(b".wh..wh."):
                removed.append(path[: -len(leaf)] + leaf[len(_WHITEOUT) :])
        elif entry.kind == tar.LINK:
            links.append((path, _normal(entry.link)))
        elif entry.kind in _KINDS:
            digest = b""
            if entry.kind != tar.REGULAR:
                pass
            elif hashed is not None and path not in hashed:
                digest = UNHASHED
                read_bytes += entry.size
            else:
                # Nearly every file is in memory whole: what goes on below is for the others.
                found = hashlib.sha256(chunk := reader.chunk())
                read_bytes += (got := len(chunk))
                while got < entry.size:
                    found.update(chunk := reader.chunk())
                    got += len(chunk)
                    read_bytes += len(chunk)
                    if read_bytes - told >= _STRIKE_BYTES:
                        strike(read_bytes)
                        told = read_bytes
                digest = found.digest()
            if read_bytes - told >= _STRIKE_BYTES:
                strike(read_bytes)
                told = read_bytes
            entries.append((path, _file(entry, digest, layer, reader.entries - 1)))
    reader.finish()
    strike(read_bytes)
    return Contents(tuple(entries), tuple(links), tuple(removed), tuple(opaque), read_bytes, hashed)


def _file(entry: tar.Entry, digest: bytes, layer: Layer, place: int) -> File:
    return File(
        _KINDS[entry.kind], entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns,
        os.fsdecode(entry.link) if entry.kind == tar.SYMLINK else "", (entry.major, entry.minor),
        tuple(sorted(entry.xattrs.items())) if entry.xattrs else (), digest, layer, place,
    )  # fmt: skip


def _normal(name: bytes) -> bytes:
    """A member's name as a path below the root; "" is the root itself. Raises BadArchive for one that leads out."""
    if b"/." not in name and b"//" not in name and name[:1] not in (b"/", b".", b""):
        return name[:-1] if name.endswith(b"/") else name  # as nearly everybody writes it
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise BadArchive("a path with .. in a layer", why=os.fsdecode(name))
    return b"/".join(parts)


def read_file(blobs: Blobs, layer: Layer, place: int) -> Iterator[bytes]:
    """The bytes of the file that is entry number `place` of a layer's tar. Raises BadArchive, StoreError."""
    with blobs.opened(layer.descriptor.digest) as blob:
        reader = tar.Reader(uncompressed(cast(tar.Readable, blob)), LIMITS, hashes=False)
        while reader.next() is not None:
            if reader.entries - 1 == place:
                while chunk := reader.chunk():
                    yield bytes(chunk)
                return
    raise StoreError("the layer does not have this file any more")
