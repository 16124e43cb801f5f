"""A stack of layers as people see it: a table as text, HTML with the top of its files, answers for a page that opens
directories. Names, contents and instructions are hostile. Pure but for what answers read of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from nbcontain.anatomy import LayerPart, Layers
from nbcontain.display import html
from nbcontain.display.harmless import visible
from nbcontain.display.table import Column, Table
from nbcontain.display.words import count, size
from nbcontain.errors import NbcontainError
from nbcontain.explorer import Exploration, Look, Row, Sort
from nbcontain.values import dataclass

MARKS = {"A": "+", "C": "~", "D": "−"}
WORDS = {"A": "added", "C": "changed", "D": "removed"}
_WORST = 3
_PAGE_ROWS = 400
"""So many rows are sent at once."""
_LEAST = 200
"""So many wasted files are named."""
_SAVED_ROWS = 400
_SAVED_DIRECTORY = 60
_SAVED_DEPTH = 4
_SHOWN_LINES = 4000
_LINE = 2000
_SHORT = 72


@dataclass(frozen=True, slots=True)
class Explored:
    """An image's layers, or a container's, to be looked into."""

    exploration: Exploration
    no_trunc: bool = False

    @property
    def table(self) -> Table:
        """A row per layer."""
        return layers_table(self.exploration.layers, self.exploration.name, full=self.no_trunc)

    def records(self) -> list[dict[str, object]]:
        """Every file that is there in the end, with the layer that wrote it."""
        return self.exploration.records()

    @property
    def df(self) -> Any:
        """The same as a pandas DataFrame; `Unavailable` where pandas is not installed."""
        columns = ("path", "layer", "size", "mode", "owner", "kind", "target", "changed")
        from nbcontain import objects

        return objects.frame(self.records(), columns)

    def __repr__(self) -> str:
        return self.table.text()

    def _repr_html_(self) -> str:
        return saved(self.exploration)


# --- the table ---


def layers_table(layers: Layers, name: str, *, full: bool = False) -> Table:
    """What each layer adds, changes and removes, and what of it is wasted."""
    rows = []
    for part in layers.parts:
        text, short = part.entry.created_by or part.entry.comment, part.instruction
        stored = part.layer.descriptor
        rows.append((
            part.number, stored.digest.short if part.is_stored else "",
            text if full else short if len(short) <= _SHORT else short[: _SHORT - 1] + "…",
            stored.size if part.is_stored else None, part.files_bytes, counts(part), part.wasted_bytes or None,
            part.files_bytes,
        ))  # fmt: skip
    columns = (
        Column("#", look="num"), Column("LAYER", look="code"), Column("CREATED BY", look="wide"),
        Column("STORED", size, "num"), Column("FILES", size, "num"), Column("CHANGES"), Column("WASTED", size, "num"),
        Column("", look="graph"),
    )  # fmt: skip
    return Table(columns, rows, _footer(layers), f"layers of {name}")


def counts(part: LayerPart) -> str:
    """How many paths a layer adds, changes, removes: "+105 ~1"."""
    return " ".join(f"{MARKS[letter]}{number}" for letter in "ACD" if (number := part.count(letter)))


def _footer(layers: Layers) -> str:
    stored, files = size(layers.image.size_bytes), size(layers.files_bytes)
    text = f"{count(len(layers.parts), 'layer')} · {stored} stored · {files} of files"
    if not layers.wasted_bytes:
        return f"{text} · nothing is wasted"
    worst = layers.wasted()
    named = ", ".join(f"{path} {size(size_bytes)}" for path, size_bytes, _ in worst[:_WORST])
    more = f" and {len(worst) - _WORST} more (--wasted)" if len(worst) > _WORST else ""
    return f"{text} · {size(layers.wasted_bytes)} wasted ({1 - layers.efficiency:.0%}): {named}{more}"


def about(layers: Layers) -> str:
    """The figures in a few words."""
    wasted = f"{size(layers.wasted_bytes)} wasted ({1 - layers.efficiency:.0%})" if layers.wasted_bytes else ""
    parts = [count(len(layers.parts), "layer"), f"{size(layers.files_bytes)} of files", wasted or "nothing is wasted"]
    return " · ".join(parts)


# --- what a notebook keeps ---


def saved(exploration: Exploration) -> str:
    """HTML without a kernel: the layers, and the files at the top of the tree in directories that open."""
    layers = exploration.layers
    title = html.element("strong", html.escape(exploration.name), "nbc-title")
    head = html.element("div", f"{title} {html.element('span', html.escape(about(layers)), 'nbc-about')}", "nbc-head")
    most = max((part.files_bytes for part in layers.parts), default=0)
    stack = html.element("ol", "".join(_saved_layer(part, most) for part in reversed(layers.parts)), "nbx-layers")
    budget = [_SAVED_ROWS]
    files = html.element("div", _saved_rows(exploration, "/", 0, budget), "nbc-files")
    parts = [html.element("div", head, "nbc-top"), stack, files]
    if worst := layers.wasted()[:10]:
        said = [f"{path}  {size(size_bytes)}" for path, size_bytes, _ in worst]
        summary = html.element("summary", html.escape(f"wasted: {size(layers.wasted_bytes)}, the most on"))
        parts.append(html.opening("details", summary + html.notes(said), is_open=False, classes="nbc-hints"))
    inside = parts[0] + html.element("div", "".join(parts[1:]), "nbc-body")
    return html.framed(inside, f"layers of {exploration.name}")


def _saved_layer(part: LayerPart, most: int) -> str:
    width = round(100 * part.files_bytes / most) if most else 0
    bar = f'<span class="nbx-bar" aria-hidden="true"><span style="width:{width}%"></span></span>'
    text = part.instruction if len(part.instruction) <= 400 else part.instruction[:399] + "…"
    wasted = f" · {size(part.wasted_bytes)} wasted" if part.wasted_bytes else ""
    cells = (
        html.element("span", str(part.number), "nbx-number"), bar,
        html.element("span", html.escape(size(part.files_bytes)), "nbx-size"),
        html.element("span", html.escape(text or "(nothing says what made it)"), "nbx-made"),
        html.element("span", html.escape(counts(part) + wasted), "nbx-counts"),
    )  # fmt: skip
    return html.element("li", " ".join(cells), "nbx-layer")


def _saved_rows(exploration: Exploration, path: str, depth: int, budget: list[int]) -> str:
    rows = [row for row in exploration.rows(path, exploration.top) if row.letter != "D" or depth < 2]
    shown = rows[: min(_SAVED_DIRECTORY, max(0, budget[0]))]
    budget[0] -= len(shown)
    drawn = []
    for row in shown:
        cells = _saved_cells(row)
        if row.kind == "directory" and row.entries and depth + 1 < _SAVED_DEPTH and budget[0] > 0:
            below = _saved_rows(exploration, row.path, depth + 1, budget)
            inner = html.element("div", below, "nbc-deeper")
            drawn.append(html.opening("details", html.element("summary", cells) + inner, is_open=False))
        else:
            drawn.append(html.element("div", cells, "nbc-file"))
    if len(rows) > len(shown):
        more = f"… {len(rows) - len(shown)} more, {size(sum(row.size_bytes for row in rows[len(shown) :]))}"
        drawn.append(html.element("div", html.escape(more), "nbc-file nbc-more"))
    return "".join(drawn)


def _saved_cells(row: Row) -> str:
    mark = html.element("b", MARKS[row.letter], f"nbc-{WORDS[row.letter]}") + " " if row.letter else ""
    said = f"{row.entries}" if row.entries else ""
    return (
        html.element("span", mark + html.escape(named(row, row.path.rpartition("/")[2])), "nbc-name")
        + html.element("span", html.escape(said), "nbc-about")
        + html.element("span", html.escape(size(row.size_bytes)), "nbc-num")
    )


def named(row: Row, name: str) -> str:
    """A name with what it is: bin/, sh -> busybox."""
    text = visible(name)
    if row.kind == "directory":
        return f"{text}/"
    if row.kind == "link" and row.file is not None:
        return f"{text} -> {visible(row.file.target)}"
    return text if row.kind == "file" else f"{text}  [{row.kind}]"


# --- what a live page asks for ---


class Answers:
    """Answers what a page asks of an exploration, as JSON. A path is named by a number that was sent with its row:
    names need not be text. Nothing that a page says is trusted.
    """

    def __init__(self, exploration: Exploration) -> None:
        self.exploration = exploration
        self._paths: list[str] = ["/"]
        self._keys: dict[str, int] = {"/": 0}

    def begun(self) -> dict[str, Any]:
        """What a page needs before it asks for anything."""
        layers = self.exploration.layers
        top = self.exploration.top
        return {
            "name": visible(self.exploration.name), "about": about(layers),
            "layers": [_layer(part) for part in layers.parts],
            "first": self._rows(self.exploration.rows("/", top), 0) if top else {"rows": [], "more": 0},
            "wasted": [
                [self._key(path), visible(path), size(size_bytes), times]
                for path, size_bytes, times in layers.wasted()[:_LEAST]
            ],
            "live": self.exploration.container is not None,
        }  # fmt: skip

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a page gets for this; an "error" in place of what cannot be had."""
        try:
            number = min(max(1, int(asked.get("number", 0))), self.exploration.top)
            match asked.get("ask"):
                case "rows":
                    path = self._path(asked)
                    sort: Sort = "size" if asked.get("sort") == "size" else "name"
                    rows = self.exploration.rows(path, number, changed=bool(asked.get("changed")), sort=sort)
                    return self._rows(rows, max(0, int(asked.get("start", 0))))
                case "find":
                    text = str(asked.get("text", ""))[:1000]
                    found = self.exploration.found(text, number, changed=bool(asked.get("changed")))
                    rows = list(islice(found, _PAGE_ROWS))
                    more = sum(1 for _ in found)
                    return {"rows": [self._row(row, row.path) for row in rows], "more": more}
                case "look":
                    return {"look": self._look(self.exploration.look(self._path(asked), number))}
        except (NbcontainError, OSError) as error:
            return {"error": visible(error.message if isinstance(error, NbcontainError) else str(error))}
        except (ValueError, TypeError, IndexError):
            pass
        return {"error": "nobody knows what that asks for"}

    def _path(self, asked: Mapping[str, Any]) -> str:
        key = asked["key"] if isinstance(asked.get("key"), int) else -1
        if key < 0:
            raise ValueError
        return self._paths[key]

    def _key(self, path: str) -> int:
        key = self._keys.setdefault(path, len(self._paths))
        if key == len(self._paths):
            self._paths.append(path)
        return key

    def _rows(self, rows: Sequence[Row], start: int) -> dict[str, Any]:
        shown = rows[start : start + _PAGE_ROWS]
        return {
            "rows": [self._row(row, row.path.rpartition("/")[2]) for row in shown],
            "more": len(rows) - start - len(shown), "start": start,
        }  # fmt: skip

    def _row(self, row: Row, name: str) -> list[Any]:
        opens = row.kind == "directory" and bool(row.entries or row.touched)
        return [
            self._key(row.path), named(row, name), int(opens), row.letter, size(row.size_bytes), row.entries,
            row.touched, _mode(row), row.number,
        ]  # fmt: skip

    def _look(self, look: Look) -> dict[str, Any]:
        row = look.row
        whole = look.text.splitlines()
        lines = list(_clean(whole))
        return {
            "path": visible(row.path), "kind": row.kind, "size": size(row.size_bytes), "mode": _mode(row),
            "told": [self._told(each.number, each.letter, each.size_bytes, each.what) for each in look.told],
            "note": visible(look.note), "text": "\n".join(lines) if look.is_text else None,
            "hex": look.hex if not look.is_text else "", "cut": look.is_cut or len(whole) > _SHOWN_LINES,
            "difference": list(_clean(look.difference)), "empty": not look.data and not look.note,
        }  # fmt: skip

    def _told(self, number: int, letter: str, size_bytes: int, what: Sequence[str]) -> list[Any]:
        said = WORDS[letter] + (f" ({', '.join(what)})" if what else "")
        said += f", {size(size_bytes)}" if letter != "D" else ""
        return [number, letter, said, visible(self.exploration.part(number).instruction)[:2000]]


def _layer(part: LayerPart) -> dict[str, Any]:
    stored = part.layer.descriptor
    return {
        "number": part.number, "made": visible(part.instruction)[:2000], "bytes": part.files_bytes,
        "size": size(part.files_bytes), "counts": [part.count(letter) for letter in "ACD"],
        "wasted": size(part.wasted_bytes) if part.wasted_bytes else "",
        "stored": f"{stored.digest.short}, {size(stored.size)} stored" if part.is_stored else "",
    }  # fmt: skip


def _mode(row: Row) -> str:
    """As ls -l has it."""
    file = row.file
    return f"{file.permissions} {file.uid}:{file.gid}" if file is not None else ""


def _clean(lines: Sequence[str]) -> Iterator[str]:
    """Lines without what would not be seen as it is; tabs stay."""
    for line in lines[:_SHOWN_LINES]:
        yield "\t".join(map(visible, line[:_LINE].split("\t"))) + ("…" if len(line) > _LINE else "")
