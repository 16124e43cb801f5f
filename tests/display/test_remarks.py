"""BuildKit's warnings and our hints while something is built: told apart, and the hints out of the way."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.display import text
from nbcontain.display.pictures import run_picture, steps_picture
from nbcontain.display.view import View, update
from nbcontain.events import Event, Finished, Notice, Output, Record, Started

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


def test_what_a_step_said_that_went_well_is_folded_away_and_bounded() -> None:
    said = [Output("step-1", "stdout", b"".join(b"line %d\n" % number for number in range(150)))]
    begun = [Started("build", "build x"), Started("step-1", "RUN make", "build"), *said, Finished("step-1", "done")]
    view, _ = folded(begun)
    body = steps_picture(view, 99.0).body  # which is sent again with each drawing
    assert "<details" in body and "line 130" in body and "line 129\n" not in body and "130 earlier lines" in body
    view, _ = folded([*begun, Finished("build", "done")])
    body = steps_picture(view, 99.0).body
    assert '<details class="nbc-output"><summary><span>RUN make</span> <span class="nbc-count">150 lines</span>' in body
    assert "line 149" in body and "line 50\n" in body and "line 49\n" not in body and "50 earlier lines" in body


def test_what_all_steps_said_together_is_no_more_than_a_saved_log() -> None:
    steps: list[Event] = []
    for name in ("step-1", "step-2", "step-3"):
        wide = Output(name, "stdout", b"x" * 400 + b"\n")
        steps += [Started(name, f"RUN {name}", "build"), *[wide] * 100, Finished(name, "done")]
    view, _ = folded([Started("build", "build x"), *steps, Finished("build", "done")])
    body = steps_picture(view, 99.0).body
    assert body.count("<details") == 2 and "<summary><span>RUN step-1" not in body
    assert body.count("x" * 400) == 65_536 // 400 and "37 earlier lines" in body
    live, _ = folded([Started("build", "build x"), *steps])
    body = steps_picture(live, 99.0).body
    assert body.count("x" * 400) == 10 and len(body) < 12_000 and "90 earlier lines" in body


def test_what_was_remarked_before_a_program_began_is_on_its_card() -> None:
    said = Notice("", "Published ports are discarded when using host network mode")
    program = Started("c", "web"), Output("c", "stdout", b"up"), Notice("c", "more"), Finished("c", "done")
    view = View()
    for time, event in enumerate((said, *program)):
        view = update(view, Record(float(time), event))
        assert run_picture(view, float(time)).body.count("are discarded") == 1
    assert "more" in run_picture(view, 9.0).body
