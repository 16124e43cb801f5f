"""Archives of images: docker's, and OCI image layouts, as a tar or a directory; the archive is taken for hostile.

Everything is read once, front to back, so that a pipe will do. Nothing is in the store before all of it was read, and
then only what an image needs. Names inside the archive are looked up among its own
members, as texts: no path of it ever meets a file system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from sys import getsizeof
from typing import TYPE_CHECKING, Protocol

from nbcontain.errors import BadArchive, BadDigest, BadDocument, BadReference, DigestMismatch
from nbcontain.oci import codec
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import CONFIG, LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD, REF_NAME, Descriptor, Image, Manifest
from nbcontain.oci.indexes import ImageIndex, entry_of, index_from, index_of
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import DOCUMENT_LIMIT, load
from nbcontain.store import archive_directory, tar
from nbcontain.store.archive_writer import CONTAINERD_NAME, Saved, blob_path
from nbcontain.store.blobs import Blobs, BlobWriter, BlobWriters
from nbcontain.store.compression import MAGICS, kind_of, uncompressed
from nbcontain.store.layer_forms import PLAIN
from nbcontain.store.layer_writer import LayerWriter, Slots, ring_for
from nbcontain.store.open_directories import split
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.store.early import Early

_CONTENTS = ("manifest.json", "index.json", "oci-layout", "repositories")
_MEMBERS, _BLOBS = 100_000, 2000
_KEPT_BYTES, _MEMBER_BYTES = 64 << 20, 200
"""What may be kept in memory of one archive: documents, names, and where links lead; and of that for each member."""
_EARLY_BYTES = 256 << 10
"""A smaller layer is unpacked in no time when its turn comes."""
_DEPTH = 3
_OF_FILES = "import makes an image of the archive of a file system."
_MEDIA_TYPES = {"gzip": LAYER_TAR_GZIP, "zstd": LAYER_TAR_ZSTD}
"""Of layers compressed with what the image-spec has a word for; docker's others are stored as tars."""
Choose = Callable[[Sequence[Descriptor], str], Sequence[Descriptor]]
"""Which manifests of an index of several platforms, of those that the archive holds."""
Write = Callable[[bytes | memoryview], object]
Wanted = Callable[[Sequence[Descriptor]], Sequence[Descriptor]]
"""Which entries of an OCI layout's index.json."""


class _Body(Protocol):
    """The data of one member: some more of it, in memory of its own or in the caller's, nothing at the end."""

    def chunk(self) -> bytes | memoryview: ...
    def readinto(self, buffer: memoryview, /) -> int: ...


@dataclass(frozen=True, slots=True)
class _Held:
    """A large member, hashed, in a temporary file. What it is as a layer is told by its first bytes: no `media_type`
    where the image-spec has no word for that. `diff_id` is known of what is not compressed.
    """

    blob: BlobWriter
    media_type: str
    diff_id: DiffID | None = None


def read_archive(
    source: tar.Readable | Path, blobs: Blobs, choose: Choose, told: Callable[[int], None] = lambda size_bytes: None,
    wanted: Wanted | None = None, early: Early | None = None,
) -> tuple[Saved, ...]:  # fmt: skip
    """The images of an archive, whose blobs are in the store afterwards; a directory is given as a path.

    What looks like a layer is unpacked `early`, while it is read, if its blob is not here. `told` is called now and
    then with the bytes that are through. Raises BadArchive, BadDocument, DigestMismatch, DiskFull; the store is then
    as before. With `wanted`, of an OCI layout, there may be none.
    """
    with ExitStack() as stack:
        members = archive_directory.members(source) if isinstance(source, Path) else _members_of_tar(source)
        intake = _Intake(blobs, stack.enter_context(blobs.writers()), told, early)
        for name, size, link, body in members:
            intake.take(name, size, link, body)
        images = intake.oci_images(choose, wanted) if "index.json" in intake.documents else intake.docker_images()
        return tuple(images)


def _members_of_tar(stream: tar.Readable) -> Iterator[tuple[str, int, str, _Body]]:
    reader = tar.Reader(uncompressed(stream), hashes=False)
    while (entry := reader.next()) is not None:
        parts = split(entry.name)
        if not parts or entry.kind == tar.DIRECTORY:
            continue
        name = os.fsdecode(b"/".join(parts))
        if entry.name.startswith(b"/"):
            raise BadArchive(f"{name!r} in the archive is an absolute path")
        if entry.kind == tar.SYMLINK:
            yield name, 0, os.path.normpath(os.path.join(os.path.dirname(name), os.fsdecode(entry.link))), reader
        elif entry.kind == tar.LINK:
            yield name, 0, os.fsdecode(b"/".join(split(entry.link))), reader
        elif entry.kind == tar.REGULAR:
            yield name, entry.size, "", reader
        # A device, or a pipe, is of no image: docker passes it over, too. In a file system's archive there may be some.
    reader.finish()


