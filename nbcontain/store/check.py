"""Whether the store is sound: everything that one thing says of another, looked at. Changes nothing.

Blobs never change and appear whole, so they are looked at while others work. What only a lock tells
from work in progress (writable layers, half-written bundles) is judged only when nobody else is here.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nbcontain.errors import BadDigest, BadDocument, DigestMismatch, StoreError, VolumeNotFound
from nbcontain.oci import codec
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.oci.image import REF_NAME, Descriptor, Image, Index
from nbcontain.oci.indexes import ImageIndex, index_from
from nbcontain.oci.strict_json import DOCUMENT_LIMIT, load
from nbcontain.store import files
from nbcontain.store.layout import FORMAT_VERSION, INDEX_LIMIT
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.store.snapshots import Snapshotter
    from nbcontain.store.store import Store

Kind = Literal[
    "index-damaged", "layout-damaged", "name-twice", "blob-damaged", "blob-foreign", "image-damaged",
    "image-incomplete",
    "snapshot-damaged", "snapshot-on-nothing", "layer-of-nobody", "layer-on-nothing", "cache-useless", "leftover",
    "permissions", "container-damaged", "container-unfinished", "container-without-layer", "container-lost",
    "volume-damaged", "volume-missing", "volume-of-nobody",
]  # fmt: skip
Remedy = Literal["quarantine", "remove", "rewrite", "close", "drop", "end", "none"]
_READ_BYTES = 1 << 20
_MOMENT_S = 0.1
_LEFT = re.compile(r"\.[a-z.]+-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of finding is, and what repair does about it."""

    text: str
    remedy: Remedy
    repair: str


