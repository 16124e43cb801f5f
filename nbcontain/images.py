"""An image in Python's hands: the value, and the engine that has its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain.errors import StoreError
from nbcontain.oci import image as oci
from nbcontain.outcomes import waited
from nbcontain.places import Place, refuse_to_write
from nbcontain.values import dataclass, field, fields

if TYPE_CHECKING:
    from nbcontain.anatomy import LayerPart
    from nbcontain.engine import Engine
    from nbcontain.oci.reference import Reference


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

    def tag(self, name: str) -> Reference:
        """Give it a further name."""
        return self.engine.tag(str(self.id), name)

    def remove(self, *, force: bool = False) -> list[str]:
        """Take all its names away, and with them the image. Raises InUse."""
        return [gone for name in self.tags or [str(self.id)] for gone in self.engine.remove_image(name, force=force)]

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
