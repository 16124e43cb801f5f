"""A table as a value: rows of raw values, drawn as text or HTML, or handed out as a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from nbcontain.display import words
from nbcontain.display.harmless import visible
from nbcontain.values import dataclass, field

USUAL_WIDTH = 100
"""Columns, where nobody says how many there are."""
_NARROWEST = 12

Look = Literal["", "num", "code", "words", "wide", "graph", "tree", "mark"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, how a value of it is written, and its look.

    "num" is set right, "code" in a fixed width, "words" wraps between words in narrow places, "wide" anywhere,
    "graph" is drawn as a bar beside the column's largest value, or is a text that is one already, in "tree" blanks stay
    where they are, and "mark" is a sign or letter.
    """

    title: str
    show: Callable[[Any], str] = str
    look: Look = ""
    brief: Callable[[str], str] | None = None
    """The same in fewer words, for HTML: what is text may be read by a script that knows docker's."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns, and perhaps a line below. Columns may be given as mere titles."""

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Any]]
    footer: str = ""
    label: str = ""
    """For assistive technology: what the table lists."""
    title: str = ""
    """A heading, for people."""
    command: str = ""
    """What one types to docker to see the same."""

    is_plain: bool = False
    """As text only its rows, with a blank between, for who reads them by a program."""

    below: int = 0
    """So many of the last columns are written below their row, each with its title, where lines would be too long."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records())

    def records(self) -> list[dict[str, Any]]:
        """The raw values, a dictionary per row; keys are the titles in lower case, bars left out."""
        kept = [(i, _key(column.title)) for i, column in enumerate(self._columns()) if column.look != "graph"]
        return [{key: row[i] for i, key in kept} for row in self.rows]

    @property
    def df(self) -> Any:
        """The raw values as a pandas DataFrame; `Unavailable` where pandas is not installed."""
        from nbcontain import objects

        columns = [_key(column.title) for column in self._columns() if column.look != "graph"]
        return objects.frame(self.records(), columns)

    def text(self, width: int = USUAL_WIDTH) -> str:
        """As docker draws it: capital titles, columns two blanks apart. `width` is for what may be put `below`."""
        if self.is_plain:
            return "\n".join(" ".join(row) for row in self._shown())
        columns = self._columns()
        cells = [[column.title.upper() for column in columns], *self._shown()]
        drawn = _drawn(columns, cells)
        footer = [self.footer] if self.footer else []
        if self.below:
            footer = _wrapped(self.footer, width)
            if any(_width(line) > width for line in drawn):
                drawn = _with_some_below(columns, cells, len(columns) - self.below, width)
        head = [f"{self.title}:", ""] if self.title else []
        return "\n".join([*head, *drawn, *footer])

    def html(self) -> str:
        """A real table with the style it needs. A column with nothing in it leaves its place to the others."""
        from nbcontain.display import html

        briefs = [column.brief or str for column in self._columns()]
        shown = [[brief(text) for brief, text in zip(briefs, row, strict=True)] for row in self._shown()]
        kept = [i for i in range(len(self.columns)) if not shown or any(row[i] for row in shown)]
        columns = [(column.title, column.look) for column in self._columns()]
        rows = [[row[i] for i in kept] for row in shown]
        return html.table([columns[i] for i in kept], rows, self.footer, self.label, self.title, self.command)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def _columns(self) -> list[Column]:
        return [Column(column) if isinstance(column, str) else column for column in self.columns]

    def _shown(self) -> list[list[str]]:
        """The cells as text, control characters written out."""
        columns = [
            _cells(column, [row[place] for row in self.rows]) for place, column in enumerate(self._columns())
        ]  # fmt: skip
        return [list(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Watched(Table):
    """A table that can be looked at again when something has happened."""

    again: Callable[[], Watched] = field(default=lambda: NOBODY, compare=False)
    kinds: tuple[str, ...] = ()
    """Of which events: docker's Type."""

    __repr__ = Table.__repr__


NOBODY: Watched = Watched((), ())


def _drawn(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[str]:
    wide = [[_width(text) for text in row] for row in cells]
    most = [max(column) for column in zip(*wide, strict=True)]
    to_the_right = [column.look == "num" for column in columns]
    drawn = []
    for row, widths in zip(cells, wide, strict=True):
        parts = [
            " " * (width - own) + text if is_right else text + " " * (width - own)
            for text, own, width, is_right in zip(row, widths, most, to_the_right, strict=True)
        ]
        drawn.append("  ".join(parts).rstrip())
    return drawn


def _with_some_below(columns: Sequence[Column], cells: Sequence[Sequence[str]], kept: int, width: int) -> list[str]:
    """The first `kept` columns as ever; the others, where they say something, in lines of their own."""
    lines = _drawn(columns[:kept], [row[:kept] for row in cells])
    # All of them are as wide as the widest, before the last.
    indent = " " * sum(max(_width(row[i]) for row in cells) + 2 for i in range(kept - 1))
    drawn = lines[:1]
    for line, row in zip(lines[1:], cells[1:], strict=True):
        drawn += _wrapped(line, width, indent)
        for column, text in zip(columns[kept:], row[kept:], strict=True):
            if text:
                drawn += _wrapped(f"{indent}{column.title.lower()}: {text}", width, f"{indent}  ")
    return drawn


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of that width, but for words that are longer: they may be paths, or to be copied."""
    import textwrap

    room = max(width, len(indent) + _NARROWEST)
    return textwrap.wrap(
        text, room, subsequent_indent=indent, expand_tabs=False, replace_whitespace=False,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _cells(column: Column, values: Sequence[Any]) -> list[str]:
    show = column.show
    if column.look == "graph":
        most = max((float(value or 0) for value in values if not isinstance(value, str)), default=0.0)
        return [visible(show(value)) if isinstance(value, str) else words.bar(float(value or 0), most)
                for value in values]  # fmt: skip
    return [visible("" if value is None else show(value)) for value in values]


def _key(title: str) -> str:
    return title.lower().replace(" ", "_")


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
