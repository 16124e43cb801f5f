"""An image in Python's hands: the value, and the engine that has its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nbcontain.errors import StoreError, UsageError
from nbcontain.oci import image as oci
from nbcontain.oci.reference import Reference
from nbcontain.outcomes import waited
from nbcontain.places import Place, refuse_to_write
from nbcontain.values import dataclass, field, fields

if TYPE_CHECKING:
    from nbcontain.anatomy import Difference, Examined, LayerPart, TreeAt
    from nbcontain.anatomy import Layers as Anatomy
    from nbcontain.engine import Engine

PIECE_BYTES = 2 << 20
"""How much of an archive is handed out at a time: docker-py's."""


@dataclass(frozen=True, slots=True)
class Image(oci.Image):
    """An image of an engine. `image["/etc/os-release"].text`, `image.layers[0].files`, `image.tags`."""

    engine: Engine = field(repr=False, compare=False)

    @classmethod
    def held(cls, image: oci.Image, engine: Engine) -> Image:
        """The image, with the engine that has it."""
        if isinstance(image, Image):
            return image
        return cls(**{each.name: getattr(image, each.name) for each in fields(image)}, engine=engine)

    def __eq__(self, other: object) -> bool:
        # It is the same image as one that nobody holds.
        return isinstance(other, oci.Image) and self.raw_manifest == other.raw_manifest

    def __hash__(self) -> int:
        return hash(self.raw_manifest)

    def __repr__(self) -> str:
        return f"<Image {self.name}  {self.id.short}  {self.size_bytes} bytes  {len(self.layers)} layers>"

    @property
    def short_id(self) -> str:
        """As docker-py has it."""
        return self.id.short

    @property
    def tags(self) -> list[str]:
        """Its names."""
        return [each.familiar for each in self.engine.store.images.names(self.digest)]

    @property
    def name(self) -> str:
        """The first of its names, else its id."""
        return next(iter(self.tags), self.id.short)

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.config.labels)

    def to_dict(self) -> dict[str, Any]:
        """All that is known of it, in docker's names."""
        from nbcontain.inspection import image_document

        return image_document(self.engine, str(self.id))

    @property
    def attrs(self) -> dict[str, Any]:
        """docker-py's word for the same."""
        return self.to_dict()

    @property
    def layers(self) -> Layers:
        """Lowest first; each has its `files`."""
        return Layers.of(self)

    def history(self) -> History:
        """What made it, newest first: each step with the layer that came of it, if one did."""
        return History(Step(entry, layer) for entry, layer in reversed(self.steps))

    # --- its names, and where it goes ---

    def tag(self, repository: str, tag: str | None = None, force: bool = False) -> Reference:
        """Give it a further name, "team/app:1" or "team/app" and "1". One that pointed elsewhere moves.

        `force` is docker-py's, and was always true.
        """
        return self.engine.tag(str(self.id), named(repository, tag))

    @overload
    def save(self, path: None = None, *, named: bool | str = True, chunk_size: int = PIECE_BYTES
             ) -> Iterator[bytes]: ...  # fmt: skip
    @overload
    def save(self, path: str | os.PathLike[str], *, named: bool | str = True, chunk_size: int = PIECE_BYTES
             ) -> Path: ...  # fmt: skip
    def save(
        self, path: str | os.PathLike[str] | None = None, *, named: bool | str = True, chunk_size: int = PIECE_BYTES
    ) -> Iterator[bytes] | Path:  # fmt: skip
        """An archive of it that docker, podman and skopeo load: written to `path`, or without one its bytes in pieces.

        It has all its names in it, or with named="team/app:1" one of them, or with named=False none, which is
        docker-py's default.
        """
        names = self._saved_names(named)
        # Of what else has the same name, for other machines, nothing is meant.
        images = self.engine.store.images
        indexed = any(images.find_index(each) is not None for each in names)
        platforms = (self.config.platform,) if indexed else ()
        archives = self.engine.archives
        if path is None:
            from nbcontain.store.pipes import pieces

            return pieces(lambda sink: archives.save(names, sink, platforms=platforms), chunk_size)
        target = Path(path).absolute()
        self.engine.waits(archives.save(names, str(target), platforms=platforms), "work")
        return target

    def _saved_names(self, wanted: bool | str) -> list[str]:
        if isinstance(wanted, str):
            if Reference.parse(wanted).familiar not in self.tags:
                known = ", ".join(self.tags) or "it has none"
                raise UsageError(f"save: {wanted} is no name of this image", hint=f"{known}; .tag() gives it one")
            return [wanted]
        return (self.tags if wanted else []) or [str(self.id)]

    def convert(self, compression: str = "zstd", target: str = "", *, level: int | None = None) -> Image:
        """It with its layers compressed as "zstd", "gzip" or "uncompressed": under its own names, or a copy of another.

        The id is the same, the digest another. `level` is zstd's, 1 to 22. Raises UsageError.
        """
        from nbcontain.store.layer_forms import form_of

        form = form_of(compression, level)
        task = self.engine.archives.convert(str(self.id), form, target, again=level is not None)
        return Image.held(self.engine.waits(task, "convert"), self.engine)

    def remove(self, *, force: bool = False) -> list[str]:
        """Take all its names away, and with them the image. Raises InUse."""
        return [gone for name in self.tags or [str(self.id)] for gone in self.engine.remove_image(name, force=force)]

    # --- what is in it ---

    def tree(self, path: str = "/") -> TreeAt:
        """Its files from a path down."""
        found: TreeAt = self.engine.waits(self.engine.anatomy.tree(str(self.id), path), "work")
        return found

    def diff(self, other: Image | str, *, times: bool = False) -> Difference:
        """What the other has otherwise, of config and files; with `times`, modification times too."""
        second = str(other.id) if isinstance(other, Image) else other
        found: Difference = self.engine.waits(self.engine.anatomy.diff(str(self.id), second, times=times), "work")
        return found

    def verify(self) -> tuple[Examined, ...]:
        """Everything that it is made of, read and hashed anew. `all(each.is_whole for each in image.verify())`."""
        found: tuple[Examined, ...] = self.engine.waits(self.engine.anatomy.verify(str(self.id)), "work")
        return found

    def __getitem__(self, path: str) -> Place:
        """A path in it: .text, .bytes, .df(), .value."""
        return Place(_Files(self), path)

    def _ipython_key_completions_(self) -> list[str]:
        return [f"/{name}" for name in Place(_Files(self), "/")._ipython_key_completions_()]


