"""Journals and their pictures as files: corpus/views/NAME/{events.jsonl, text.txt, view.html}.

With NBCONTAIN_WRITE_CORPUS=1 the pictures are written instead of compared; read the difference before committing it.
"""

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nbcontain.display.html import Picture, card
from nbcontain.display.pictures import ContainerFacts, container_picture, steps_picture
from nbcontain.display.text import lines
from nbcontain.display.view import View, update
from nbcontain.events import Record, decode

CORPUS = Path(__file__).parent.parent / "corpus" / "views"
NAMES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
TAGS = {"div", "span", "strong", "b", "pre", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "style",
        "svg", "polyline", "polygon", "a", "details", "summary"}  # fmt: skip
ATTRIBUTES = {"class", "role", "scope", "colspan", "tabindex", "style", "aria-label", "aria-hidden", "aria-live",
              "data-since", "viewbox", "width", "height", "preserveaspectratio", "points",
              "href", "target", "rel"}  # fmt: skip


def records(name: str) -> list[Record]:
    return [decode(line) for line in (CORPUS / name / "events.jsonl").read_bytes().splitlines()]


def folded(name: str) -> tuple[View, list[str]]:
    view, text = View(), []
    for record in records(name):
        view = update(view, record)
        text += lines(view, record)
    return view, text


def picture(name: str) -> Picture:
    view, _ = folded(name)
    root = view.root()
    assert root is not None
    if view.children(root.task):
        return steps_picture(view, view.time)
    status = "exited" if root.is_finished else "running"
    return container_picture(ContainerFacts(root.task, root.name, "hello:latest", status, 4711), view, view.time)


def compare(path: Path, drawn: str) -> None:
    if os.environ.get("NBCONTAIN_WRITE_CORPUS"):
        path.write_text(drawn, "utf-8")
    assert drawn == path.read_text("utf-8")


class Checker(HTMLParser):
    """Fails at anything that a picture must not contain."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_text_is_as_written(name: str) -> None:
    compare(CORPUS / name / "text.txt", "\n".join(folded(name)[1]) + "\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_html_is_as_written(name: str) -> None:
    compare(CORPUS / name / "view.html", card(picture(name), with_style=False) + "\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_html_holds_nothing_that_could_act(name: str) -> None:
    checker = Checker()
    checker.feed(card(picture(name)))
    assert checker.open == []
