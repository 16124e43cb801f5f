"""The commands on images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from nbcontain.commands.manifests import platforms
from nbcontain.commands.rows import (
    HISTORY_TITLES,
    IMAGE_TITLES,
    container_counts,
    history_rows,
    image_row,
    unique_bytes,
)
from nbcontain.commands.table import FORMAT_HELP, Names, command, docker_line, existence, of_each
from nbcontain.display.formats import Format
from nbcontain.display.table import Column, Table, Watched
from nbcontain.display.template import Template
from nbcontain.display.values import Document, InProgress, Lines, Verdict
from nbcontain.display.words import ago, count, size
from nbcontain.errors import ImageNotFound, NbcontainError, UsageError, together
from nbcontain.filters import IMAGES, Named, named
from nbcontain.inspection import image_document, image_for
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_FORMAT = "table {{.ID}}…|json|TEMPLATE"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageListWords:
    repository: str = argument(help="only images of this name; a pattern may have * and ?", nargs="?", default="",
                               metavar="NAME")  # fmt: skip
    all: bool = option("-a", "--all", help="images without a name too (they are listed in any case)")
    quiet: bool = option("-q", "--quiet", help="only ids")
    digests: bool = option("--digests", help="manifests' digests too")
    no_trunc: bool = option("--no-trunc", help="ids in full")
    filters: tuple[str, ...] = option("-f", "--filter", help=f"only those: {', '.join(IMAGES)}", metavar="NAME=VALUE")
    format: str = option("--format", help=FORMAT_HELP, metavar=_FORMAT)
    tree: bool = option("--tree", help="each image under the one whose layers it stands on")


@command("image", "ls", "list images", ImageListWords, aliases=("images", "list"), top=("images",))
def image_ls(engine: Engine, words: ImageListWords) -> object:
    found = engine.images(words.filters)
    if words.repository:
        found = [(name, image) for name, image in found if name and named(name, words.repository)]
    if words.quiet and not words.format:
        return Lines(tuple(dict.fromkeys(_id(image, words.no_trunc) for _, image in found)))
    wanted = Format.parse(words.format)
    if wanted.template is not None:
        if words.quiet:
            wanted = replace(wanted, template=Format.parse("{{.ID}}").template)
        sizes = (
            unique_bytes([image for _, image in engine.images()]) if wanted.asks_any("SharedSize", "UniqueSize") else {}
        )
        counts = container_counts(engine) if wanted.asks("Containers") else None
        rows = [
            image_row(
                name, image, engine.store.images.registry_digest(name, image), sizes.get(image.raw_manifest),
                None if counts is None else counts.get(str(image.id), 0), full=words.no_trunc,
            )
            for name, image in found
        ]  # fmt: skip
        return wanted.of(rows, IMAGE_TITLES, "images")
    return _image_table(engine, found, words)


def _image_table(engine: Engine, found: Sequence[Named], words: ImageListWords) -> Watched:
    unique = unique_bytes(
        [image for _, image in (found if not (words.filters or words.repository) else engine.images())]
    )
    here = Platform.here().architecture
    several = any(image.config.platform.architecture != here for _, image in found)
    columns = (
        Column("IMAGE", look="tree" if words.tree else ""), Column("TAG"),
        *((Column("DIGEST", look="wide"),) if words.digests else ()),
        Column("ID", look="code"), *((Column("PLATFORM"),) if several else ()), Column("CREATED", ago),
        Column("SIZE", size, "num"), Column("ADDED" if words.tree else "UNIQUE", size, "num"), Column("", look="graph"),
    )  # fmt: skip
    rows = []
    for name, image, lead, added in _under_each_other(found) if words.tree else [(*each, "", 0) for each in found]:
        own = added if words.tree else unique[image.raw_manifest]
        rows.append((
            lead + (name.familiar_repository if name else "<none>"), (name.tag if name else None) or "<none>",
            *((str(engine.store.images.registry_digest(name, image)),) if words.digests else ()),
            _id(image, words.no_trunc),
            *((str(image.config.platform),) if several else ()), image.config.created, image.size_bytes, own, own,
        ))  # fmt: skip
    blobs = {layer.digest: layer.size for _, image in found for layer in image.manifest.layers}
    total = sum({image.id: image.size_bytes for _, image in found}.values())
    footer = f"{count(len(rows), 'image')} · layers on disk {size(sum(blobs.values()))}"
    if total > sum(blobs.values()):
        footer += f" (without sharing it would be {size(total)})"
    indexes = [] if words.filters else engine.store.images.indexes()
    for name, index in indexes:
        if not words.repository or named(name, words.repository):
            footer += f" · {name.familiar} is for {platforms(index)}"
    return Watched(columns, rows, footer, "images", command=docker_line("images", words, words.repository),
                   again=lambda: cast(Watched, image_ls(engine, words)), kinds=("image", "builder"))  # fmt: skip


def _under_each_other(found: Sequence[Named]) -> list[tuple[Reference | None, Image, str, int]]:
    """Every image after the one whose layers are the beginning of its own, with the lines that lead to it.

    And the bytes that it adds to that one.
    """
    stacks = {image.id: image.config.diff_ids for _, image in found}
    entries = sorted(range(len(found)), key=lambda place: (len(stacks[found[place][1].id]), place))
    last_of: dict[tuple[object, ...], int] = {}
    below: dict[int | None, list[int]] = {}
    for place in entries:
        layers = stacks[found[place][1].id]
        # The longest beginning that is an image; a second name of the same image stands beside the first.
        under = next((last_of[layers[:n]] for n in range(len(layers) - 1, 0, -1) if layers[:n] in last_of), None)
        below.setdefault(under, []).append(place)
        last_of.setdefault(layers, place)
    drawn: list[tuple[Reference | None, Image, str, int]] = []

    def draw(places: Sequence[int], lead: str, base: Image | None) -> None:
        for place in sorted(places):
            name, image = found[place]
            is_last = place == max(places)
            mark = "" if base is None else "└─ " if is_last else "├─ "
            size_below = sum(layer.size for layer in image.manifest.layers[: len(base.layers)]) if base else 0
            drawn.append((name, image, lead + mark, image.size_bytes - size_below))
            deeper = lead if base is None else lead + ("   " if is_last else "│  ")
            draw(below.get(place, []), deeper, image)

    draw(below.get(None, []), "", None)
    return drawn


def _id(image: Image, full: bool = False) -> str:
    return str(image.id) if full else image.id.short


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageInspectWords(Names):
    format: str = option("-f", "--format", help="json, or a template for each", metavar="json|TEMPLATE")
    platform: str = option("--platform", help="of images for several platforms this one's", metavar="OS/ARCHITECTURE")


@command("image", "inspect", "everything that is known of images, as JSON", ImageInspectWords)
def image_inspect(engine: Engine, words: ImageInspectWords) -> Document | Lines:
    return inspected(words.names, lambda name: ("image", image_document(engine, name, words.platform)), words.format)


Described = tuple[str, Mapping[str, object]]
"""What kind of thing it is, as `docker_types` has it, and its document."""


def inspected(names: Sequence[str], describe: Callable[[str], Described], format: str) -> Document | Lines:
    """The documents of these as --format wants them. Raises UsageError, and what `describe` does, with the others'."""
    described: list[Described] = []
    errors: list[NbcontainError] = []
    for name in names:
        try:
            described.append(describe(name))
        except NbcontainError as error:
            errors.append(error)
    found = _in_format(described, format)
    if errors:
        documents = [document for _, document in described]
        lines = found.lines if isinstance(found, Lines) else tuple(json.dumps(documents, indent=2).splitlines())
        raise together(errors, lines)
    return found