@dataclass(frozen=True, slots=True)
class Layer(oci.Layer):
    """A layer of an image: under both its names, what made it, and its place from the bottom, counted from 1."""

    image: Image = field(repr=False, compare=False)
    number: int = field(compare=False)
    created_by: str = field(compare=False)

    @property
    def size_bytes(self) -> int:
        """Of its blob."""
        return self.descriptor.size

    @property
    def part(self) -> LayerPart:
        """What it does to the files below it, read from its blob."""
        name = str(self.image.id)
        return waited(self.image.engine.anatomy.layers(name)).parts[self.number - 1]

    @property
    def files(self) -> Changes:
        """The paths that it adds, changes and removes."""
        return Changes((each.letter, each.path, each.size_bytes) for each in self.part.changes)


def named(repository: str, tag: str | None) -> str:
    """docker-py's two words for an image as one name: a tag goes behind a colon, a digest behind an @."""
    if not tag:
        return repository
    return f"{repository}@{tag}" if ":" in tag else f"{repository}:{tag}"


@dataclass(frozen=True, slots=True)
class Step:
    """What made a part of an image, and its layer; None where no file changed."""

    entry: oci.History
    layer: oci.Layer | None

    @property
    def created(self) -> str:
        """RFC 3339."""
        return self.entry.created

    @property
    def created_by(self) -> str:
        return self.entry.created_by

    @property
    def comment(self) -> str:
        return self.entry.comment

    @property
    def size_bytes(self) -> int:
        """Of its layer's blob."""
        return self.layer.descriptor.size if self.layer else 0


class History(tuple[Step, ...]):
    """How an image came about, newest first."""

    def to_dict(self) -> list[dict[str, Any]]:
        """A dictionary a step."""
        return [
            {"created": each.created, "created_by": each.created_by, "size": each.size_bytes, "comment": each.comment,
             "layer": str(each.layer.descriptor.digest) if each.layer else ""}
            for each in self
        ]  # fmt: skip

    @property
    def df(self) -> Any:
        """The steps as a pandas DataFrame. Raises Unavailable."""
        from nbcontain import objects

        return objects.frame(self.to_dict(), ("created", "created_by", "size", "comment", "layer"))


class Changes(tuple[tuple[str, str, int], ...]):
    """Changes of files: letter (A added, C changed, D deleted), path and bytes."""

    @property
    def df(self) -> Any:
        """The same as a pandas DataFrame. Raises Unavailable."""
        from nbcontain import objects

        return objects.frame([dict(zip(("kind", "path", "size"), each, strict=True)) for each in self],
                             ("kind", "path", "size"))  # fmt: skip


class Layers(tuple[Layer, ...]):
    """The layers of an image, lowest first."""

    @classmethod
    def of(cls, image: Image) -> Layers:
        """Those of this image."""
        entries = [each.created_by for each in image.config.history if not each.empty_layer]
        entries += [""] * len(image.manifest.layers)
        plain = zip(image.manifest.layers, image.config.diff_ids, entries, strict=False)
        return cls(Layer(blob, diff_id, image, number, by) for number, (blob, diff_id, by) in enumerate(plain, 1))

    def __repr__(self) -> str:
        return f"<Layers {len(self)}{f' of {self[0].image.name}' if self else ''}>"

    @property
    def efficiency(self) -> float:
        """Which part of the files' bytes can be seen in the end: 1.0 if all."""
        return self._anatomy().efficiency if self else 1.0

    def wasted(self) -> list[tuple[str, int, int]]:
        """Paths on which bytes are wasted, since later layers hide them: path, bytes, and in how many layers."""
        return self._anatomy().wasted() if self else []

    def _anatomy(self) -> Anatomy:
        image = self[0].image
        found: Anatomy = image.engine.waits(image.engine.anatomy.layers(str(image.id)), "work")
        return found

    def to_dict(self) -> list[dict[str, Any]]:
        """A dictionary a layer."""
        return [
            {"number": each.number, "digest": str(each.descriptor.digest), "size": each.size_bytes,
             "created_by": each.created_by}
            for each in self
        ]  # fmt: skip

    @property
    def df(self) -> Any:
        """The layers as a pandas DataFrame. Raises Unavailable."""
        from nbcontain import objects

        return objects.frame(self.to_dict(), ("number", "digest", "size", "created_by"))


@dataclass(frozen=True, slots=True)
class _Files:
    """An image's files, as `places` asks for them."""

    image: Image

    @property
    def name(self) -> str:
        return self.image.name

    def read(self, path: str) -> bytes:
        return b"".join(self.image.engine.anatomy.read(str(self.image.id), path))

    def names(self, path: str) -> list[tuple[str, str]]:
        return self.image.engine.anatomy.names(str(self.image.id), path)

    def kind(self, path: str) -> str:
        try:
            return self.image.engine.anatomy.kind(str(self.image.id), path)
        except StoreError:
            return ""

    def write(self, path: str, value: Any) -> None:
        refuse_to_write(self.name, path)
