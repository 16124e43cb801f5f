"""The commands on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbcontain.commands.table import Names, command
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Document, InProgress, Lines
from nbcontain.display.words import ago, count, size
from nbcontain.inspection import image_document
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageListWords:
    repository: str = argument(help="only images of this name", nargs="?", default="", metavar="NAME")
    all: bool = option("-a", "--all", help="images without a name too (they are listed in any case)")
    quiet: bool = option("-q", "--quiet", help="only ids")
    digests: bool = option("--digests", help="manifests' digests too")
    no_trunc: bool = option("--no-trunc", help="ids in full")


@command("image", "ls", "list images", ImageListWords, aliases=("images", "list"), top=("images",))
def image_ls(engine: Engine, words: ImageListWords) -> Table | Lines:
    found = engine.images()
    if words.repository:
        wanted = Reference.parse(words.repository)
        tagged = ":" in words.repository.rpartition("/")[2]
        found = [
            (name, image)
            for name, image in found
            if name
            and (name.registry, name.repository) == (wanted.registry, wanted.repository)
            and (not tagged or name.tag == wanted.tag)
        ]
    if words.quiet:
        return Lines(tuple(dict.fromkeys(_id(image, words.no_trunc) for _, image in found)))
    unique = _unique_bytes([image for _, image in found])
    columns = (
        Column("IMAGE"), Column("TAG"), *((Column("DIGEST", look="code"),) if words.digests else ()),
        Column("ID", look="code"), Column("CREATED", ago), Column("SIZE", size, "num"), Column("UNIQUE", size, "num"),
        Column("", look="graph"),
    )  # fmt: skip
    rows = [
        (
            name.familiar_repository if name else "<none>", (name.tag if name else None) or "<none>",
            *((str(image.digest),) if words.digests else ()), _id(image, words.no_trunc), image.config.created,
            image.size_bytes, unique[image.id], unique[image.id],
        )
        for name, image in found
    ]  # fmt: skip
    blobs = {layer.digest: layer.size for _, image in found for layer in image.manifest.layers}
    total = sum({image.id: image.size_bytes for _, image in found}.values())
    footer = f"{count(len(rows), 'image')} · layers on disk {size(sum(blobs.values()))}"
    if total > sum(blobs.values()):
        footer += f" (without sharing it would be {size(total)})"
    return Table(columns, rows, footer, "images")


def _id(image: Image, full: bool = False) -> str:
    return str(image.id) if full else image.id.short


def _unique_bytes(images: Sequence[Image]) -> dict[Any, int]:
    """Per image id, the bytes of layers that no other image here has."""
    users: dict[Any, set[Any]] = {}
    for image in images:
        for layer in image.manifest.layers:
            users.setdefault(layer.digest, set()).add(image.id)
    return {
        image.id: sum(layer.size for layer in image.manifest.layers if users[layer.digest] == {image.id})
        for image in images
    }


@command("image", "inspect", "everything that is known of images, as JSON", Names)
def image_inspect(engine: Engine, words: Names) -> Document:
    return Document([image_document(engine, name) for name in words.names])


@dataclass(frozen=True, kw_only=True)
@with_defaults
class HistoryWords:
    image: str = argument(help="an image")
    no_trunc: bool = option("--no-trunc", help="instructions in full")


@command("image", "history", "which instruction made which layer", HistoryWords, top=("history",))
def image_history(engine: Engine, words: HistoryWords) -> Table:
    image = engine.image(words.image)
    layers = iter(image.layers)
    rows = []
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        text = entry.created_by or entry.comment
        rows.append((
            layer.descriptor.digest.short if layer else "",
            entry.created, text if words.no_trunc or len(text) <= 72 else text[:71] + "…",
            *[layer.descriptor.size if layer else 0] * 2,
        ))  # fmt: skip
    columns = (
        Column("LAYER", look="code"), Column("CREATED", ago), Column("CREATED BY", look="wide"),
        Column("SIZE", size, "num"), Column("", look="graph"),
    )  # fmt: skip
    return Table(columns, rows[::-1], "newest first", f"history of {words.image}")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TagWords:
    source: str = argument(help="an image")
    target: str = argument(help="its further name", metavar="NAME")


@command("image", "tag", "give an image a further name", TagWords, top=("tag",))
def image_tag(engine: Engine, words: TagWords) -> Lines:
    reference = engine.tag(words.source, words.target)
    return Lines((reference.familiar,))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageRemoveWords(Names):
    force: bool = option("-f", "--force", help="although stopped containers are made of it (they go on)")


@command("image", "rm", "remove names, and images left without one", ImageRemoveWords, ("rmi", "remove"), ("rmi",))
def image_rm(engine: Engine, words: ImageRemoveWords) -> Lines:
    return Lines(tuple(line for name in words.names for line in engine.remove_image(name, force=words.force)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class FromHostWords:
    tag: str = option("-t", "--tag", help="what to call it", default="host")
    programs: tuple[str, ...] = argument(help="further programs of here", nargs="*", default=(), metavar="PROGRAM")


@command("image", "from-host", "make a small image of this machine's shell, coreutils and Python", FromHostWords)
def image_from_host(engine: Engine, words: FromHostWords) -> InProgress[Image]:
    return InProgress(engine.from_host(words.tag, words.programs), "build")
