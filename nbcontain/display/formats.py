"""What docker's --format makes of rows: `table {{.ID}}\\t{{.Size}}`, `json`, or a template for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nbcontain.display.harmless import visible
from nbcontain.display.template import Template
from nbcontain.display.template_functions import FUNCTIONS, Method
from nbcontain.display.values import Lines
from nbcontain.display.words import DECIMAL, scaled
from nbcontain.errors import UsageError
from nbcontain.values import dataclass

Row = Mapping[str, object]
_MIN_WIDTH, _PADDING = 10, 3


@dataclass(frozen=True, slots=True)
class Format:
    """A --format that was understood; "" and "table" mean the command's own table."""

    template: Template | None
    is_table: bool

    @classmethod
    def parse(cls, text: str) -> Format:
        """Raises UsageError."""
        text = text.strip(" ")
        is_table = text == "table" or text.startswith(("table ", "table{", "table\\t"))
        if is_table:
            text = text.removeprefix("table").strip(" ")
        if text == "json":
            return cls(Template.parse("{{json .}}"), False)
        if text == "raw":
            raise UsageError("--format raw is not here", hint="--format json, or a template")
        if not text:
            return cls(None, True)
        # A shell hands "\t" on as two characters; docker takes them for one.
        return cls(Template.parse(text.replace("\\t", "\t").replace("\\n", "\n")), is_table)

    def asks(self, name: str) -> bool:
        """Whether a field is wanted, so that what is dear to find out is found out only then."""
        return self.template is not None and (name in self.template.fields() or "{{json .}}" in self.template.text)

    def asks_any(self, *names: str) -> bool:
        return any(map(self.asks, names))

    def of(self, rows: Sequence[Row], titles: Mapping[str, str], label: str = "") -> Lines | Columns:
        """The rows as this format draws them. Raises UsageError for a field that they do not have."""
        template = self.template
        assert template is not None, "the command draws its own table"
        drawn = [template.render(row) for row in rows]
        if not self.is_table:
            return Lines(tuple(drawn))
        return Columns((_titled(template, titles), *drawn), label)


@dataclass(frozen=True, slots=True)
class Columns:
    """Lines whose tabs part columns; the first line has the titles. Drawn as docker's table, and as HTML."""

    lines: tuple[str, ...]
    label: str = ""

    def text(self) -> str:
        """As docker aligns it (text/tabwriter): at least 10 wide, 3 blanks apart."""
        cells = [line.split("\t") for line in "\n".join(self.lines).split("\n")]
        widths: list[list[int]] = [[0] * (len(row) - 1) for row in cells]
        for column in range(max(len(row) for row in cells)):
            start = 0
            while start < len(cells):
                # A column ends at a line that has not so many cells.
                end = start
                while end < len(cells) and len(cells[end]) - 1 > column:
                    end += 1
                widest = max((len(visible(row[column])) for row in cells[start:end]), default=0)
                for row in widths[start:end]:
                    row[column] = max(_MIN_WIDTH, widest + _PADDING)
                start = end + 1
        return "\n".join(
            "".join(visible(cell).ljust(width) for cell, width in zip(row, [*sizes, 0], strict=True))
            for row, sizes in zip(cells, widths, strict=True)
        )

    def html(self) -> str:
        """A real table, if every line has as many cells as the first."""
        from nbcontain.display import html

        titles, *rows = [line.split("\t") for line in self.lines]
        if any(len(row) != len(titles) for row in rows):
            return html.element("pre", html.escape(self.text()))
        return html.table([(title, "") for title in titles], rows, "", self.label)

    def records(self) -> list[dict[str, str]]:
        """A dictionary per line; keys are the titles in lower case."""
        titles, *rows = [line.split("\t") for line in self.lines]
        keys = [title.strip().lower().replace(" ", "_") for title in titles]
        return [dict(zip(keys, row, strict=False)) for row in rows]

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def _titled(template: Template, titles: Mapping[str, str]) -> str:
    """The template's first line: every field its title, and functions do nothing to titles."""
    row: dict[str, object] = {name: Method(lambda *given, name=name: given[0] if given else name) if name == "Label"
                              else title for name, title in titles.items()}  # fmt: skip
    kept: dict[str, Callable[..., object]] = {
        name: lambda value, *rest: value for name in ("json", "title", "lower", "upper", "truncate", "split", "pad")
    }
    kept["join"] = lambda value, *rest: value
    return template.render(row, {**FUNCTIONS, **kept})


def timestamp_shown(created: str) -> str:
    """A time as docker's CreatedAt: "2024-05-01 12:00:00 +0000 UTC", in the zone that is set here."""
    from datetime import datetime

    try:
        then = datetime.fromisoformat(created.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return created
    return f"{then:%Y-%m-%d %H:%M:%S %z} {then.tzname()}"


def since(created: str, now: float | None = None) -> str:
    """How long ago, in docker's very words: "About an hour ago"."""
    import time
    from datetime import datetime

    try:
        then = datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return "N/A"
    return f"{lasting((time.time() if now is None else now) - then)} ago"


def lasting(seconds: float) -> str:
    """go-units' HumanDuration."""
    whole = int(max(seconds, 0.0))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def size_shown(size_bytes: int, digits: int = 3) -> str:
    """go-units' HumanSize: "4.26MB", without a blank; docker's containers have four digits where images have three."""
    value, unit = scaled(size_bytes, (*DECIMAL, "PB", "EB", "ZB", "YB"), 1000, 1000)
    return f"{value:.{digits}g}{unit}"


def shortened(text: str, length: int) -> str:
    """docker's Ellipsis: no longer than `length`, the last character a … if something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"
