"""What a program wrote, made harmless: bytes to lines of styled runs.

Of ECMA-48 only SGR (colours, bold …) and "erase to the end of the line" mean anything here, beside
carriage return, backspace and tab; every other control function and character is dropped. Characters
that reorder text (Trojan Source) are written out. Nothing is ever interpreted beyond one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from nbcontain.display.harmless import LINE_CHARACTERS, SUSPECT, TOKEN, pattern, written_out
from nbcontain.values import dataclass

_REST_BYTES = 4 * LINE_CHARACTERS + 4
"""An unfinished line that grows over this is cut at once; a character has at most four bytes."""
_UNFINISHED = (
    r"(?:(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n\r]{0,4096}\x1b?"
    r"|\x1b[ -/]{0,8})\Z"
)


class Style(NamedTuple):
    """How a run of text looks; colours are 0 to 15, or -1 for the page's own."""

    foreground: int = -1
    background: int = -1
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False
    inverse: bool = False

    @property
    def classes(self) -> str:
        """Class names out of a closed set, blank between them."""
        names = [f"nbc-{name}" for name in ("bold", "dim", "italic", "underline", "strike", "inverse")
                 if getattr(self, name)]  # fmt: skip
        if self.foreground >= 0:
            names.append(f"nbc-fg{self.foreground}")
        if self.background >= 0:
            names.append(f"nbc-bg{self.background}")
        return " ".join(names)


PLAIN = Style()


class Run(NamedTuple):
    """Characters that look the same: printable ones and tabs only."""

    text: str
    style: Style = PLAIN


class Line(NamedTuple):
    """A line of output; `source` is the stream, or "note" for a line of ours."""

    runs: tuple[Run, ...]
    source: str = "stdout"

    @property
    def text(self) -> str:
        """Its characters without their looks."""
        return "".join(run.text for run in self.runs)


@dataclass(frozen=True, slots=True)
class Pen:
    """Where one stream stands: the bytes of its unfinished line, and the style that holds."""

    rest: bytes = b""
    style: Style = PLAIN
    is_cut: bool = False
    """The unfinished line was cut already: what follows until its end is dropped."""


def write(pen: Pen, data: bytes, source: str = "stdout") -> tuple[Pen, tuple[Line, ...]]:
    """The pen after `data`, and the lines that it completed."""
    *complete, rest = (pen.rest + data).split(b"\n")
    style, is_cut = pen.style, pen.is_cut
    lines = []
    for raw in complete:
        if is_cut:
            is_cut = False
            continue
        runs, style = settle(raw.decode("utf-8", "replace"), style)
        lines.append(Line(runs, source))
    if is_cut:
        rest = b""
    elif len(rest) > _REST_BYTES:
        # A progress display that never ends its line: only what its last returns drew matters.
        rest = rest[max(0, rest.rfind(b"\r", 0, len(rest) - 1)) :]
        if len(rest) > _REST_BYTES:
            runs, style = settle(rest.decode("utf-8", "replace"), style)
            lines.append(Line(runs, source))
            rest, is_cut = b"", True
    return Pen(rest, style, is_cut), tuple(lines)


def unfinished(pen: Pen, source: str = "stdout") -> Line | None:
    """The line that was begun and not ended, as it looks now."""
    if not pen.rest:
        return None
    runs, _ = settle(pen.rest.decode("utf-8", "replace"), pen.style)
    return Line(runs, source) if runs else None


def settle(text: str, style: Style = PLAIN) -> tuple[tuple[Run, ...], Style]:
    """One line as it stands when all its control functions were carried out, and the style after it."""
    if not pattern(SUSPECT).search(text):
        cut = text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + "…"
        return ((Run(cut, style),) if cut else ()), style
    cells: list[tuple[str, Style]] = []
    column = 0
    for piece in _pieces(text[: 4 * LINE_CHARACTERS].rstrip("\r")):
        match piece:
            case str():
                column = _place(cells, column, piece, style)
            case ("sgr", parameters):
                style = restyled(style, parameters)
            case ("return", _):
                column = 0
            case ("back", _):
                column = max(0, column - 1)
            case ("erase", _):
                del cells[column:]
    return _runs(cells, len(text) > 4 * LINE_CHARACTERS), style


def split_unfinished(text: str) -> tuple[str, str]:
    """Text up to a control function that is not whole yet, and that."""
    start = max(text.rfind("\x1b", max(0, len(text) - 4200)), text.rfind("\x9b", max(0, len(text) - 80)))
    if start < 0:
        return text, ""
    # A string's terminator begins with ESC itself: then the function began before.
    earlier = text.rfind("\x1b", max(0, start - 4200), start) if text[start:] == "\x1b" else -1
    if earlier >= 0 and pattern(_UNFINISHED).match(text, earlier):
        return text[:earlier], text[earlier:]
    return (text[:start], text[start:]) if pattern(_UNFINISHED).match(text, start) else (text, "")


