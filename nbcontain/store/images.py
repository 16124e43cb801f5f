"""Images by name: index.json of the OCI layout (image-spec image-layout.md#indexjson-file).

A name is an annotation on an entry; an entry without one is a *dangling* image. Dangling are: an image
that was stored without a name, and one that lost its last name while a container still stands on it,
so that the container's image can be inspected. Everything else that loses its last name leaves the
index at once, and the disk with the next gc.

A name may stand for an index too (image-index.md), which some call a manifest list: its entry is kept like an
image's. Then each of its images that is here is listed under the name, and asking for the name gives the one for
this machine, or for the platform that is asked for. The images have entries of their own only if they have names
of their own; they stay on the disk as long as an index names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

from nbcontain.errors import BadReference, ImageNotFound, NoSuchPlatform, StoreError
from nbcontain.oci import codec, platforms
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.oci.image import REF_NAME, Descriptor, Image, Index, Platform
from nbcontain.oci.indexes import ImageIndex, index_from
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import DOCUMENT_LIMIT
from nbcontain.store import files, spare
from nbcontain.store.blobs import Blobs
from nbcontain.store.layout import INDEX_LIMIT, Layout
from nbcontain.store.listed import WITHIN, Listed, Named, name_of, near, standing, without_names
from nbcontain.store.write_back import WriteBack
from nbcontain.values import replace

_BESIDE = "org.nbcontain.for"
"""Annotation of an image without a name: which name it is another platform's image of."""
_PREFIX = re.compile(r"(?:sha256:|sha512:)?[0-9a-f]{2,128}")
_Entries = list[Descriptor]
_Indexes = list[tuple[Reference, ImageIndex]]
_Names = list[Reference]
_NamedEntries = list[Named]


