"""Static HTML as pure functions: what is saved in a notebook, and what a live card is filled with.

Every leaf of text goes through `escape`; class names come from closed sets; there is no script, no
link but to a published port, and no inline style but a number. The words are there without the style
sheet too, since GitHub and untrusted notebooks drop it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from nbcontain.display import words
from nbcontain.display.ansi import Line
from nbcontain.display.assets import text_of
from nbcontain.display.harmless import visible
from nbcontain.values import dataclass

GLYPHS = {
    "waiting": "○",
    "running": "▶",
    "up": "●",
    "paused": "‖",
    "done": "✓",
    "cached": "◆",
    "failed": "✗",
    "cancelled": "■",
    "lost": "?",
    "gone": "–",
}
"""The looks of a state: "up" is a container that runs, "running" is work that will end."""


_MARKS = {"+": "nbc-added", "~": "nbc-changed", "−": "nbc-removed"}
_ROOT = "nbc mathjax_ignore tex2jax_ignore"
"""The outermost class; without the others Jupyter would typeset what stands between two $ of a shell line."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One thing drawn whole: what a card shows, live or saved, and the same in plain text."""

    label: str
    """For assistive technology, and the title of the card's group."""
    head: str
    """HTML: state, name, figures."""
    meters: str = ""
    """HTML: what it uses just now, which changes more often than the rest."""
    body: str = ""
    """HTML: facts, steps, notices."""
    log: tuple[Line, ...] = ()
    log_label: str = ""
    hidden_lines: int = 0
    whole_log: str = ""
    """How to see all lines, for people."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """A button. `confirm` is what it says instead after a first press, before it acts."""

    id: str
    label: str
    about: str = ""
    """What it acts on, for its accessible name."""
    enabled: bool = True
    confirm: str = ""
    command: str = ""
    """What one would type to do the same."""


@dataclass(frozen=True, slots=True)
class Drawer:
    """What a card shows below itself because somebody asked for it; one without a title is closed."""

    title: str = ""
    html: str = ""
    model_id: str = ""
    """A widget that is shown in it."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A live card as it is now."""

    picture: Picture
    actions: Sequence[Action] = ()
    log: Sequence[Line] = ()
    """The last lines, more than the picture saves."""
    log_end: int = 0
    """How many there were in all."""
    begun: Sequence[Line] = ()
    """Lines that may still change."""
    drawer: Drawer = Drawer()
    command: str = ""
    """What one would type to see the same."""
    still: Callable[[], Picture] | None = None
    """Draws it as it is saved, where that is something else."""

    @property
    def saved(self) -> Picture:
        """As it is saved."""
        return self.still() if self.still is not None else self.picture


@dataclass(frozen=True, slots=True)
class Since:
    """A time that passes: the page of a live card counts on by itself, a saved one keeps what is said here."""

    at: float
    """Seconds since the epoch, by this machine's clock."""
    now: float
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.prefix}{words.duration(max(0.0, self.now - self.at))}"

    def html(self) -> str:
        """As HTML; what stands in the inner element changes by itself."""
        counted = words.duration(max(0.0, self.now - self.at))
        return escape(self.prefix) + element("span", counted, "nbc-since", data_since=f"{self.at:.3f}")


def escape(text: object) -> str:
    """Text as HTML: control and reordering characters written out, markup made inert, quotes too."""
    return html.escape(visible(str(text)), quote=True)


def element(tag: str, content: str, classes: str = "", **attributes: str) -> str:
    """An element around HTML; attribute values are escaped, `_` in their names becomes `-`."""
    pairs = {"class": classes, **{name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}}
    drawn = "".join(f' {name}="{escape(value)}"' for name, value in pairs.items() if value)
    return f"<{tag}{drawn}>{content}</{tag}>"


