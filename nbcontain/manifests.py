"""Manifest lists: one name for an image's variants, each for its platform. `engine.manifests`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nbcontain.errors import BadReference, ImageNotFound, NoSuchPlatform, UsageError
from nbcontain.events import Emit, Notice, scope
from nbcontain.oci import indexes
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, Image, Platform
from nbcontain.oci.indexes import ENTRY_TYPES, ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.task import Task
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.store.layer_forms import Form


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an image in a list, where that is not what its config says: docker's and podman's flags."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    annotations: tuple[str, ...] = ()
    """NAME=value, each."""

    def platform(self, own: Platform) -> Platform:
        """The image's own platform with what is said instead; a variant goes with its architecture."""
        variant = self.variant or ("" if self.architecture else own.variant)
        return Platform(self.os or own.os, self.architecture or own.architecture, variant)

    def pairs(self) -> Mapping[str, str]:
        """The annotations. Raises UsageError for one that is none."""
        split = [each.partition("=") for each in self.annotations]
        if wrong := [name for name, equals, _ in split if not name or not equals]:
            raise UsageError(f"--annotation {wrong[0]}: NAME=value is needed")
        return {name: value for name, _, value in split}


NOTHING_SAID = Said()


class Manifests:
    """The manifest lists of one engine's store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, name: str) -> ImageIndex:
        """The list of that name. Raises ImageNotFound."""
        found = self._engine.store.images.index(Reference.parse(name))
        if found is None:
            known = ", ".join(each.familiar for each, _ in self._engine.store.images.indexes())
            raise ImageNotFound(
                f"no manifest list {name!r} here",
                hint=f"there are: {known}" if known else f"manifest create {name} IMAGE… makes one",
            )
        return found

    # --- making ---

    def create(
        self, name: str, images: Sequence[str] = (), *, amend: bool = False, every: bool = False,
        said: Said = NOTHING_SAID,
    ) -> Task[ImageIndex]:  # fmt: skip
        """A new list of these images. One that is there is an error, unless `amend` adds to it.

        What is not here comes from its registry; of a list all images with `every`, else the one for this machine.
        """
        reference, store = Reference.new(name), self._engine.store
        there = store.images.index(reference)
        if there is not None and not amend:
            raise UsageError(f"there is a manifest list {name} already", hint="--amend adds to it; manifest rm ends it")
        if there is None and any(each == reference for each, _ in self._engine.images()):
            raise UsageError(f"{name} is an image", hint="a list needs a name of its own")

        def body(emit: Emit) -> ImageIndex:
            begun = there or indexes.index_of((), said.pairs())
            return self._added(reference, begun, images, every, NOTHING_SAID, emit)

        return Task(f"manifest create {name}", body)

    def add(
        self, name: str, images: Sequence[str], *, every: bool = False, said: Said = NOTHING_SAID
    ) -> Task[ImageIndex]:
        """Add images to a list; one that is in it already is replaced where it stands. Raises ImageNotFound."""
        reference = Reference.parse(name)
        begun = self.get(name)
        said.pairs()
        return Task(f"manifest add {name}", lambda emit: self._added(reference, begun, images, every, said, emit))

    def _added(
        self, reference: Reference, index: ImageIndex, images: Sequence[str], every: bool, said: Said, emit: Emit
    ) -> ImageIndex:  # fmt: skip
        store = self._engine.store
        with scope(emit, "manifest", f"manifest list {reference.familiar}"), store.shared():
            entries = [entry for each in images for entry in self._entries(each, every, emit)]
            # Others may have added to it while these came.
            index = store.images.index(reference) or index
            for entry in entries:
                platform = said.platform(entry.platform or Platform.here())
                notes = {**entry.annotations, **said.pairs()}
                index = indexes.with_entry(index, replace(entry, platform=platform, annotations=notes))
            store.images.put_index(index, reference)
        return index

    def _entries(self, name: str, every: bool, emit: Emit) -> list[Descriptor]:
        """What `name` adds to a list; the images are in the store then."""
        images = self._engine.store.images
        try:
            reference: Reference | None = Reference.parse(name)
        except BadReference:
            reference = None
        if reference is not None and (found := images.index(reference)):
            if every:
                if missing := [entry.digest.short for entry in found.entries if images.child(entry) is None]:
                    raise ImageNotFound(f"the list {name} is not whole here", why=f"{', '.join(missing)} is missing")
                return list(found.entries)
            return [indexes.entry_of(images.get(reference))]
        try:
            return [indexes.entry_of(self._engine.image(name))]
        except ImageNotFound:
            if reference is None:
                raise
        return self._fetched(reference, every, emit)

    def _fetched(self, reference: Reference, every: bool, emit: Emit) -> list[Descriptor]:
        registry = self._engine.registry

        def fetch(each: Reference, platform: Platform) -> Image:
            return registry.fetch(each, platform, emit, "manifest", kept="nowhere")

        if not every:
            return [indexes.entry_of(fetch(reference, Platform.here()))]
        named, raw = registry.described(str(reference))
        if named.media_type not in ENTRY_TYPES or b'"manifests"' not in raw:
            return [indexes.entry_of(fetch(reference, Platform.here()))]
        return [
            indexes.entry_of(
                fetch(replace(reference, tag=None, digest=entry.digest), entry.platform or Platform.here()),
                entry.platform, entry.annotations,
            )
            for entry in indexes.index_from(raw).entries
            if entry.platform is None or entry.platform.os != "unknown"
        ]  # fmt: skip

    # --- changing ---

    def convert(self, name: str, form: Form, target: str = "", *, again: bool = False) -> Task[ImageIndex]:
        """Have the layers of all images of a list compressed in another form: the list itself, under all its names, or
        a copy under `target`. Platforms, annotations and the order stay, and so do the image IDs.

        What is said of an image beside it, as its provenance, is of the manifest that it had, and left out. Raises
        ImageNotFound for a list that is not here as a whole.
        """
        from nbcontain.oci.attestations import is_attestation
        from nbcontain.store.conversion import converted, layer_step

        engine = self._engine
        images = engine.store.images
        index = self.get(name)
        names = [Reference.new(target)] if target else [each for each, there in images.indexes() if there == index]
        entries = [each for each in index.entries if not is_attestation(each)]
        whole = [(each, image) for each in entries if (image := images.child(each)) is not None]
        if missing := [each.digest.short for each in entries if each not in [entry for entry, _ in whole]]:
            raise ImageNotFound(f"the list {name} is not whole here", why=f"{', '.join(missing)} is missing")

        def body(emit: Emit) -> ImageIndex:
            with scope(emit, "build", f"convert {name}"), engine.store.shared():
                step = partial(layer_step, emit, "build")
                made = [(entry, converted(each, form, engine.store.blobs, step, again=again)) for entry, each in whole]
                changed = index
                if any(image is not each for (_, image), (_, each) in zip(made, whole, strict=True)):
                    if len(entries) < len(index.entries):
                        emit(Notice("build", "what was said of the images as they were (provenance, SBOM) is left out"))
                    # docker's own kind of list has no place for OCI's manifests.
                    changed = indexes.index_of((
                        replace(images.keep(image), platform=entry.platform, annotations=entry.annotations)
                        for entry, image in made
                    ), index.index.annotations)  # fmt: skip
                for each in names:
                    images.put_index(changed, each)
            engine.events.record("image", "convert", str(changed.digest), {"name": str(names[0])})
            engine.housekeeping.collect(wait=False)
            return changed

        return Task(f"convert {name}", body)

    def annotate(self, name: str, image: str, said: Said) -> ImageIndex:
        """Say something else of one image of a list, by its digest or name. Raises ImageNotFound, UsageError."""
        with self._engine.store.shared():
            index = self.get(name)
            entry = self._entry(index, name, image)
            platform = said.platform(entry.platform or Platform.here())
            changed = indexes.annotated(index, entry.digest, platform=platform, annotations=said.pairs())
            self._engine.store.images.put_index(changed, Reference.parse(name))
        return changed

    def take_out(self, name: str, image: str) -> ImageIndex:
        """Take one image out of a list, by its digest or name."""
        with self._engine.store.shared():
            index = self.get(name)
            changed = indexes.without_entry(index, self._entry(index, name, image).digest)
            self._engine.store.images.put_index(changed, Reference.parse(name))
        return changed

    def _entry(self, index: ImageIndex, name: str, image: str) -> Descriptor:
        text = image.rpartition("@")[2].removeprefix("sha256:")
        found = [each for each in index.entries if len(text) >= 6 and each.digest.hex.startswith(text)]
        if not found:
            try:
                digest: Digest | None = self._engine.image(image).digest
            except (ImageNotFound, NoSuchPlatform, BadReference):
                digest = None
            found = [each for each in index.entries if each.digest == digest]
        if len(found) != 1:
            known = ", ".join(f"{each.digest.short} ({each.platform})" for each in index.entries)
            raise ImageNotFound(f"the list {name} has no image {image!r}", hint=f"it has: {known or 'none'}")
        return found[0]

    def document(self, name: str) -> tuple[Descriptor, bytes]:
        """A list of ours, or what the registry has under that name, as it is. Raises RegistryError."""
        if found := self._engine.store.images.index(Reference.parse(name)):
            return found.descriptor, found.raw
        return self._engine.registry.described(name)