class _Intake:
    """What was read of one archive."""

    def __init__(self, blobs: Blobs, writers: BlobWriters, told: Callable[[int], None], early: Early | None) -> None:
        self.documents: dict[str, bytes] = {}
        self._held: dict[str, _Held] = {}
        self._links: dict[str, str] = {}
        self._read: dict[Digest, list[Image]] = {}
        self._blobs = blobs
        self._writers = writers
        self._told = told
        self._early = early
        self._through = self._kept_bytes = self._members = 0

    def take(self, name: str, size: int, link: str, body: _Body) -> None:
        """One member; a later one of the same name wins."""
        self._members += 1
        if self._members > _MEMBERS:
            raise BadArchive(f"an archive of images has no more than {_MEMBERS} members", hint=_OF_FILES)
        for known in (self.documents, self._held, self._links):
            known.pop(name, None)
        if link:
            if name in _CONTENTS:
                raise BadArchive(f"{name} of the archive is a link")
            self._keep(name, getsizeof(link))
            self._links[name] = link
            return
        first = bytes(body.chunk())
        while len(first) < min(size, tar.BLOCK) and (more := body.chunk()):
            # A piece may be of any size, and it is by what it begins with that a layer is told.
            first += more
        if name in _CONTENTS or (first.lstrip()[:1] in (b"{", b"[") and size <= DOCUMENT_LIMIT):
            self._document(name, size, first, body)
        elif (
            size >= tar.BLOCK or first.startswith(MAGICS) or (size and name.startswith("blobs/"))
            or (not size and name.endswith(".tar"))
        ):  # fmt: skip
            # Anything else that is smaller is no layer: docker's old VERSION files. Some docker wrote empty ones so.
            self._large(name, size, first, body)

    def _document(self, name: str, size: int, first: bytes, body: _Body) -> None:
        if size > DOCUMENT_LIMIT:
            raise BadArchive(f"{name} of the archive is too large", why=f"{size} bytes")
        self._keep(name, size)
        data = bytearray(first)
        while piece := body.chunk():
            data += piece
        self.documents[name] = bytes(data)

    def _keep(self, name: str, size_bytes: int) -> None:
        """So much of this member stays in memory. Raises BadArchive where it is too much with all others."""
        self._kept_bytes += getsizeof(name) + size_bytes + _MEMBER_BYTES
        if self._kept_bytes > _KEPT_BYTES:
            why = f"its documents, names and links are more than {_KEPT_BYTES >> 20} MiB"
            raise BadArchive(f"{name[:80]} of the archive is too much", why=why)

    def _large(self, name: str, size: int, first: bytes, body: _Body) -> None:
        if len(self._held) >= _BLOBS:
            raise BadArchive(f"the archive has more than {_BLOBS} large files", hint=_OF_FILES)
        self._keep(name, 0)
        named = _digest_of(name)
        blob = self._writers.begin(named.algorithm if named else "sha256")
        early = self._early if self._early is not None and self._is_early(name, size, first) else None
        if kind := kind_of(first):
            with (early and early.follow(blob.path)) or nullcontext() as growing:
                self._copy(first, body, blob.write, *((growing.wrote,) if growing is not None else ()))
            self._writers.finish(blob)
            self._held[name] = _Held(blob, _MEDIA_TYPES.get(kind, ""))
            return
        # As it came: docker's archives before 25 hold plain tars, which no digest names, and those since name theirs.
        # Who pushes it compresses it first.
        with (early and early.feed(partial(ring_for, size))) or nullcontext() as feed:
            self._held[name] = held = self._plain(blob, first, body.readinto, feed)
            if feed is not None:
                feed.diff_id = held.diff_id

    def _plain(
        self, blob: BlobWriter, first: bytes, readinto: Callable[[memoryview], int], feed: Slots | None = None
    ) -> _Held:
        """A tar that is not compressed, of which some was read already."""
        with LayerWriter(blob, feed, PLAIN, blob.algorithm) as layer:
            layer.write(first)
            self._is_through(len(first))
            while count := layer.read(readinto):
                self._is_through(count)
            layer.finish()
        self._writers.finish(blob)
        return _Held(blob, LAYER_TAR, layer.diff_id)

    def _is_early(self, name: str, size: int, first: bytes) -> bool:
        """Whether a member is worth being unpacked already."""
        is_layer = first.startswith(MAGICS) or first[257:262] == b"ustar"
        if not is_layer or size < _EARLY_BYTES:
            return False
        named = _digest_of(name)
        return named is None or not self._blobs.exists(named)

    def _copy(self, first: bytes, body: _Body, *writes: Write) -> None:
        """All of a member, to each of these in turn."""
        piece: bytes | memoryview = first
        while piece:
            for write in writes:
                write(piece)
            self._is_through(len(piece))
            piece = body.chunk()

    def _is_through(self, size_bytes: int) -> None:
        self._through += size_bytes
        self._told(self._through)

    def _place(self, name: str) -> str:
        """Where a name leads among the members."""
        for _ in range(16):
            if name not in self._links:
                return name
            name = self._links[name]
        raise BadArchive(f"{name!r} in the archive is a link to itself")

    # --- an OCI image layout ---

    def oci_images(self, choose: Choose, wanted: Wanted | None) -> Iterator[Saved]:
        names = self._docker_names()
        found: dict[Digest, tuple[list[Image], ImageIndex | None, list[Reference]]] = {}
        entries: Sequence[Descriptor] = codec.parse_index(self.documents["index.json"]).manifests
        for entry in wanted(entries) if wanted else entries:
            images = self._oci_images(entry, choose, 0)
            if not images:
                continue
            called = _names(entry)
            index = _index_of(images, self._small(entry)) if len(images) > 1 else None
            digest = index.digest if index else images[0].digest
            said = [name for image in images for name in names.get(image.id, ())]
            known = found.setdefault(digest, (images, index, said))[2]
            known += [name for name in called if name not in known]
        if not found and wanted is None:
            raise BadArchive("the archive holds no images")
        for images, index, references in found.values():
            for image in images:
                yield Saved(image, tuple(references), index)

    def _oci_images(self, entry: Descriptor, choose: Choose, depth: int) -> list[Image]:
        """The image of a manifest; those of an index that are chosen. Each is read once, however often it is named."""
        if entry.digest not in self._read:
            if entry.media_type not in codec.INDEXES:
                image = self._oci_image(entry)
                self._read[entry.digest] = [image] if image is not None else []
            elif depth >= _DEPTH:
                raise BadArchive("the archive's indexes lead nowhere")
            else:
                self._read[entry.digest] = self._of_index(entry, choose, depth)
        return self._read[entry.digest]

    def _of_index(self, entry: Descriptor, choose: Choose, depth: int) -> list[Image]:
        named = codec.parse_index(self._small(entry)).manifests
        there = [each for each in named if self._place(blob_path(each.digest)) in self.documents]
        if not there:
            raise BadArchive(f"of the images that the index {entry.digest.short} names, none is in the archive")
        found: dict[Digest, Image] = {}
        for each in choose(there, "image"):
            found |= {image.digest: image for image in self._oci_images(each, choose, depth + 1)}
        return list(found.values())

    def _oci_image(self, entry: Descriptor) -> Image | None:
        raw = self._small(entry)
        manifest = codec.parse_manifest(raw)
        if not manifest.config.media_type.endswith((".config.v1+json", ".image.v1+json")):
            # A signature, an attestation: no image.
            return None
        image = codec.image_from(raw, self._small(manifest.config))
        for layer in manifest.layers:
            held = self._held.pop(self._place(blob_path(layer.digest)), None)
            if held is not None:
                if (digest := held.blob.digest()) != layer.digest:
                    raise BadArchive(f"layer {layer.digest.short} of the archive is damaged", why=f"it is {digest}")
                descriptor = held.blob.commit(layer.media_type)
                if descriptor.size != layer.size:
                    raise BadArchive(f"layer {layer.digest.short} has {descriptor.size} bytes, not {layer.size}")
            elif not self._blobs.has(layer):
                raise BadArchive(f"layer {layer.digest.short} is not in the archive")
        return image

    def _small(self, descriptor: Descriptor) -> bytes:
        data = self.documents.get(self._place(blob_path(descriptor.digest)))
        if data is None:
            raise BadArchive(f"{descriptor.digest} is not in the archive")
        try:
            descriptor.digest.verify(data)
        except DigestMismatch as error:
            raise BadArchive(f"{descriptor.digest} of the archive is damaged") from error
        if len(data) != descriptor.size:
            raise BadArchive(f"{descriptor.digest} of the archive is damaged", why=f"it has {len(data)} bytes")
        return data

    # --- docker's archive ---

    def _docker_entries(self) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        if "manifest.json" not in self.documents:
            return
        raw = self.documents["manifest.json"]
        if raw.lstrip()[:1] != b"[":
            raise BadDocument(
                "manifest.json is no list of images", why="it is neither docker's, nor beside an index.json",
                hint="skopeo copy dir:PATH oci:PATH:TAG makes an OCI layout",
            )  # fmt: skip
        listed = b'{"images":' + raw + b"}"
        for entry in load(listed, "manifest.json").objects("images", required=True):
            yield entry.text("Config", required=True), entry.texts("RepoTags") or (), entry.texts("Layers") or ()

    def _docker_names(self) -> dict[Digest, tuple[Reference, ...]]:
        return {
            Digest.of(self.documents[self._place(_inside(config))]): tuple(map(_name, tags))
            for config, tags, _ in self._docker_entries()
            if self._place(_inside(config)) in self.documents
        }

    def docker_images(self) -> Iterator[Saved]:
        entries = list(self._docker_entries())
        if not entries:
            raise BadArchive("this is no archive of images", why="it has neither index.json nor manifest.json",
                             hint=_OF_FILES)  # fmt: skip
        layers: dict[str, Descriptor] = {}
        for config, tags, paths in entries:
            raw_config = self.documents.get(self._place(_inside(config)))
            if raw_config is None:
                raise BadArchive(f"the config {config!r} is not in the archive")
            parsed = codec.parse_config(raw_config)
            if len(parsed.diff_ids) != len(paths):
                raise BadDocument(f"the archive names {len(paths)} layers of {len(parsed.diff_ids)}")
            for path, diff_id in zip(paths, parsed.diff_ids, strict=True):
                place = self._place(_inside(path))
                if place not in self._held:
                    raise BadArchive(f"the layer {path!r} is not in the archive")
                if not self._held[place].media_type:
                    self._held[place] = self._uncompressed(self._held[place])
                held = self._held[place]
                known = held.diff_id
                # By another algorithm it is compared when it is unpacked.
                if known is not None and known.algorithm == diff_id.algorithm and known != diff_id:
                    raise BadArchive(f"the layer {path!r} is not what its image says", why=f"it is {known}")
                if place not in layers:
                    layers[place] = held.blob.commit(held.media_type)
            manifest = Manifest(
                Descriptor(CONFIG, Digest.of(raw_config), len(raw_config)),
                tuple(layers[self._place(_inside(path))] for path in paths),
            )
            yield Saved(codec.image_from(codec.dump_manifest(manifest), raw_config), tuple(map(_name, tags)))

    def _uncompressed(self, held: _Held) -> _Held:
        """The tar in a layer that no registry would take as it came."""
        with held.blob.path.open("rb", buffering=0) as packed:
            return self._plain(self._writers.begin("sha256"), b"", uncompressed(packed).readinto)