class Images:
    """The images of one store, safe among threads and processes. What was read once stays in memory."""

    def __init__(
        self, layout: Layout, blobs: Blobs, write_back: WriteBack, is_in_use: Callable[[ChainID | None], bool]
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._write_back = write_back
        self._is_in_use = is_in_use
        self._read: dict[Digest, Image] = {}
        self._read_indexes: dict[Digest, ImageIndex] = {}
        self._state = Listed(b"")

    def list(self) -> list[tuple[Reference | None, Image]]:
        """Every name with its image, and the dangling ones with None; in the order in which they were stored."""
        return [(name, self._image(entry)) for name, entry in self._listed()]

    def get(self, reference: Reference, platform: Platform | None = None) -> Image:
        """The image of that name, or of that digest. Raises ImageNotFound, with names that are close.

        With a platform it must be for that. Without one it is what the name stands for, whatever that is for; of an
        index it is the image for this machine. Raises NoSuchPlatform where the index has none.
        """
        entries = self._standing(reference)
        if platform is not None:
            beside = [each for each in self._raw_entries() if each.annotations.get(_BESIDE) == str(reference)]
            try:
                return self._choose([*self._spread(entries), *reversed(beside)], platform, reference)
            except NoSuchPlatform as error:
                raise ImageNotFound(f"no image {reference.familiar!r} for {platform} here", hint=error.why) from None
        plain = [entry for entry in entries if entry.media_type in codec.MANIFESTS]
        return self._image(plain[0]) if plain else self._choose(self._spread(entries), Platform.here(), reference)

    def _choose(self, entries: _Entries, wanted: Platform, reference: Reference) -> Image:
        """The best of these: what an index says of an image counts for more than what that says of itself."""
        known = [replace(each, platform=each.platform or self._image(each).config.platform) for each in entries]
        return self._image(platforms.choose(known, wanted, reference.familiar))

    def index(self, reference: Reference) -> ImageIndex | None:
        """The index that the name stands for; None where it is one image, or nothing. Raises StoreError."""
        found = [entry for entry in self._raw_standing(reference) if entry.media_type in codec.INDEXES]
        return self._index(found[0]) if found else None

    def find_index(self, text: str) -> ImageIndex | None:
        """The index that a text names; None where it names one image, or nothing."""
        try:
            return self.index(Reference.parse(text))
        except BadReference:
            return None

    def indexes(self) -> _Indexes:
        """Every index with its name, but for those that are damaged, which `check` tells of."""
        found: _Indexes = []
        for entry in self._raw_entries():
            name = name_of(entry)
            if entry.media_type in codec.INDEXES and name is not None:
                with suppress(StoreError):
                    found.append((name, self._index(entry)))
        return found

    def names(self, digest: Digest) -> _Names:
        """Every name of the image with this manifest."""
        return [name for name, entry in self._listed() if name is not None and entry.digest.hex == digest.hex]

    def registry_digest(self, name: Reference | None, image: Image) -> Digest:
        """By what digest a registry has what the image of this name came from: an index's, if it was in one."""
        for _, entry in self._now().by_name(name) if name is not None else ():
            if entry.media_type in codec.INDEXES:
                return entry.digest
            if entry.digest == image.digest and (within := entry.annotations.get(WITHIN)):
                return Digest.parse(within)
        return name.digest if name is not None and name.digest is not None else image.digest

    def is_named(self, digest: Digest, reference: Reference) -> bool:
        """Whether the image with this manifest has this name, or is one of the index that has it."""
        entries = self._spread(entry for _, entry in self._now().by_name(reference))
        return any(entry.digest.hex == digest.hex for entry in entries)

    def child(self, entry: Descriptor) -> Image | None:
        """The image that one entry of an index names; None where it is not here as a whole, or no image."""
        if entry.media_type not in codec.MANIFESTS:
            return None
        try:
            return self._image(entry)
        except StoreError:
            return None

    def children(self, index: ImageIndex) -> tuple[Image, ...]:
        """The images of an index that are here."""
        return tuple(image for entry in index.entries if (image := self.child(entry)) is not None)

    def find(self, text: str) -> Image:
        """An image by name, digest, id, or the beginning of an id, in this order. Raises ImageNotFound."""
        try:
            return self.get(Reference.parse(text))
        except (ImageNotFound, BadReference):
            pass
        if not _PREFIX.fullmatch(text):
            raise self._not_found(text)
        found = {image.id: image for _, image in self.list() if _has_prefix(image, text)}
        if len(found) > 1:
            ids = ", ".join(sorted(digest.short for digest in found))
            raise ImageNotFound(f"{text!r} could be several images", why=ids, hint="Write more of the id.")
        for image in found.values():
            return image
        raise self._not_found(text)

    def put(self, image: Image, reference: Reference | None = None) -> None:
        """Store an image whose layers are stored, under a name if there is one; idempotent."""
        self._check_layers(image)
        references = [reference] if reference is not None else []
        if not self.is_known(image, references):
            self.prepare(image)
            self.enter([(image, references)])

    def enter(
        self, prepared: Collection[tuple[Image, Collection[Reference]]], within: Digest | None = None,
        instead_of: Digest | None = None,
    ) -> None:  # fmt: skip
        """List images under their names, or without, all at once. They were prepared, and their layers are stored.

        `within` is the digest of the index at a registry that they were chosen out of. What comes `instead_of` another
        of its ID gets those names that are still that one's, or its place if it has no name. Raises BadReference.
        """
        for image, _ in prepared:
            self._check_layers(image)

        def entered(entries: _Entries) -> _Entries:
            for image, references in prepared:
                if instead_of is not None:
                    standing = {name_of(each) for each in entries if each.digest == instead_of}
                    references = [each for each in references if each in standing]
                if instead_of is None or references or None in standing:
                    entries = self._entered(entries, image, references, within)
            return [each for each in entries if each.digest != instead_of or each.annotations]

        self._change(entered)

    def put_beside(self, image: Image, reference: Reference) -> None:
        """Store another platform's image of a name, which stays what it is; for `get` with a platform."""
        manifest = replace(self.keep(image), annotations={_BESIDE: str(reference)})

        def entered(entries: _Entries) -> _Entries:
            is_itself = any(each.digest == manifest.digest and name_of(each) == reference for each in entries)
            return entries if is_itself or manifest in entries else [*entries, manifest]

        self._change(entered)

    def put_index(self, index: ImageIndex, reference: Reference) -> None:
        """Store an index under a name, which whatever had it loses; idempotent. Its images were stored, or `keep`t."""
        written = self._blobs.put([index.raw], index.media_type)
        self._read_indexes[index.digest] = index
        self._change(lambda entries: self._named(entries, written, reference))

    def keep(self, image: Image) -> Descriptor:
        """Store an image's own documents and list it nowhere: for what an index is about to name.

        The store's lock must be held until that names it.
        """
        self._check_layers(image)
        return self.prepare(image)

    def prepare(self, image: Image) -> Descriptor:
        """The same of an image whose layers are on their way, for `enter`."""
        config = image.manifest.config
        _, manifest = self._blobs.put_together(
            [(image.raw_config, config.media_type, config), (image.raw_manifest, image.manifest.media_type, None)]
        )
        self._read[image.digest] = image
        return manifest

    def _check_layers(self, image: Image) -> None:
        for layer in image.manifest.layers:
            if not self._blobs.has(layer):
                raise StoreError(f"the image's layer {layer.digest.short} is not in the store")

    def is_known(self, image: Image, references: Collection[Reference], within: Digest | None = None) -> bool:
        """Whether the index says all that already; then what it speaks of holds as long as it does."""
        if not self._blobs.has(image.descriptor) or not self._blobs.has(image.manifest.config):
            return False
        entries = self._now().entries
        return self._entered(entries, image, references, within) == entries

    def tag(self, image: Image, reference: Reference) -> None:
        """Give a stored image one more name; whatever had it before loses it."""
        self.put(image, reference)

    def remove(self, reference: Reference) -> bool:
        """Take a name away, an image's or an index's; False if of its images one stays, under another name or because
        a container needs it.

        Raises ImageNotFound.
        """
        meant = self._standing(reference)
        digests = {entry.digest for entry in self._spread(meant)}
        name = reference if reference.digest is None else None

        def without(entries: _Entries) -> _Entries:
            dropped = [e for e in entries if (name_of(e) == name if name else e.digest == meant[0].digest)]
            return self._without(entries, dropped)

        return all(entry.digest not in digests for entry in self._spread(self._change(without, removes=True)))

    def forget(self, image: Image) -> None:
        """Take an image out of the index, with all its names; idempotent."""
        self._change(lambda entries: [entry for entry in entries if entry.digest != image.digest], removes=True)

    def drop_dangling(self) -> int:
        """Take out the images that have no name and no container, and say how many; for gc."""
        dropped: _Entries = []

        def without(entries: _Entries) -> _Entries:
            loose = [e for e in entries if name_of(e) is None and e.media_type in codec.MANIFESTS]
            dropped[:] = [entry for entry in loose if not self._is_needed(entry)]
            return [entry for entry in entries if entry not in dropped]

        self._change(without, removes=True)
        return len(dropped)

    def drop(self, digests: Collection[Digest]) -> None:
        """Take every entry of these manifests away, whoever needs them; for repair, which knows them damaged."""
        for digest in digests:
            self._read.pop(digest, None)

        def without(entries: _Entries) -> _Entries:
            kept = [entry for entry in entries if entry.digest not in digests]
            listed = {*digests, *(entry.digest for entry in self._spread(kept))}
            # Of an index what is whole stays.
            left = {each.digest: each for each in self._spread(e for e in entries if e.digest in digests)}
            return kept + [_nameless(each) for each in left.values() if each.digest not in listed]

        self._change(without, removes=True)

    def untwin(self) -> None:
        """Where two images have one name, leave it to the later one; for repair."""

        def one_each(entries: _Entries) -> _Entries:
            last = {entry.annotations.get(REF_NAME): number for number, entry in enumerate(entries)}
            found: _Entries = []
            for number, entry in enumerate(entries):
                if REF_NAME not in entry.annotations or last[entry.annotations[REF_NAME]] == number:
                    found.append(entry)
                else:
                    # Of an index its images are left, as it is of no use without a name.
                    found += [_nameless(each) for each in self._spread([entry])]
            return found

        self._change(one_each, removes=True)

    def rebuild(self, entries: Iterable[Descriptor]) -> None:
        """Write index.json anew, for repair; it must be locked against everybody by the store's lock."""
        with files.lock(self._layout.index_lock, exclusive=True):
            files.replace(self._layout.index, codec.dump_index(Index(tuple(entries))), 0o644)

    # --- the index ---

    def _standing(self, reference: Reference) -> _Entries:
        """The entries that the name stands for, or the image of that digest in an index. Raises ImageNotFound."""
        if found := self._raw_standing(reference):
            return found
        if reference.digest is not None and (found := standing(reference, self._entries())):
            return found
        raise self._not_found(reference.familiar)

    def _raw_standing(self, reference: Reference) -> _Entries:
        if reference.digest is not None:
            return standing(reference, self._raw_entries())
        return standing(reference, [entry for _, entry in self._now().by_name(reference)])

    def _entries(self) -> _Entries:
        return [entry for _, entry in self._listed()]

    def _raw_entries(self) -> _Entries:
        return self._now().entries

    def _listed(self) -> _NamedEntries:
        """Every image with its name."""
        return list(self._spread_named(self._now().named))

    def _now(self) -> Listed:
        """What index.json says. It is read each time, and parsed if it is not what it was."""
        try:
            data = files.read(self._layout.index, INDEX_LIMIT)
        except FileNotFoundError as error:
            raise StoreError(
                "the store's list of images is gone", why=f"there is no {self._layout.index}",
                hint="%nbcontain system check --repair makes it anew",
            ) from error  # fmt: skip
        state = self._state
        if state.data != data:
            self._state = state = Listed(data)
        return state

    def _spread(self, entries: Iterable[Descriptor]) -> _Entries:
        """The images of these entries: in place of an index, each of its images that is here, under its name."""
        return [entry for _, entry in self._spread_named((name_of(entry), entry) for entry in entries)]

    def _spread_named(self, entries: Iterable[Named]) -> Iterator[Named]:
        for name, entry in entries:
            if entry.media_type in codec.MANIFESTS:
                yield name, entry
            elif entry.media_type in codec.INDEXES and name is not None:
                for each in self._present(entry):
                    yield name, replace(each, annotations=entry.annotations)

    def _present(self, entry: Descriptor) -> _Entries:
        """The images of an index that are here; of what is damaged, `check` tells."""
        try:
            within = self._index(entry).entries
        except StoreError:
            return []
        return [each for each in within if self.child(each) is not None]

    def _index(self, entry: Descriptor) -> ImageIndex:
        index = self._read_indexes.get(entry.digest)
        if index is None:
            index = self._read_indexes[entry.digest] = index_from(self._blobs.read(entry.digest, DOCUMENT_LIMIT))
        return index

    def _change(self, change: Callable[[_Entries], _Entries], *, removes: bool = False) -> _Entries:
        """Rewrite index.json under its lock, unless nothing changes. Gives the entries; what it `removes` is gone."""
        with files.lock(self._layout.index_lock, exclusive=True), spare.given_up(self._layout, when=removes):
            before = self._now().entries
            after = change(list(before))
            if after != before:
                data = codec.dump_index(Index(tuple(after)))
                is_later = not removes and self._write_back.has_begun
                files.replace(self._layout.index, data, 0o644, durable=not is_later)
                self._state = Listed(data, list(after))
                if is_later:
                    self._write_back.published()
                elif removes:
                    self._write_back.lose(lambda old: without_names(old, before, after))
            return after

    def _entered(
        self, entries: _Entries, image: Image, references: Collection[Reference], within: Digest | None
    ) -> _Entries:
        for reference in references or (None,):
            entries = self._named(entries, image.descriptor, reference, within)
        return entries

    def _named(
        self, entries: _Entries, manifest: Descriptor, reference: Reference | None, within: Digest | None = None
    ) -> _Entries:
        same = [entry for entry in entries if entry.digest == manifest.digest]
        if reference is None:
            return entries if same else [*entries, manifest]
        if Reference.parse(str(reference)) != reference:
            # Made of parts that nobody looked at.
            raise BadReference(f"{str(reference)!r} is no image name", why="it reads as another")
        known = [entry for entry in same if name_of(entry) == reference]
        if known and (within is None or known[0].annotations.get(WITHIN) == str(within)):
            return entries
        losing = [entry for entry in entries if name_of(entry) == reference and entry not in known]
        replaced = [*known, *(entry for entry in same if name_of(entry) is None)]
        kept = self._without([entry for entry in entries if entry not in replaced], losing)
        said = {REF_NAME: str(reference)} | ({WITHIN: str(within)} if within is not None else {})
        return [*kept, replace(manifest, annotations=said)]

    def _without(self, entries: _Entries, dropped: _Entries) -> _Entries:
        """The entries without these; one that a container stands on and that has no other name stays dangling."""
        kept = [entry for entry in entries if entry not in dropped]
        listed = {entry.digest for entry in self._spread(kept)}
        for entry in self._spread(dropped):
            if entry.digest not in listed and self._is_needed(entry):
                listed.add(entry.digest)
                kept.append(_nameless(entry))
        return kept

    def _image(self, entry: Descriptor) -> Image:
        """Read and verified once; a manifest's bytes cannot change."""
        image = self._read.get(entry.digest)
        if image is None:
            try:
                raw_manifest = self._blobs.read(entry.digest, DOCUMENT_LIMIT)
                config = codec.parse_manifest(raw_manifest).config
                image = codec.image_from(raw_manifest, self._blobs.read(config.digest, DOCUMENT_LIMIT))
            except StoreError as error:
                name = name_of(entry)
                raise StoreError(
                    f"the image {name.familiar if name else entry.digest.short} is damaged",
                    why=error.message,
                    hint="Remove it, and build or import it again.",
                ) from error
            self._read[entry.digest] = image
        return image

    def _is_needed(self, entry: Descriptor) -> bool:
        """Whether a container stands on that image; nothing can stand on a damaged one."""
        try:
            return self._is_in_use(self._image(entry).chain_id)
        except StoreError:
            return False

    def _not_found(self, text: str) -> ImageNotFound:
        names = sorted({name.familiar for entry in self._raw_entries() if (name := name_of(entry)) is not None})
        return ImageNotFound(f"no image {text!r} here", hint=near(text, names))


def _nameless(entry: Descriptor) -> Descriptor:
    """An image's entry of its own, without what an index says of it."""
    return replace(entry, annotations={}, platform=None)


def _has_prefix(image: Image, prefix: str) -> bool:
    return any((str(each) if ":" in prefix else each.hex).startswith(prefix) for each in (image.id, image.digest))