def _in_format(described: Sequence[Described], format: str) -> Document | Lines:
    documents = [document for _, document in described]
    if not format:
        return Document(documents)
    if format == "json":
        return Lines((Template.parse("{{json .}}").render(documents),))
    template = Format.parse(format).template
    if template is None or Format.parse(format).is_table:
        raise UsageError(
            f"inspect --format {format}: there is no table of these", hint="'{{.Id}}', '{{json .}}' or json"
        )
    from nbcontain.display.docker_types import TYPES
    from nbcontain.display.typed import typed

    return Lines(tuple(template.render(typed(document, TYPES[kind])) for kind, document in described))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class HistoryWords:
    image: str = argument(help="an image")
    no_trunc: bool = option("--no-trunc", help="instructions in full")
    quiet: bool = option("-q", "--quiet", help="only ids")
    human: bool = option("-H", "--human", help="sizes and times for people; -H=false: bytes and dates", default=True)
    format: str = option("--format", help=FORMAT_HELP, metavar=_FORMAT)
    platform: str = option("--platform", help="of images for several platforms this one's", metavar="OS/ARCHITECTURE")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExistsWords:
    name: str = argument(help="an image, by name or id", metavar="NAME")


@command("image", "exists", "whether there is an image of that name here: exit status 0 or 1", ExistsWords)
def image_exists(engine: Engine, words: ExistsWords) -> Verdict:
    # An index may be here with no image for this machine.
    return existence(lambda: engine.store.images.find_index(words.name) or engine.image(words.name))