def card(picture: Picture, with_style: bool = True) -> str:
    """The whole card, as it is saved."""
    parts = [element("div", element("div", picture.head, "nbc-head"), "nbc-top")]
    if picture.meters:
        parts.append(picture.meters)
    if picture.body:
        parts.append(element("div", picture.body, "nbc-body"))
    if picture.log:
        parts.append(log(picture))
    inside = "\n".join(parts)
    sheet = style(inside) + "\n" if with_style else ""
    return element("div", f"\n{sheet}{inside}\n", _ROOT, role="group", aria_label=picture.label)


def heading(state: str, word: str, title: str, about: Sequence[str | Since]) -> str:
    """The first line of a card: how it is, unless there is no word for it, what it is, and its figures."""
    parts = [state_mark(state, word)] if word else []
    parts.append(element("strong", escape(title), "nbc-title"))
    said = [fact.html() if isinstance(fact, Since) else escape(fact) for fact in about if fact]
    if said:
        parts.append(element("span", " · ".join(said), "nbc-about"))
    return " ".join(parts)


def state_mark(state: str, word: str, tag: str = "span") -> str:
    """A glyph of its own and the word: colour only repeats what they say."""
    known = state if state in GLYPHS else "lost"
    glyph = element("span", GLYPHS[known], "nbc-glyph", aria_hidden="true")
    return element(tag, glyph + element("span", escape(word), "nbc-word"), f"nbc-state nbc-is-{known}")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Small print: "id 3f2a… · pid 48213"; nothing for empty values."""
    drawn = [
        element("span", f"{escape(name)} {element('b', escape(value))}", "nbc-danger" if name == "privileged" else "")
        for name, value in pairs
        if value
    ]
    return element("div", " ".join(drawn), "nbc-facts") if drawn else ""


def notes(messages: Sequence[str], endings: Sequence[str] = ()) -> str:
    """Notices, one a line: first why it ended, which nobody is to miss."""
    if not messages and not endings:
        return ""
    items = "".join(element("li", escape(text), "nbc-ending") for text in endings)
    items += "".join(element("li", escape(text)) for text in messages)
    return element("ul", items, "nbc-notes")


def progress(done: float, total: float) -> str:
    """A hairline that fills; the figures are in the heading."""
    percent = round(100 * min(1.0, done / total)) if total > 0 else 0
    return f'<div class="nbc-bar" aria-hidden="true"><span style="width:{percent}%"></span></div>'


def lines(shown: Iterable[Line], state: str = "", *, is_log: bool = False) -> str:
    """Output as preformatted text with its colours; in a log, with a bar beside what came by standard error."""
    drawn = "\n".join(line(one, is_marked=is_log and one.source == "stderr") for one in shown)
    return element("pre", drawn, "nbc-lines nbc-in-failed" if state == "failed" else "nbc-lines")


def line(shown: Line, *, is_marked: bool = False) -> str:
    """One line: runs with classes out of a closed set."""
    drawn = "".join(
        element("span", _output(run.text), run.style.classes) if run.style.classes else _output(run.text)
        for run in shown.runs
    )
    if is_marked:
        return element("span", drawn, "nbc-err")
    return element("span", drawn, "nbc-note") if shown.source == "note" else drawn


def log(picture: Picture) -> str:
    """The last lines of what a program said, in a region that can be scrolled and found."""
    shown = lines(picture.log, is_log=True)
    if picture.hidden_lines:
        more = f"… {words.count(picture.hidden_lines, 'earlier line')}"
        more += f" · {picture.whole_log}" if picture.whole_log else ""
        # The box is drawn from its end, so that a saved log is seen there first: what stands above comes last.
        shown += element("div", escape(more), "nbc-more")
    label = picture.log_label or f"output of {picture.label}"
    return element("div", shown, "nbc-log nbc-still", role="log", aria_label=label, aria_live="off", tabindex="0")


def table(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    footer: str = "",
    label: str = "",
    title: str = "",
    command: str = "",
) -> str:
    """A real table. A column is its title and a look: "", "num", "code", "words", "wide", "tree", "mark" or "graph"."""
    titles = "".join(element("th", escape(title), _look(look), scope="col") for title, look in columns)
    drawn = []
    for row in rows:
        looks = [(text, _look(look, text)) for text, (_, look) in zip(row, columns, strict=True)]
        cells = [element("th", escape(text), look, scope="row") for text, look in looks[:1]]
        cells += [element("td", _bar(text) if look == "nbc-graph" else escape(text), look) for text, look in looks[1:]]
        drawn.append(element("tr", "".join(cells)))
    inside = element("thead", element("tr", titles)) + "\n" + element("tbody", "\n".join(drawn))
    scroll = element("div", element("table", inside, "nbc-table"), "nbc-scroll", tabindex="0", role="region",
                     aria_label=label or title or footer or "table")  # fmt: skip
    typed = " " + element("code", escape(f"≡ {command}"), "nbc-typed") if command else ""
    foot = element("div", element("span", escape(footer)) + typed, "nbc-foot") if footer or typed else ""
    head = element("div", element("strong", escape(title), "nbc-title"), "nbc-top") if title else ""
    return element("div", f"\n{style(scroll + foot)}\n{head}{scroll}{foot}\n", _ROOT)


def framed(inside: str, label: str) -> str:
    """HTML of ours in a frame of its own, with the style it needs."""
    return element("div", f"\n{style(inside)}\n{inside}\n", _ROOT, role="group", aria_label=label)


def opening(tag: str, content: str, *, is_open: bool, classes: str = "") -> str:
    """An element that opens on a click, without a script: details."""
    looks = f' class="{classes}"' if classes else ""
    return f"<{tag}{looks}{' open' * is_open}>{content}</{tag}>"


def style(content: str) -> str:
    """The parts of the style sheet that this HTML uses, so that a notebook full of cards stays small."""
    sections = _sections()
    wanted = ["base"]
    wanted += [part for part in ("state", "facts", "foot") if f"nbc-{part}" in content]
    if re.search("nbc-(graph|tree|mark|added|changed|removed)", content):
        wanted.append("marks")
    if re.search("nbc-(notes|hints|finding)", content):
        wanted.append("notes")
    if "nbc-steps" in content:
        wanted.append("steps")
    if "nbc-lines" in content:
        wanted.append("log")
    if re.search(r"nbc-(fg|bg|bold|dim|italic|underline|strike|inverse)", content):
        wanted.append("color")
    if "nbc-meter" in content or "nbc-spark" in content:
        wanted.append("meters")
    if "nbc-table" in content:
        wanted.append("table")
    if "nbc-net" in content:
        wanted.append("networks")
    if "nbc-files" in content:
        wanted.append("files")
    if "nbc-choices" in content:
        wanted.append("choices")
    if "nbx-layers" in content:
        wanted.append("layers")
    if "nbx-section" in content:
        wanted.append("sides")
    return element("style", "".join(sections[name] for name in wanted))


@cache
def style_sheet(name: str = "style.css") -> str:
    """A whole style sheet, for what is live: that of all cards, or what those that look inside have besides."""
    return _squeezed(text_of(name))


@cache
def _sections() -> dict[str, str]:
    """The style sheets cut at their `/*# name */` marks, without needless blanks."""
    _, *parts = re.split(r"/\*# (\w+) \*/", text_of("style.css") + text_of("looking.css"))
    return dict(zip(parts[0::2], map(_squeezed, parts[1::2]), strict=True))


def _squeezed(sheet: str) -> str:
    """A style sheet without comments and needless blanks."""
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"\s*([{};,])\s*", r"\1", sheet)).strip()


def _look(look: str, text: str = "") -> str:
    if look == "mark" and text in _MARKS:
        return f"nbc-mark {_MARKS[text]}"
    return f"nbc-{look}" if look in ("num", "code", "words", "wide", "graph", "tree", "mark") else ""


def _bar(text: str) -> str:
    """A bar repeats what a figure beside it says: it is there for the eyes alone."""
    return element("span", escape(text), aria_hidden="true") if text else ""


def _output(text: str) -> str:
    """A run's text is clean already (tabs stay)."""
    return html.escape(text, quote=True)
