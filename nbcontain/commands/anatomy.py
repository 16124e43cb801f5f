"""The commands that look into images, and a container's layers: layers, diff, tree, cat, verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbcontain.anatomy import Difference, Examined, LayerPart, Layers, TreeAt
from nbcontain.commands.table import command
from nbcontain.display.explored import MARKS, Explored
from nbcontain.display.filetree import FileTree, of_layer
from nbcontain.display.formats import Format
from nbcontain.display.table import Column, Table
from nbcontain.display.values import InProgress, Lines, Raw, Verdict
from nbcontain.display.words import count, size
from nbcontain.errors import UsageError
from nbcontain.explorer import Exploration
from nbcontain.options import argument, option, with_defaults
from nbcontain.store.file_trees import Change
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

LAYER_TITLES = {
    "Number": "#", "Layer": "LAYER", "DiffID": "DIFF ID", "CreatedBy": "CREATED BY", "Size": "SIZE", "Files": "FILES",
    "Added": "ADDED", "Changed": "CHANGED", "Removed": "REMOVED", "Wasted": "WASTED",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LayersWords:
    name: str = argument(help="which")
    wasted: bool = option("--wasted", help="the files on which bytes are wasted: overwritten or removed later")
    no_trunc: bool = option("--no-trunc", help="instructions in full")
    format: str = option("--format", help="a table of these columns, or a text for each layer",
                         metavar="table {{.Layer}}…|json|TEMPLATE")  # fmt: skip


@command("image", "layers", "what each layer adds, changes and removes, and which bytes are wasted", LayersWords)
def image_layers(engine: Engine, words: LayersWords) -> InProgress[object]:
    return _layers(words, lambda: engine.explorer.image(words.name))


@command("container", "layers", "its image's layers, and on top what it has written itself", LayersWords)
def container_layers(engine: Engine, words: LayersWords) -> InProgress[object]:
    return _layers(words, lambda: engine.explorer.container(engine.container(words.name)))


def _layers(words: LayersWords, explored: Callable[[], Task[Exploration]]) -> InProgress[object]:
    wanted = Format.parse(words.format)

    def drawn(found: Exploration) -> object:
        if wanted.template is not None:
            rows = [_layer_row(part, full=words.no_trunc) for part in found.layers.parts]
            return wanted.of(rows, LAYER_TITLES, f"layers of {found.name}")
        return _wasted_table(found.layers, found.name) if words.wasted else Explored(found, words.no_trunc)

    is_explored = wanted.template is None and not words.wasted
    return InProgress(explored().then(drawn), "work", becomes="layers" if is_explored else "",
                      begins=(words.name, "layers"))  # fmt: skip


def _layer_row(part: LayerPart, *, full: bool) -> dict[str, object]:
    digest = part.layer.descriptor.digest
    layer, diff_id = (str(digest) if full else digest.short, str(part.layer.diff_id)) if part.is_stored else ("", "")
    return {
        "Number": part.number, "Layer": layer, "DiffID": diff_id,
        "CreatedBy": part.entry.created_by or part.entry.comment, "Size": part.layer.descriptor.size,
        "Files": part.files_bytes, "Added": part.count("A"), "Changed": part.count("C"), "Removed": part.count("D"),
        "Wasted": part.wasted_bytes,
    }  # fmt: skip


def _wasted_table(layers: Layers, name: str) -> Table:
    rows = [(path, times, size_bytes, size_bytes) for path, size_bytes, times in layers.wasted()]
    columns = (
        Column("PATH", look="code"), Column("LAYERS", look="num"), Column("WASTED", size, "num"),
        Column("", look="graph"),
    )  # fmt: skip
    footer = f"{count(len(rows), 'file')} · {size(layers.wasted_bytes)} of {size(layers.files_bytes)} wasted"
    return Table(columns, rows, footer, f"wasted in {name}")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageDiffWords:
    first: str = argument(help="an image", metavar="A")
    second: str = argument(help="another image", metavar="B")
    times: bool = option("--times", help="modification times too")
    all: bool = option("-a", "--all", help="every change; otherwise the largest thousand at most")
    format: str = option("--format", help="a table of these columns, or a text for each change",
                         metavar="table {{.Path}}…|json|TEMPLATE")  # fmt: skip


_SHOWN = 1000
CHANGE_TITLES = {
    "Kind": "KIND", "Path": "PATH", "Size": "SIZE", "Delta": "DELTA", "What": "WHAT", "Entries": "ENTRIES",
}  # fmt: skip


@command("image", "diff", "what image B has otherwise than image A: config and files", ImageDiffWords)
def image_diff(engine: Engine, words: ImageDiffWords) -> InProgress[object]:
    wanted = Format.parse(words.format)

    def drawn(found: Difference) -> object:
        if wanted.template is not None:
            return wanted.of([_change_row(each) for each in found.changes], CHANGE_TITLES, "changes")
        return _difference_table(found, words)

    return InProgress(engine.anatomy.diff(words.first, words.second, times=words.times).then(drawn), "work")


def _change_row(change: Change) -> dict[str, object]:
    return {
        "Kind": change.letter, "Path": change.path, "Size": change.size_bytes, "Delta": _delta(change),
        "What": list(change.what), "Entries": change.count,
    }  # fmt: skip


def _delta(change: Change) -> int:
    return {"A": change.size_bytes, "D": -change.size_bytes}.get(change.letter, change.size_bytes - change.before_bytes)


def _difference_table(found: Difference, words: ImageDiffWords) -> Table:
    shown: Sequence[Change] = found.changes
    left = 0
    if len(shown) > _SHOWN and not words.all:
        kept = sorted(shown, key=lambda change: -abs(_delta(change)))[:_SHOWN]
        left = len(shown) - len(kept)
        shown = sorted(kept, key=lambda change: change.path)
    rows: list[tuple[object, ...]] = [
        ("~", what, f"{before or '(none)'} → {after or '(none)'}", None) for what, before, after in found.config
    ]
    rows += [(MARKS[each.letter], _path_of(each), ", ".join(each.what), _delta(each)) for each in shown]
    total = sum(map(_delta, found.changes))
    counts = {letter: sum(each.letter == letter for each in found.changes) for letter in "ACD"}
    footer = f"{counts['A']} added · {counts['C']} changed · {counts['D']} removed · {_signed(total)}"
    if left:
        footer += f" · {left} smaller changes are not shown (-a shows them)"
    if not rows:
        footer = f"{words.first} and {words.second} have the same files and the same config"
    columns = (
        Column("", look="mark"), Column("PATH", look="code"), Column("WHAT", look="wide"),
        Column("BYTES", _signed, "num"),
    )  # fmt: skip
    return Table(columns, rows, footer, f"from {words.first} to {words.second}")


def _path_of(change: Change) -> str:
    if not change.is_directory:
        return change.path
    return f"{change.path}/" + (f"  ({count(change.count - 1, 'entry', 'entries')})" if change.count > 1 else "")


def _signed(size_bytes: int) -> str:
    return ("+" if size_bytes > 0 else "−" if size_bytes < 0 else "") + size(abs(size_bytes))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageTreeWords:
    image: str = argument(
        help="an image; NAME@layer2 shows only what its second layer changes", metavar="NAME[@layerN]"
    )
    path: str = argument(help="where to begin", nargs="?", default="/", metavar="PATH")
    depth: int = option("-L", "--depth", help="how many levels (2)", default=2)
    sort: str = option("--sort", help="name or size", default="name")
    long: bool = option("-l", "--long", help="modes and owners too")
    all: bool = option("-a", "--all", help="all that is in a directory, however much it is")


@command("image", "tree", "the files of an image, without running it", ImageTreeWords)
def image_tree(engine: Engine, words: ImageTreeWords) -> InProgress[FileTree]:
    if words.sort not in ("name", "size"):
        raise UsageError(f"image tree --sort {words.sort}: by what?", hint="--sort name, or --sort size")

    def drawn(tree: TreeAt) -> FileTree:
        return FileTree(of_layer(tree), max(1, words.depth), words.sort == "size", words.long, words.all)

    return InProgress(engine.anatomy.tree(words.image, words.path).then(drawn), "work")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageCatWords:
    image: str = argument(
        help="an image; NAME@layer2 is what its layers up to the second show", metavar="NAME[@layerN]"
    )
    path: str = argument(
        help="a file in it, also as NAME:/PATH; symbolic links are followed inside of the image", nargs="?",
        default="", metavar="PATH",
    )  # fmt: skip


@command("image", "cat", "the bytes of one file of an image, without running it", ImageCatWords)
def image_cat(engine: Engine, words: ImageCatWords) -> Raw:
    image, path = words.image, words.path
    if not path:
        # As cp has it. A port of a registry has no slash before it.
        image, colon, path = image.partition(":/")
        path = colon[1:] + path
    if not path:
        raise UsageError("cat: which file?", hint=f"%image cat {image} /etc/os-release, or {image}:/etc/os-release")
    # What is wrong is raised now, and not when it is drawn; to read it once more costs nothing before it is read.
    engine.anatomy.read(image, path)
    return Raw(lambda: engine.anatomy.read(image, path), f"{path} of {image}")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ImageVerifyWords:
    image: str = argument(help="an image")
    quiet: bool = option("-q", "--quiet", help="only what is damaged")


@command("image", "verify", "read and hash everything that an image is made of", ImageVerifyWords)
def image_verify(engine: Engine, words: ImageVerifyWords) -> InProgress[Verdict]:
    def drawn(found: tuple[Examined, ...]) -> Verdict:
        damaged = [each for each in found if each.damage]
        mends = list(dict.fromkeys(each.mend for each in damaged))
        read = sum(each.size_bytes or 0 for each in found)
        footer = (
            "; ".join(mends) or f"{words.image} is whole: {count(len(found), 'thing')}, {size(read)} read and hashed"
        )
        if words.quiet and not damaged:
            return Verdict(Lines(()), 0)
        rows = [
            (each.what, each.digest, each.size_bytes, each.damage or "whole")
            for each in (damaged if words.quiet else found)
        ]
        columns = (
            "WHAT", Column("DIGEST", _short, "code"), Column("SIZE", size, "num"), Column("FOUND", look="wide"),
        )  # fmt: skip
        return Verdict(Table(columns, rows, footer, f"what {words.image} is made of"), 1 if damaged else 0)

    return InProgress(engine.anatomy.verify(words.image).then(drawn), "work")


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
