"""BuildKit's warnings and our hints while something is built: told apart, and the hints out of the way."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.display import text
from nbcontain.display.pictures import steps_picture
from nbcontain.display.view import View, update
from nbcontain.events import Event, Finished, Notice, Record, Started

HINT = Notice("build", "UnpinnedTag: <i>x has no tag (line 1)", "Name one.", "hint")
EVENTS: Sequence[Event] = (
    Started("build", "build x"),
    Notice("build", "plain"),
    *(Notice("build", f"Rule{number}: careful (line {number})", "Do.", "warning") for number in range(1, 8)),
    HINT,
    Notice("build", "RootAtEnd: the last stage has no USER (line 9)", "", "hint"),
    Started("step-1", "RUN true", "build"),
    Finished("step-1", "done"),
    Finished("build", "done"),
)


def folded(events: Sequence[Event]) -> tuple[View, list[str]]:
    view, lines = View(), []
    for number, event in enumerate(events):
        record = Record(float(number), event)
        view = update(view, record)
        lines += text.lines(view, record)
    return view, lines


def test_a_card_shows_every_warning_and_folds_the_hints_away() -> None:
    view, _ = folded(EVENTS)
    picture = steps_picture(view, 99.0)
    shown, _, hidden = picture.body.partition("<details")
    assert all(f"Rule{number}:" in shown for number in range(1, 8)) and "plain" in shown
    assert "UnpinnedTag" not in shown and "&lt;i&gt;x has no tag" in hidden and "<i>" not in hidden
    assert "2 hints" in hidden and " open" not in hidden.partition(">")[0]


def test_the_cards_text_names_them() -> None:
    view, _ = folded(EVENTS)
    said = steps_picture(view, 99.0).text
    assert "warning: Rule1: careful (line 1) – try: Do." in said
    assert said.endswith("2 hints: UnpinnedTag (line 1), RootAtEnd (line 9)")


def test_a_terminal_has_warnings_at_the_end_and_only_counts_hints() -> None:
    _, lines = folded(EVENTS)
    assert lines[0] == "note: plain"
    at = lines.index("7 warnings found:")
    assert lines[at + 1 : at + 3] == [" - Rule1: careful (line 1)", "   try: Do."]
    assert at > lines.index("#1 DONE 1.0s")
    assert "2 hints for this Dockerfile: build --check shows what could be better" in lines
    assert not any("UnpinnedTag" in line for line in lines)
