"""All images and manifest lists, in Python's hands: `nb.images["app"]`, `nb.images.pull("debian")`, `nb.manifests`.

Verbs and their arguments have docker-py's names where it has them; what comes back are this project's own values.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast, overload

from nbcontain import api
from nbcontain.display.table import Table
from nbcontain.errors import UsageError
from nbcontain.filters import named as is_named
from nbcontain.filters import texts_of
from nbcontain.images import Image, named
from nbcontain.listing import Asked, Listing, as_table
from nbcontain.oci import platforms
from nbcontain.oci.reference import Reference
from nbcontain.truth import truth

if TYPE_CHECKING:
    import builtins

    from nbcontain.build.importer import Source
    from nbcontain.housekeeping import Pruned
    from nbcontain.manifests import Said
    from nbcontain.oci.digest import Digest
    from nbcontain.oci.indexes import ImageIndex

Sent = tuple[tuple[Reference, "Digest"], ...]
"""What a push sent: names, and the digests that the registry knows them by."""
Data = bytes | str | os.PathLike[str] | IO[bytes] | Iterable[bytes]
"""An archive: its bytes, its path, an open file, or pieces as `image.save()` gives them."""


class Images(Listing[Image]):
    """All images, newest first; one with two names is there once."""

    _elsewhere = {
        "ls": "list()", "rm": "remove(name)", "rmi": "remove(name)", "inspect": "get(name).to_dict()",
        "cat": "get(name)[path].text", "layers": "get(name).layers",
        **{verb: f"get(name).{verb}()" for verb in ("diff", "history", "tag", "tree", "verify")},
    }  # fmt: skip
    build = staticmethod(api.build)

    def _all(self) -> list[Image]:
        return self.list()

    def list(self, name: str | None = None, all: bool = False, filters: Asked = None) -> list[Image]:
        """Those of a repository or name, which may be a pattern, that `filters` let pass: {"dangling": True}.

        `all` is docker-py's: there are no others here.
        """
        engine = self._engine()
        found = {
            image.digest: image
            for reference, image in engine.images(texts_of(filters or ()))
            if not name or (reference is not None and is_named(reference, name))
        }
        return [Image.held(image, engine) for image in found.values()]

    def get(self, name: str) -> Image:
        engine = self._engine()
        return Image.held(engine.image(name), engine)

    # --- registries ---

    @overload
    def pull(self, repository: str, tag: str | None = None, all_tags: Literal[False] = False, *,
             platform: str = "") -> Image: ...  # fmt: skip
    @overload
    def pull(self, repository: str, tag: str | None = None, *, all_tags: Literal[True],
             platform: str = "") -> builtins.list[Image]: ...  # fmt: skip
    def pull(
        self, repository: str, tag: str | None = None, all_tags: bool = False, *, platform: str = ""
    ) -> Image | builtins.list[Image]:
        """Fetch an image from its registry, or with `all_tags` all of a repository. Raises RegistryError."""
        engine = self._engine()
        task = engine.registry.pull(named(repository, tag), platform=platform, all_tags=all_tags)
        found = [Image.held(each, engine) for each in api.shown(task, "pull")]
        return found if all_tags else found[0]

    def push(
        self, repository: str, tag: str | None = None, *, to: str = "", all_tags: bool = False,
        preserve_digests: bool = False,
    ) -> Sent:  # fmt: skip
        """Send an image or a manifest list to its registry, under its name or under `to`. Raises RegistryError.

        With `all_tags` it is all that is here of a repository. Layers that are plain tars are compressed before, here
        as well, unless `preserve_digests` says not to. Gives names and digests.
        """
        if all_tags and (to or tag):
            raise UsageError("push: all tags of a repository, or one image")
        task = self._engine().registry.push(
            named(repository, tag), to=to, all_tags=all_tags, preserve_digests=preserve_digests
        )
        return api.shown(task, "push")

    def search_tags(self, name: str, limit: int = 0, last: str = "") -> builtins.list[str]:
        """The tags of a repository in its registry: all, or so many; those after `last`. Raises RegistryError."""
        return self._engine().registry.tags(name, limit, last)

    # --- archives ---

    def load(self, data: Data, *, platform: str | Sequence[str] = ()) -> builtins.list[Image]:
        """Read the images of an archive of docker's or podman's, or of an OCI layout, which may be a directory.

        `data` is its bytes, its path, an open file or pieces of it. Of an index the images for `platform`, or all.
        Raises BadArchive, StoreError.
        """
        engine = self._engine()
        wanted = [platform] if isinstance(platform, str) else platform
        task = engine.archives.load(_source(data), [platforms.parse(each) for each in wanted])
        found = {saved.image.digest: saved.image for saved in api.shown(task, "work")}
        return [Image.held(each, engine) for each in found.values()]

    def save(self, names: str | Sequence[str], path: str | os.PathLike[str]) -> Path:
        """Write several images to one archive; a repository without a tag stands for all its tags."""
        target = Path(path).absolute()
        wanted = [names] if isinstance(names, str) else names
        api.shown(self._engine().archives.save(wanted, str(target)), "work")
        return target

    def import_image(
        self, src: Data, repository: str = "", tag: str | None = None, *, changes: str | Sequence[str] = (),
        message: str = "", platform: str = "",
    ) -> Image:  # fmt: skip
        """An image of one layer out of a root file system: a tar, or a directory.

        `changes` are a Dockerfile's instructions for its config. Raises BadArchive, StoreError.
        """
        engine = self._engine()
        lines = changes.splitlines() if isinstance(changes, str) else changes
        task = engine.archives.import_image(
            _source(src), named(repository, tag) if repository else "", changes=lines, message=message,
            platform=platforms.parse(platform) if platform else None,
        )  # fmt: skip
        return Image.held(api.shown(task, "import"), engine)

    # --- taking away ---

    def remove(self, image: str | Image, force: bool = False) -> builtins.list[str]:
        """Take a name away, and the image with its last name; of an Image all its names. Says what went. Raises InUse.

        Forced, containers that were made of it keep their layers.
        """
        if isinstance(image, Image):
            return image.remove(force=force)
        return self._engine().remove_image(image, force=force)

    def prune(self, filters: Asked = None, *, all: bool = False) -> Pruned:
        """Remove images without a name, or `all` that no container is made of; without asking.

        docker-py's {"dangling": False} is the same as `all`.
        """
        asked = texts_of(filters or ())
        for each in [each for each in asked if each.partition("=")[0] == "dangling"]:
            asked.remove(each)
            all = all or truth(each.partition("=")[2]) is False
        task = self._engine().housekeeping.prune(containers=False, all_images=all, filters=asked)
        return api.shown(task, "work")

    # --- how they are listed ---

    def _names(self, each: Image) -> builtins.list[str]:
        return [name.removesuffix(":latest") for name in each.tags]

    @property
    def table(self) -> Table:
        from nbcontain.commands.images import ImageListWords, image_ls

        return as_table(image_ls(self._engine(), ImageListWords()))


class Manifests(Listing["ImageIndex"]):
    """All manifest lists, by name: one name for an image's variants, each for its platform."""

    _elsewhere = {"ls": "list()", "rm": "remove(name)"}

    def _all(self) -> list[ImageIndex]:
        return self.list()

    def list(self) -> list[ImageIndex]:
        """All of them."""
        return [index for _, index in self._engine().store.images.indexes()]

    def keys(self) -> builtins.list[str]:
        return [name.familiar for name, _ in self._engine().store.images.indexes()]

    _ipython_key_completions_ = keys

    def get(self, name: str) -> ImageIndex:
        """The list of that name. Raises ImageNotFound."""
        return self._engine().manifests.get(name)

    def create(
        self, name: str, images: str | Sequence[str] = (), *, amend: bool = False, all: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> ImageIndex:  # fmt: skip
        """A new list of these images, or with `amend` a longer one; what is not here comes from its registry.

        Of what is a list itself, all images with `all`, else the one for this machine.
        """
        wanted = [images] if isinstance(images, str) else images
        said = _said("", "", "", annotations)
        return api.shown(self._engine().manifests.create(name, wanted, amend=amend, every=all, said=said), "work")

    def add(
        self, name: str, images: str | Sequence[str], *, all: bool = False, os: str = "", arch: str = "",
        variant: str = "", annotations: Mapping[str, str] | None = None,
    ) -> ImageIndex:  # fmt: skip
        """Add images to a list, and say of them what their configs do not. Raises ImageNotFound."""
        wanted = [images] if isinstance(images, str) else images
        said = _said(os, arch, variant, annotations)
        return api.shown(self._engine().manifests.add(name, wanted, every=all, said=said), "work")

    def annotate(
        self, name: str, image: str, *, os: str = "", arch: str = "", variant: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> ImageIndex:  # fmt: skip
        """Say something else of one image of a list, by its digest or name. Raises ImageNotFound."""
        return self._engine().manifests.annotate(name, image, _said(os, arch, variant, annotations))

    def convert(
        self, name: str, compression: str = "zstd", target: str = "", *, level: int | None = None
    ) -> ImageIndex:
        """All images of a list with their layers compressed otherwise, as `image.convert`. Raises ImageNotFound."""
        from nbcontain.store.layer_forms import form_of

        form = form_of(compression, level)
        return api.shown(self._engine().manifests.convert(name, form, target, again=level is not None), "convert")

    def take_out(self, name: str, image: str) -> ImageIndex:
        """Take one image out of a list, by its digest or name. Raises ImageNotFound."""
        return self._engine().manifests.take_out(name, image)

    def inspect(self, name: str) -> dict[str, Any]:
        """The JSON of a list of here, or what its registry has under that name. Raises RegistryError."""
        import json

        return cast("dict[str, Any]", json.loads(self._engine().manifests.document(name)[1]))

    def push(self, name: str, destination: str = "") -> Sent:
        """Send a list and all its images to a registry, under its name or another. Raises RegistryError."""
        self.get(name)
        return api.shown(self._engine().registry.push(name, to=destination), "push")

    def remove(self, name: str) -> builtins.list[str]:
        """Remove a list; images that have names stay. Raises ImageNotFound."""
        self.get(name)
        return self._engine().remove_image(name)

    def __repr__(self) -> str:
        return f"<Manifests {len(self)}{': ' * bool(len(self))}{', '.join(self.keys())}>"

    @property
    def table(self) -> Table:
        from nbcontain.commands.manifests import manifest_ls
        from nbcontain.commands.table import ListWords

        return as_table(manifest_ls(self._engine(), ListWords()))


def _said(os: str, arch: str, variant: str, annotations: Mapping[str, str] | None) -> Said:
    from nbcontain.manifests import Said

    return Said(os, arch, variant, tuple(f"{name}={text}" for name, text in (annotations or {}).items()))


class _Pieces(io.RawIOBase):
    """Pieces of bytes, to be read as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _source(data: Data) -> Source:
    """What an archive is read from. Raises UsageError for what is none."""
    match data:
        case bytes() | bytearray() | memoryview():
            return io.BytesIO(data)
        case str() | os.PathLike():
            return str(Path(data).absolute())
        case _ if hasattr(data, "readinto"):
            return cast("Source", data)
        case _ if hasattr(data, "read"):
            read = data.read
            return _Pieces(iter(lambda: read(1 << 20), b""))
        case Iterable():
            return _Pieces(data)
    raise UsageError(f"a {type(data).__name__} is no archive", hint="bytes, a path, an open file, or image.save()")


images = Images(api.engine)
manifests = Manifests(api.engine)