MEANINGS: dict[Kind, Meaning] = {
    "index-damaged": Meaning(
        "the list of images cannot be read", "rewrite",
        "sets the file aside and lists every image and index found among the blobs anew, as recovered/<id>",
    ),
    "layout-damaged": Meaning("a file that says what is here is missing or wrong", "rewrite", "writes it anew"),
    "name-twice": Meaning("two images have one name", "drop", "keeps the later one; the other stays without a name"),
    "blob-damaged": Meaning("a blob's bytes are not those of its name", "quarantine", "sets it aside: it is not used"),
    "blob-foreign": Meaning("a file among the blobs is none", "quarantine", "sets it aside"),
    "image-damaged": Meaning(
        "a manifest or config is missing, damaged, or belongs to another image", "drop", "takes its names away",
    ),
    "image-incomplete": Meaning("a layer of the image is missing or damaged", "drop", "takes its names away"),
    "snapshot-damaged": Meaning(
        "an unpacked layer lost a part of it", "quarantine", "sets it aside, and unpacks it again if its blob is whole",
    ),
    "snapshot-on-nothing": Meaning(
        "an unpacked layer lies on one that is not there", "quarantine",
        "unpacks what is below again, or sets it aside if that cannot be",
    ),
    "layer-of-nobody": Meaning("a writable layer that no container owns: a crash left it", "remove", "removes it"),
    "layer-on-nothing": Meaning(
        "a container's image layers are missing or damaged", "none",
        "unpacks them again if their blobs are whole; otherwise the container can only be removed",
    ),
    "cache-useless": Meaning("a record of the build cache is damaged, or its layers are gone", "remove", "removes it"),
    "leftover": Meaning("a temporary file whose maker is dead", "remove", "removes it"),
    "permissions": Meaning("others may look into the store, or its owner may not", "close", "sets the mode right"),
    "container-damaged": Meaning("a container's files cannot be read", "quarantine", "sets its directory aside"),
    "container-unfinished": Meaning("a container whose maker died over it", "remove", "removes it"),
    "container-without-layer": Meaning(
        "a container's writable layer is gone", "quarantine", "sets its directory aside: it cannot be started",
    ),
    "volume-damaged": Meaning("a volume's record cannot be read", "quarantine", "sets it aside, with its files"),
    "volume-missing": Meaning(
        "a container has a volume that is gone", "none", "nothing: remove the container, or make the volume anew",
    ),
    "volume-of-nobody": Meaning("a volume that should have gone with its container", "remove", "removes it"),
    "container-lost": Meaning(
        "a container's supervisor died and could not say how it ended", "end", "records that it ended",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. `path` is where, for repair."""

    kind: Kind
    subject: str
    """What people know it by: a digest, an image's name, a container's."""
    detail: str
    path: Path
    digest: Digest | None = None
    """Of the manifest, for findings about images."""

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.kind]


@dataclass(frozen=True, slots=True)
class Looked:
    """How much was looked at."""

    blobs: int = 0
    bytes_read: int = 0
    images: int = 0
    snapshots: int = 0
    cache_records: int = 0
    containers: int = 0
    is_busy: bool = False
    """Others were at work: leftovers of writable layers and bundles were not judged."""


class Check:
    """One look at a store. `full` reads every blob; `strike` is told the bytes read, and raises when unwanted."""

    def __init__(self, store: Store, *, full: bool, strike: Callable[[int], None] = lambda size_bytes: None) -> None:
        self._store = store
        self._layout = store.layout
        self._full = full
        self._strike = strike
        self._bad: set[Digest] = set()
        self._broken: set[str] = set()
        self.blobs = self.bytes_read = self.images = self.snapshots = self.records = 0

    def everything(self) -> Iterator[Finding]:
        """What can be judged while others work; the caller holds the store's lock, shared at least."""
        yield from self._layouts()
        yield from self._modes()
        yield from self._blobs()
        yield from self._images()
        for snapshots in self._store.snapshotters:
            yield from self._snapshots(snapshots)
        yield from self._cache()
        yield from self._volumes()
        yield from self._leftovers()

    def alone(self, owners: Collection[str]) -> Iterator[Finding]:
        """What can be judged only under the exclusive lock: writable layers, of which containers own `owners`."""
        for snapshots in self._store.snapshotters:
            for name in snapshots.entries():
                if name not in owners:
                    path = snapshots.shelf.active(name)
                    yield Finding("layer-of-nobody", name, "no container of that id, and no build", path)

    def standing(self, key: str, name: str) -> Iterator[Finding]:
        """Whether the container `key`, called `name`, has what it stands on."""
        snapshots = next((each for each in self._store.snapshotters if each.has(key)), self._store.overlays)
        path = snapshots.shelf.active(key)
        if not (path / "fs").is_dir():
            yield Finding("container-without-layer", name, f"{path} is not there", self._layout.container(key))
            return
        try:
            below = snapshots.parent_of(key)
        except StoreError as error:
            yield Finding("container-without-layer", name, error.message, self._layout.container(key))
            return
        try:
            snapshots.chain(below)
        except StoreError as error:
            yield Finding("layer-on-nothing", name, error.message, path)

    # --- the frame ---

    def _layouts(self) -> Iterator[Finding]:
        for path, wanted in ((self._layout.version, f"{FORMAT_VERSION}\n"), (self._layout.oci_layout, "")):
            try:
                data = files.read(path, 4096)
                if wanted and data.decode("ascii", "replace") != wanted:
                    yield Finding("layout-damaged", path.name, f"it reads {data[:40]!r}", path)
                elif not wanted and load(data, path.name).text("imageLayoutVersion") != "1.0.0":
                    yield Finding("layout-damaged", path.name, "another layout than 1.0.0", path)
            except (OSError, StoreError) as error:
                yield Finding("layout-damaged", path.name, _said(error), path)

    def _modes(self) -> Iterator[Finding]:
        layout = self._layout
        closed = [layout.oci, layout.snapshots, layout.actives, layout.cache, layout.containers, layout.tmp]
        closed += [path for path in (layout.trees.root, layout.trees.actives) if path.exists()]
        owner = os.stat(layout.root).st_uid
        for path in closed:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                yield Finding("layout-damaged", path.name, "the directory is missing", path)
                continue
            if status.st_uid != owner or stat.S_IMODE(status.st_mode) != 0o700:
                detail = f"mode {stat.S_IMODE(status.st_mode):o} of uid {status.st_uid}, not 700 of uid {owner}"
                yield Finding("permissions", path.name, detail, path)

    # --- blobs and images ---

    def _blobs(self) -> Iterator[Finding]:
        for algorithm in sorted(os.listdir(self._layout.blobs)):
            folder = self._layout.blobs / algorithm
            names = sorted(os.listdir(folder)) if folder.is_dir() else [""]
            for name in names:
                path = folder / name if name else folder
                try:
                    digest = Digest.parse(f"{algorithm}:{name}")
                except BadDigest:
                    yield Finding("blob-foreign", f"{algorithm}/{name}", "its name is no digest", path)
                    continue
                self.blobs += 1
                if (detail := self._damage(digest, path)) is not None:
                    self._bad.add(digest)
                    yield Finding("blob-damaged", str(digest), detail, path)

    def _damage(self, digest: Digest, path: Path) -> str | None:
        """What is wrong with a blob; None if nothing, or if it was removed meanwhile."""
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return "it is no file"
            if not self._full:
                return None
            found = hashlib.new(digest.algorithm)
            with self._store.blobs.open(digest) as blob:
                while chunk := os.read(blob.fileno(), _READ_BYTES):
                    found.update(chunk)
                    self.bytes_read += len(chunk)
                    self._strike(self.bytes_read)
        except FileNotFoundError:
            return None
        except (OSError, StoreError) as error:
            return _said(error)
        return (
            None
            if found.hexdigest() == digest.hex
            else f"its bytes are those of {digest.algorithm}:{found.hexdigest()}"
        )

    def entries(self) -> tuple[Descriptor, ...]:
        """index.json's. Raises StoreError, OSError."""
        return codec.parse_index(files.read(self._layout.index, INDEX_LIMIT)).manifests

    def _images(self) -> Iterator[Finding]:
        try:
            entries = self.entries()
        except (OSError, StoreError) as error:
            yield Finding("index-damaged", "index.json", _said(error), self._layout.index)
            return
        seen: dict[str, Digest] = {}
        for entry in entries:
            self.images += 1
            name = entry.annotations.get(REF_NAME, "")
            shown = name or entry.digest.short
            if name and seen.get(name, entry.digest) != entry.digest:
                yield Finding("name-twice", name, f"{seen[name].short} and {entry.digest.short}", self._layout.index)
            if name:
                seen[name] = entry.digest
            yield from self._image(entry, shown)

    def _image(self, entry: Descriptor, shown: str) -> Iterator[Finding]:
        path = self._layout.blob(entry.digest)
        try:
            image = self._read(entry)
        except (OSError, StoreError) as error:
            yield Finding("image-damaged", shown, _said(error), path, entry.digest)
            return
        if isinstance(image, ImageIndex):
            for each in image.entries if REF_NAME in entry.annotations else ():
                about = f"{shown} for {each.platform}"
                if each.media_type in codec.MANIFESTS and (found := list(self._image(each, about))):
                    yield from found
                    why = f"its image {each.digest.short} is not whole"
                    yield Finding("image-incomplete", shown, why, path, entry.digest)
            return
        for layer in image.manifest.layers:
            if layer.digest in self._bad or not self._store.blobs.has(layer):
                what = "damaged" if layer.digest in self._bad else "missing, or of another size than the manifest says"
                yield Finding(
                    "image-incomplete", shown, f"its layer {layer.digest.short} is {what}", path, entry.digest
                )

    def is_whole(self, entry: Descriptor) -> bool:
        """Whether all that an entry of index.json speaks of is here."""
        return not any(self._image(entry, ""))

    def _read(self, entry: Descriptor) -> Image | ImageIndex:
        """An entry's image or index, read anew from the disk."""
        if not self._store.blobs.has(entry):
            raise StoreError(f"the blob {entry.digest} is missing, or not of {entry.size} bytes")
        raw = self._store.blobs.read(entry.digest, DOCUMENT_LIMIT)
        if load(raw, "manifest").values.get("manifests") is not None:
            return index_from(raw)
        config = codec.parse_manifest(raw).config
        return codec.image_from(raw, self._store.blobs.read(config.digest, DOCUMENT_LIMIT))

    def whole_images(self) -> Iterator[Image]:
        """Those of the index of which every blob is there and good, as far as this look knows."""
        with suppress(OSError, StoreError):
            for entry in self.entries():
                for image in self._whole(entry):
                    if all(
                        self._store.blobs.has(layer) and layer.digest not in self._bad
                        for layer in image.manifest.layers
                    ):
                        yield image

    def _whole(self, entry: Descriptor) -> Iterator[Image]:
        """The image of an entry, or those of its index, as far as they can be read."""
        with suppress(OSError, StoreError):
            found = self._read(entry)
            if isinstance(found, Image):
                yield found
            else:
                for each in found.entries:
                    if each.media_type in codec.MANIFESTS:
                        yield from self._whole(each)

    def manifests(self) -> Iterator[Descriptor]:
        """Every blob that is the manifest of an image, or an index of such, for an index.json that was lost.

        What an index names is not told besides.
        """
        images: dict[Digest, Descriptor] = {}
        indexes: list[Index] = []
        entries: list[Descriptor] = []
        within: set[Digest] = set()
        blobs = self._store.blobs
        for digest in sorted(blobs.walk(), key=str):
            with suppress(OSError, StoreError, DigestMismatch):
                size_bytes = blobs.size(digest)
                if size_bytes > DOCUMENT_LIMIT:
                    continue
                raw = blobs.read(digest, DOCUMENT_LIMIT)
                try:
                    manifest = codec.parse_manifest(raw)
                except BadDocument:
                    indexes.append(codec.parse_index(raw))
                    entries.append(Descriptor(indexes[-1].media_type, digest, size_bytes))
                    continue
                if blobs.has(manifest.config):
                    images[digest] = Descriptor(manifest.media_type, digest, size_bytes)
        for index, entry in zip(indexes, entries, strict=True):
            if named := [each.digest for each in index.manifests if each.digest in images]:
                yield entry
                within.update(named)
        yield from (entry for digest, entry in images.items() if digest not in within)

    # --- snapshots, cache, leftovers ---

    def _snapshots(self, snapshots: Snapshotter) -> Iterator[Finding]:
        standing: list[tuple[str, ChainID]] = []
        known = set()
        for name in snapshots.walk():
            self.snapshots += 1
            chain = ChainID(Digest("sha256" if len(name) == 64 else "sha512", name))
            path = snapshots.shelf.snapshot(chain)
            if not snapshots.holds(chain):
                yield Finding("leftover", name[:12], "it was not written out before the power went", path)
                continue
            known.add(name)
            try:
                parent = snapshots.parent(chain)
            except StoreError as error:
                if path.exists():
                    yield Finding("snapshot-damaged", name[:12], error.why or error.message, path)
                continue
            if not (path / "fs").is_dir() or (path / "fs").is_symlink():
                yield Finding("snapshot-damaged", name[:12], "its files are gone", path)
                continue
            if parent is not None:
                standing.append((name, parent))
        for name, parent in standing:
            if parent.hex not in known and not snapshots.holds(parent):
                path = snapshots.shelf.root / name
                yield Finding("snapshot-on-nothing", name[:12], f"there is no {parent.short}", path)

    def _cache(self) -> Iterator[Finding]:
        with os.scandir(self._layout.cache) as listing:
            names = sorted(entry.name for entry in listing)
        for name in names:
            if name.startswith(".tmp-"):
                continue
            path = self._layout.cache / name
            try:
                key = Digest.parse(f"sha256:{name.removesuffix('.json')}")
            except BadDigest:
                yield Finding("cache-useless", name, "its name is no key", path)
                continue
            self.records += 1
            if not self._store.cache.is_sound(key) and path.exists():
                yield Finding("cache-useless", key.short, "it cannot be read, or layers that it names are gone", path)

    def _volumes(self) -> Iterator[Finding]:
        volumes = self._store.volumes
        for name in volumes.names():
            try:
                volumes.get(name)
            except VolumeNotFound:
                continue
            except StoreError as error:
                yield Finding("volume-damaged", name, _said(error), self._layout.volume(name))

    def _leftovers(self) -> Iterator[Finding]:
        layout = self._layout
        found = self._unlocked()
        if found:
            # One that is just being made has no lock for a moment.
            time.sleep(_MOMENT_S)
            found &= self._unlocked()
        for path in sorted(found):
            yield Finding("leftover", str(path.relative_to(layout.root)), "nobody holds its lock", path)

    def _unlocked(self) -> set[Path]:
        layout = self._layout
        directories = (layout.tmp, layout.cache, layout.oci, layout.root)
        return {path for directory in directories for path in files.sweep(directory)}


def recovered(digest: Digest) -> str:
    """The name of an image whose own was lost."""
    return f"docker.io/recovered/{digest.short}:latest"


def empty_index() -> bytes:
    """What a new store's index.json is."""
    return codec.dump_index(Index(()))


def _said(error: OSError | StoreError) -> str:
    return (error.message if isinstance(error, StoreError) else error.strerror) or str(error)