@command("image", "history", "which instruction made which layer", HistoryWords, top=("history",))
def image_history(engine: Engine, words: HistoryWords) -> object:
    image = image_for(engine, words.image, words.platform)
    wanted = Format.parse(words.format)
    if wanted.template is not None:
        rows = history_rows(image, full=words.no_trunc, human=words.human)
        return wanted.of(rows, HISTORY_TITLES, f"history of {words.image}")
    if words.quiet:
        return Lines(tuple(str(row["ID"]) for row in history_rows(image, full=words.no_trunc, human=True)))
    drawn = []
    for entry, layer in image.steps:
        text = entry.created_by or entry.comment
        drawn.append((
            layer.descriptor.digest.short if layer else "",
            entry.created, text if words.no_trunc or len(text) <= 72 else text[:71] + "…",
            *[layer.descriptor.size if layer else 0] * 2,
        ))  # fmt: skip
    columns = (
        Column("LAYER", look="code"), Column("CREATED", ago if words.human else str), Column("CREATED BY", look="wide"),
        Column("SIZE", size if words.human else str, "num"), Column("", look="graph"),
    )  # fmt: skip
    return Table(columns, drawn[::-1], "newest first", f"history of {words.image}")


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
    force: bool = option("-f", "--force", help="although containers are made of it (they go on); all names of an id")


@command("image", "rm", "remove names, and images left without one", ImageRemoveWords, ("rmi", "remove"), ("rmi",))
def image_rm(engine: Engine, words: ImageRemoveWords) -> Lines:
    def remove(name: str) -> Sequence[str]:
        try:
            return engine.remove_image(name, force=words.force)
        except ImageNotFound:
            # docker's -f is content with what is not there.
            if words.force:
                return []
            raise

    return Lines(of_each(words.names, remove))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class FromHostWords:
    tag: str = option("-t", "--tag", help="what to call it", default="host")
    packages: tuple[str, ...] = option("--package", help="a Python package of here, with what it requires",
                                       metavar="NAME")  # fmt: skip
    programs: tuple[str, ...] = argument(help="further programs of here", nargs="*", default=(), metavar="PROGRAM")


@command("image", "from-host", "make a small image of this machine's shell, coreutils and Python", FromHostWords)
def image_from_host(engine: Engine, words: FromHostWords) -> InProgress[Image]:
    return InProgress(engine.from_host(words.tag, words.programs, words.packages), "build")
