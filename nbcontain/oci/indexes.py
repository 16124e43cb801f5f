"""Image indexes made here: one name for an image's variants, each with its platform (image-spec image-index.md). Pure.

An index is a value with the bytes that it was read from or will be stored as, like `Image`: digests are over bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbcontain.errors import BadDocument
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX, Descriptor, Image, Index, Platform
from nbcontain.values import dataclass, field, replace

ENTRY_TYPES = codec.MANIFESTS | codec.INDEXES
"""What may stand in an index that is made here."""


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index and its bytes."""

    index: Index
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> Digest:
        """What a registry knows it by."""
        return Digest.of(self.raw)

    @property
    def media_type(self) -> str:
        return self.index.media_type

    @property
    def entries(self) -> tuple[Descriptor, ...]:
        """The manifests, in the order in which the index has them, which is the order of preference."""
        return self.index.manifests

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What there is an image for, without what is said of no platform, as BuildKit's attestations are."""
        known = (entry.platform for entry in self.entries if entry.platform)
        return tuple(platform for platform in known if platform.os != "unknown")

    @property
    def descriptor(self) -> Descriptor:
        """Of the index itself, as an entry of index.json or of another index."""
        return Descriptor(self.media_type, self.digest, len(self.raw))

    def entry(self, digest: Digest) -> Descriptor:
        """The entry of that manifest. Raises BadDocument."""
        for each in self.entries:
            if each.digest == digest:
                return each
        raise BadDocument(f"the index {self.digest.short} has no manifest {digest.short}")


def index_of(
    entries: Iterable[Descriptor], annotations: Mapping[str, str] | None = None, media_type: str = INDEX
) -> ImageIndex:
    """The index of these manifests; `media_type` may be docker's manifest list, which has no annotations.

    Raises BadDocument for what cannot stand in an index.
    """
    manifests = tuple(entries)
    if wrong := [entry.media_type for entry in manifests if entry.media_type not in ENTRY_TYPES]:
        raise BadDocument(f"a {wrong[0]!r} cannot stand in an index")
    index = Index(manifests, dict(annotations or {}) if media_type == INDEX else {}, media_type)
    return ImageIndex(index, codec.dump_index(index))


def index_from(raw: bytes) -> ImageIndex:
    """The index of these foreign bytes, which are kept as they are. Raises BadDocument."""
    return ImageIndex(codec.parse_index(raw), raw)


def entry_of(
    image: Image, platform: Platform | None = None, annotations: Mapping[str, str] | None = None
) -> Descriptor:
    """The entry of an image: its manifest, for the platform of its config unless another is given."""
    platform = platform or image.config.platform
    return replace(image.descriptor, annotations=dict(annotations or {}), platform=platform)


def with_entry(index: ImageIndex, entry: Descriptor) -> ImageIndex:
    """The index with one more manifest; one of the same digest is replaced where it stands."""
    if any(each.digest == entry.digest for each in index.entries):
        return _changed(index, (entry if each.digest == entry.digest else each for each in index.entries))
    return _changed(index, (*index.entries, entry))


def without_entry(index: ImageIndex, digest: Digest) -> ImageIndex:
    """The index less one manifest. Raises BadDocument where it is not in it."""
    gone = index.entry(digest)
    return _changed(index, (each for each in index.entries if each is not gone))


def annotated(
    index: ImageIndex, digest: Digest, *, platform: Platform | None = None, annotations: Mapping[str, str] | None = None
) -> ImageIndex:
    """The index with other things said of one manifest: its platform, and further annotations. Raises BadDocument."""
    entry = index.entry(digest)
    said = {**entry.annotations, **(annotations or {})}
    return with_entry(index, replace(entry, platform=platform or entry.platform, annotations=said))


def _changed(index: ImageIndex, entries: Iterable[Descriptor]) -> ImageIndex:
    return index_of(entries, index.index.annotations, index.media_type)