# --- SGR (ECMA-48 8.3.117) --------------------------------------------------------------------


def restyled(style: Style, parameters: str) -> Style:
    """`style` after SGR with these parameters; what is unknown changes nothing."""
    codes = [int(code) if code.isascii() and code.isdigit() else 0 for code in parameters.replace(":", ";").split(";")]
    position = 0
    while position < len(codes):
        code = codes[position]
        position += 1
        if code in (38, 48):
            color, used = _extended(codes[position:])
            position += used
            style = style._replace(foreground=color) if code == 38 else style._replace(background=color)
        else:
            style = _simple(style, code)
    return style


_SWITCHES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}


def _simple(style: Style, code: int) -> Style:
    match code:
        case 0:
            return PLAIN
        case 1 | 2 | 3 | 4 | 7 | 9:
            return _switched(style, _SWITCHES[code], True)
        case 22:
            return style._replace(bold=False, dim=False)
        case 23 | 24 | 27 | 29:
            return _switched(style, _SWITCHES[code - 20], False)
        case 39:
            return style._replace(foreground=-1)
        case 49:
            return style._replace(background=-1)
        case _ if 30 <= code <= 37:
            return style._replace(foreground=code - 30)
        case _ if 40 <= code <= 47:
            return style._replace(background=code - 40)
        case _ if 90 <= code <= 97:
            return style._replace(foreground=code - 82)
        case _ if 100 <= code <= 107:
            return style._replace(background=code - 92)
    return style


def _switched(style: Style, name: str, is_on: bool) -> Style:
    return Style(**{**style._asdict(), name: is_on})


def _extended(codes: list[int]) -> tuple[int, int]:
    """The nearest of the sixteen colours to 5;N or 2;R;G;B, and how many codes that took."""
    if codes[:1] == [5] and len(codes) >= 2:
        return _of_256(min(codes[1], 255)), 2
    if codes[:1] == [2] and len(codes) >= 4:
        return _nearest(*(min(c, 255) for c in codes[1:4])), 4
    return -1, len(codes)


_PALETTE = (
    (0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170),
    (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255), (255, 85, 255), (85, 255, 255),
    (255, 255, 255),
)  # fmt: skip


def _of_256(index: int) -> int:
    if index < 16:
        return index
    if index >= 232:
        return _nearest(*(3 * [8 + 10 * (index - 232)]))
    steps = (0, 95, 135, 175, 215, 255)
    index -= 16
    return _nearest(steps[index // 36], steps[index // 6 % 6], steps[index % 6])


@lru_cache(maxsize=512)
def _nearest(red: int, green: int, blue: int) -> int:
    return min(
        range(16),
        key=lambda i: sum((a - b) ** 2 for a, b in zip(_PALETTE[i], (red, green, blue), strict=True)),
    )


# --- pieces and cells -------------------------------------------------------------------------


def _pieces(text: str) -> Iterator[str | tuple[str, str]]:
    """Printable text, and the few control functions that mean something."""
    position = 0
    for match in pattern(TOKEN).finditer(text):
        if match.start() > position:
            yield text[position : match.start()]
        position = match.end()
        if match["final"] == "m" and not set(match["parameters"]) & set("<=>?"):
            yield "sgr", match["parameters"]
        elif match["final"] == "K" and match["parameters"] in ("", "0"):
            yield "erase", ""
        elif match["final"] == "K" and match["parameters"] == "2":
            yield "return", ""
            yield "erase", ""
        elif match["control"] == "\r":
            yield "return", ""
        elif match["control"] == "\b":
            yield "back", ""
        elif match["control"] and (written := written_out(match["control"])):
            yield written
    if position < len(text):
        yield text[position:]


def _place(cells: list[tuple[str, Style]], column: int, text: str, style: Style) -> int:
    end = min(column + len(text), LINE_CHARACTERS + 1)
    cells[column:end] = [(character, style) for character in text[: end - column]]
    return end


def _runs(cells: list[tuple[str, Style]], is_longer: bool) -> tuple[Run, ...]:
    is_longer = is_longer or len(cells) > LINE_CHARACTERS
    runs: list[Run] = []
    begin = 0
    cells = cells[:LINE_CHARACTERS]
    for end in range(1, len(cells) + 1):
        if end == len(cells) or cells[end][1] != cells[begin][1]:
            runs.append(Run("".join(character for character, _ in cells[begin:end]), cells[begin][1]))
            begin = end
    if is_longer:
        runs.append(Run("…"))
    return tuple(runs)
