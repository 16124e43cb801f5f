"""Leaves are escaped, states are said in words, the style that travels is small."""

import json

from hypothesis import given
from hypothesis import strategies as st

from nbcontain.display.ansi import Pen, write
from nbcontain.display.html import Picture, card, escape, facts, heading, line, state_mark, style_sheet
from nbcontain.display.values import Document

EVIL = "<img src=x onerror=alert(1)>\"'</style>\u202e\x1b"


def test_names_are_inert() -> None:
    assert escape(EVIL) == "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&lt;/style&gt;\\u202e\\x1b"


@given(st.text())
def test_no_text_whatever_makes_markup(text: str) -> None:
    drawn = escape(text)
    assert not set(drawn) & set("<>\"'") and drawn.isprintable()


def test_output_is_inert_inside_its_colour() -> None:
    _, (shown,) = write(Pen(), b"\x1b[31m<script>alert(1)</script>\n")
    assert line(shown) == '<span class="nbc-fg1">&lt;script&gt;alert(1)&lt;/script&gt;</span>'


def test_a_state_is_a_word_and_a_sign_and_not_only_a_colour() -> None:
    assert state_mark("failed", "failed").count("failed") == 2
    assert "✗" in state_mark("failed", "failed")


def test_a_state_nobody_knows_does_not_become_a_class() -> None:
    assert "evil" not in state_mark('evil"', "")


def test_facts_without_a_value_are_left_out() -> None:
    assert "pid" not in facts([("id", "3f"), ("pid", "")])


def test_a_card_carries_only_the_style_it_uses() -> None:
    small = card(Picture("a", heading("done", "done", "a", ())))
    assert ".nbc-table" not in small and ".nbc-log" not in small and len(small) < 4000


def test_the_style_sheet_reaches_nothing_outside_of_cards() -> None:
    # What stands before a brace: the condition of a block, and each selector in it.
    opened = [word for part in style_sheet().replace("\n", " ").split("}") for word in part.split("{")[:-1]]
    selectors = [each.split("*/")[-1].strip() for each in opened]
    outside = [each for each in selectors if ".nbc" not in each and not each.startswith(("@container", "@media", "--"))]
    assert outside == []
    assert "url(" not in style_sheet() and "@import" not in style_sheet()


def test_a_document_that_people_read_has_nothing_in_it_that_they_would_not_see() -> None:
    value = {"a": ["\u202eevil\x9b2J\x7f", "käse 日本"], "b": "\ud800"}
    text = Document(value).text()
    assert text.replace("\n", "").isprintable() and "käse 日本" in text
    assert json.loads(text) == value
