"""What is in layers: their files as values, read from the stored tars, without unpacking and without privileges."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

from nbcontain.errors import BadArchive, StoreError
from nbcontain.oci.image import Layer
from nbcontain.store import tar
from nbcontain.store.blobs import Blobs
from nbcontain.store.compression import uncompressed
from nbcontain.store.inventory import Recorder, rows
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
_NO_DEVICE = (0, 0)
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
    """The paths at which files were to be hashed, besides those of an inventory; None for all."""

    def is_hashed_at(self, paths: frozenset[bytes] | None) -> bool:
        """Whether what is at these paths, or anywhere (None), can be compared."""
        if self.hashed is None or paths is None:
            return self.hashed is None
        unhashed = {path for path, file in self.entries if file.digest is UNHASHED}
        return unhashed.isdisjoint(paths) and not any(
            path in paths and target in unhashed for path, target in self.links
        )


def paths_of(layers: Sequence[Contents]) -> frozenset[bytes]:
    """Where these layers could have something otherwise than one below them."""
    found: set[bytes] = set()
    for each in layers:
        found.update([path for path, _ in each.entries])
        for link in each.links:
            found.update(link)
    return frozenset(found)


def read_contents(
    blobs: Blobs, layer: Layer, strike: Callable[[int], None], hashed: frozenset[bytes] | None = None,
    keep: Callable[[bytes], None] | None = None,
) -> Contents:  # fmt: skip
    """Read a layer's tar, its blob verified on the way. `strike` is told the bytes read, and raises when unwanted.

    Where it is known at which paths files are going to be compared, only those are hashed. `keep` gets the layer's
    inventory. Raises BadArchive, DigestMismatch, StoreError.
    """
    recorder = Recorder() if keep is not None else None
    with blobs.open_beside(layer.descriptor.digest) as blob:
        found = parse_contents(uncompressed(blob), layer, strike, hashed, recorder)
    if hashed is not None and (more := {target for path, target in found.links if path in hashed} - hashed):
        # A file of that name is compared by another of its names, and that is found out afterwards.
        return read_contents(blobs, layer, strike, hashed | more, keep)
    if recorder is not None and keep is not None:
        hashes = {file.place: file.digest for _, file in found.entries if file.digest and file.digest is not UNHASHED}
        keep(recorder.packed(hashes))
    return found


def listed_contents(inventory: bytes, layer: Layer) -> Contents:
    """The same by its inventory. Files are hashed where whoever wrote that hashed them. Raises StoreError."""
    gathered = _Gathered(layer)
    entries = gathered.entries
    size_bytes, is_hashed = 0, True
    for place, (name, kind, mode, uid, gid, size, mtime_ns, more, digest) in enumerate(rows(inventory)):
        path = _normal(name)
        if kind == tar.REGULAR:
            size_bytes += size
            if not digest:
                digest, is_hashed = UNHASHED, False
            if more is None and _WHITEOUT not in path:
                # As nearly all are.
                file = File("file", mode, uid, gid, size, mtime_ns, "", _NO_DEVICE, (), digest, layer, place)
                entries.append((path, file))
                continue
        link, device, xattrs = more or (b"", _NO_DEVICE, {})
        gathered.take(path, kind, mode, uid, gid, size, mtime_ns, link, device, xattrs, digest, place)
    return gathered.contents(size_bytes, None if is_hashed else frozenset())


def parse_contents(
    stream: tar.Readable, layer: Layer, strike: Callable[[int], None], hashed: frozenset[bytes] | None = None,
    recorder: Recorder | None = None,
) -> Contents:  # fmt: skip
    """What a tar says, read to the stream's end. Raises BadArchive."""
    gathered = _Gathered(layer)
    read_bytes = told = 0
    reader = tar.Reader(stream, LIMITS, hashes=False)
    while (entry := reader.next()) is not None:
        if recorder is not None:
            recorder.take(entry)
        path = _normal(entry.name)
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
        gathered.take(
            path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, entry.link,
            (entry.major, entry.minor), entry.xattrs, digest, reader.entries - 1,
        )  # fmt: skip
    reader.finish()
    strike(read_bytes)
    return gathered.contents(read_bytes, hashed)


class _Gathered:
    """The entries of one layer, sorted by what they say."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.entries: list[tuple[bytes, File]] = []
        self._links: list[tuple[bytes, bytes]] = []
        self._removed: list[bytes] = []
        self._opaque: list[bytes] = []

    def take(
        self, path: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int, link: bytes,
        device: tuple[int, int], xattrs: Mapping[bytes, bytes], digest: bytes, place: int,
    ) -> None:  # fmt: skip
        if _WHITEOUT in path and (leaf := path.rpartition(b"/")[2]).startswith(_WHITEOUT):
            if leaf == _OPAQUE:
                self._opaque.append(path[: -len(_OPAQUE)].rstrip(b"/"))
            elif not leaf.startswith(b".wh..wh."):
                self._removed.append(path[: -len(leaf)] + leaf[len(_WHITEOUT) :])
        elif kind == tar.LINK:
            self._links.append((path, _normal(link)))
        elif kind in _KINDS:
            file = File(
                _KINDS[kind], mode, uid, gid, size, mtime_ns, os.fsdecode(link) if kind == tar.SYMLINK else "",
                device, tuple(sorted(xattrs.items())) if xattrs else (), digest, self._layer, place,
            )  # fmt: skip
            self.entries.append((path, file))

    def contents(self, size_bytes: int, hashed: frozenset[bytes] | None) -> Contents:
        return Contents(
            tuple(self.entries), tuple(self._links), tuple(self._removed), tuple(self._opaque), size_bytes, hashed
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