def _index_of(images: Sequence[Image], raw: bytes) -> ImageIndex:
    """The archive's index of these images, or one of them alone where it names more."""
    index = index_from(raw)
    if {each.digest for each in index.entries} == {image.digest for image in images}:
        return index
    return index_of(map(entry_of, images), index.index.annotations)


def _digest_of(name: str) -> Digest | None:
    """What a member of an OCI layout claims to be by its name."""
    with suppress(BadDigest):
        return Digest.parse(name.removeprefix("blobs/").replace("/", ":")) if name.startswith("blobs/") else None
    return None


def _inside(path: str) -> str:
    """A path that manifest.json names, which must be one of the archive's."""
    if not path or path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise BadArchive(f"{path!r} leads out of the archive")
    return os.path.normpath(path)


def _names(entry: Descriptor) -> list[Reference]:
    """What an entry of index.json is called: containerd's whole name, or a reference name that is more than a tag."""
    text = entry.annotations.get(CONTAINERD_NAME, "")
    if not text and any(mark in entry.annotations.get(REF_NAME, "") for mark in "/:"):
        text = entry.annotations[REF_NAME]
    return [_name(text, entry.digest)] if text else []


def _name(text: str, digest: Digest | None = None) -> Reference:
    """A name that an archive gives an image of that digest. Raises BadArchive also for another digest's name."""
    try:
        reference = Reference.parse(text)
    except BadReference as error:
        raise BadArchive(f"the archive calls an image {text[:80]!r}", why=error.why) from error
    if reference.digest not in (None, digest):
        why = f"its digest is {digest}" if digest is not None else "what has a digest is not in the archive"
        raise BadArchive(f"the archive calls an image {text[:160]!r}", why=why)
    return reference
