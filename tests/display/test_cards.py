"""Cards in a shell without a front end: what is published, what travels, what buttons do."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journals import FakeContainer, endless, told
from machine import until
from nbcontain.display import live, surface
from nbcontain.display.ansi import Line, Run
from nbcontain.display.board import Board, show_board
from nbcontain.display.buttons import RUNNING, Button
from nbcontain.display.html import Action, Drawn, Picture
from nbcontain.display.live import Surroundings, show_container
from nbcontain.display.present import Mode, beginning, present
from nbcontain.display.surface import Place
from nbcontain.display.ticker import Ticker
from nbcontain.errors import Interrupted, InUse
from nbcontain.events import Finished, Notice, Output, Started
from nbcontain.task import Task

pytest.importorskip("anywidget")
WIDGET = "application/vnd.jupyter.widget-view+json"


class Handle:
    """A display that remembers what it shows."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.bundles = [bundle]

    def update(self, bundle: dict[str, Any], raw: bool) -> None:
        self.bundles.append(bundle)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Handle]]:
    """What was published, in order."""
    handles: list[Handle] = []

    def publish(bundle: dict[str, Any]) -> Handle:
        handles.append(Handle(bundle))
        return handles[-1]

    monkeypatch.setattr(surface, "display", publish)
    monkeypatch.setattr(live, "_GRACE_S", 0.2)
    yield handles


def line(text: str) -> Line:
    return Line((Run(text),))


def test_what_is_over_at_once_never_was_a_widget(outputs: list[Handle]) -> None:
    present(told([Started("c", "web"), Finished("c", "done", exit_code=0)]), "run", mode="card")
    (output,) = outputs
    assert [sorted(bundle) for bundle in output.bundles] == [["text/html", "text/plain"]]
    assert "exited 0" in output.bundles[0]["text/plain"]


def test_what_takes_longer_is_a_widget_and_ends_as_a_snapshot(outputs: list[Handle]) -> None:
    task = endless([Started("c", "web"), Output("c", "stdout", b"hi\n")])
    stopper = threading.Timer(0.6, task.cancel)
    stopper.start()
    with pytest.raises(Interrupted):
        present(task, "run", mode="card")
    (output,) = outputs
    assert WIDGET in output.bundles[0] and WIDGET not in output.bundles[-1]
    assert "interrupted" in output.bundles[-1]["text/plain"]


@pytest.mark.parametrize("last", [Finished("c", "cancelled"), Finished("c", "failed", exit_code=137)])
def test_what_somebody_interrupts_is_called_so_however_it_ended(outputs: list[Handle], last: Finished) -> None:
    ended = threading.Event()

    def body(emit):  # type: ignore[no-untyped-def]
        emit(Started("c", "web"))
        ended.wait(20)
        emit(last)

    task = Task("run", body)
    task.on_cancel(ended.set)
    threading.Timer(0.3, task.cancel).start()
    with pytest.raises(Interrupted):
        present(task, "run", mode="html")
    assert outputs[0].bundles[-1]["text/plain"].startswith("interrupted web")


def test_a_task_that_fails_before_it_says_anything_leaves_no_card(outputs: list[Handle]) -> None:
    present(told([]), "build", mode="card")
    assert outputs == []


def test_a_card_stands_there_before_anything_is_known_and_becomes_what_it_shows(outputs: list[Handle]) -> None:
    task = endless()
    shown = threading.Timer(0.4, task.cancel)
    shown.start()
    with pytest.raises(Interrupted):
        present(task, "run", mode="card", title="<b>web", place=Place())
    (output,) = outputs
    first, last = output.bundles
    assert WIDGET not in first and "starting &lt;b&gt;web" in re.sub(r"<[^>]+>", "", first["text/html"])[-40:]
    assert last["text/plain"].startswith("interrupted")


def test_the_place_of_a_run_is_its_cards_and_of_what_failed_says_so(outputs: list[Handle]) -> None:
    present(told([Started("c", "web"), Finished("c", "done", exit_code=0)]), "run", mode="card", place=Place())
    assert ["exited 0" in bundle["text/plain"] for bundle in outputs[0].bundles] == [False, True]

    def body(emit):  # type: ignore[no-untyped-def]
        raise InUse("no")

    with pytest.raises(InUse):
        present(Task("run box", body), "run", mode="card", place=Place())
    assert [bundle["text/plain"] for bundle in outputs[1].bundles] == ["starting box", "failed box"]


def test_what_begins_is_called_by_its_name_and_by_what_it_is_of(outputs: list[Handle]) -> None:
    def body(emit):  # type: ignore[no-untyped-def]
        raise InUse("no")

    with pytest.raises(InUse):
        present(Task("run box", body), "run", mode="card", place=Place(begins=("we\nb", "box")))
    assert [bundle["text/plain"] for bundle in outputs[0].bundles] == ["starting we b box", "failed we b box"]


def test_what_is_said_before_anything_is_done_is_said_once_and_becomes_the_rest(outputs: list[Handle]) -> None:
    place = Place()
    with beginning(place, ("web", "box")):
        assert [bundle["text/plain"] for bundle in outputs[0].bundles] == ["starting web box"]
    present(told([]), "run", mode="card", place=place)
    show_container(FakeContainer(), Surroundings(), mode="card", place=place)
    assert len(outputs) == 1 and WIDGET in outputs[0].bundles[-1]


def test_what_cannot_even_begin_says_that_it_failed(outputs: list[Handle]) -> None:
    with pytest.raises(InUse), beginning(Place(), ("web", "box")):
        raise InUse("no")
    assert [bundle["text/plain"] for bundle in outputs[0].bundles] == ["starting web box", "failed web box"]
    with beginning(Place(), None):
        pass
    assert len(outputs) == 1


@pytest.mark.parametrize("mode", ["card", "html"])
def test_the_first_picture_of_what_has_ended_is_how_it_ended(outputs: list[Handle], mode: Mode) -> None:
    container = FakeContainer("bad")
    container.say(b"going wrong\n")
    container.end(3)
    show_container(container, Surroundings(), mode=mode)
    first = outputs[0].bundles[0]
    assert first["text/plain"].startswith("exited 3 bad") and "going wrong" in first["text/plain"]
    assert 'class="nbc-state nbc-is-failed"' in first["text/html"] and "going wrong" in first["text/html"]


def test_the_first_picture_of_what_runs_has_what_it_said_so_far(outputs: list[Handle]) -> None:
    container = FakeContainer()
    container.say(b"one\ntwo\n")
    show_container(container, Surroundings(), mode="html")
    assert "running web" in outputs[0].bundles[0]["text/plain"]
    container.end()
    until(lambda: "two" in outputs[0].bundles[-1]["text/plain"])
    assert outputs[0].bundles[-1]["text/html"].count("two") == 1


def test_what_no_memory_was_left_for_says_so_before_all_else(outputs: list[Handle]) -> None:
    container = FakeContainer("hog")
    container.oom_killed, container.memory_peak = True, 4 << 20
    container.journal.append(Notice(container.id, "there was no memory left", "more", "ending"))
    container.end(137)
    show_container(container, Surroundings(memory_limit=lambda: 50 << 20), mode="html")
    text, html = (outputs[0].bundles[0][kind] for kind in ("text/plain", "text/html"))
    assert text.startswith("exited 137, out of memory hog")
    assert "memory at most 50 MiB of 50 MiB" in text
    assert 'class="nbc-ending">there was no memory left' in html and 'class="nbc-state nbc-is-failed"' in html


def test_where_a_run_showed_nothing_its_container_takes_the_place(outputs: list[Handle]) -> None:
    place = Place()
    present(told([]), "run", mode="card", place=place)
    container = FakeContainer()
    show_container(container, Surroundings(), mode="card", place=place)
    (output,) = outputs
    assert [WIDGET in bundle for bundle in output.bundles] == [False, True]
    # Taken once: another card has an output of its own.
    show_container(FakeContainer(), Surroundings(), mode="card", place=place)
    assert len(outputs) == 2
    container.end(0)
    until(lambda: WIDGET not in output.bundles[-1])


def test_a_card_that_was_prepared_becomes_the_containers(outputs: list[Handle]) -> None:
    made: list[Any] = []
    place = Place(lambda: made.append(live.prepared()) or made[-1])  # type: ignore[func-returns-value]
    present(told([]), "run", mode="card", place=place)
    pressed: list[str] = []
    container = FakeContainer()
    show_container(container, stopping(lambda: pressed.append("stop")), mode="card", place=place)
    (card,) = made
    assert outputs[0].bundles[-1][WIDGET]["model_id"] == card.model_id
    place.leave()  # it is somebody's
    container.say(b"hello\n")
    until(lambda: card.tail["lines"] == [["stdout", ["hello", ""]]])
    assert "web" in card.head and [action["id"] for action in card.actions] == ["stop"]
    card._handle_custom_msg({"action": "stop"}, [])
    until(lambda: pressed == ["stop"])
    container.end(0)
    until(lambda: WIDGET not in outputs[0].bundles[-1])


def test_lines_that_were_there_before_travel_with_a_prepared_card() -> None:
    sent: list[Any] = []
    card = live.prepared()
    card.send_state = lambda key=None: sent.append(key)
    card.become(Drawn(Picture("web", ""), (), (line("one"),), 7), lambda action: None, lambda content, send: None)
    assert card.tail == {"end": 7, "lines": [["stdout", ["one", ""]]], "begun": []}
    assert card.delta["lines"] == [] and "tail" in sent


def test_what_was_prepared_for_nobody_is_closed(outputs: list[Handle]) -> None:
    made: list[Any] = []
    place = Place(lambda: made.append(live.prepared()) or made[-1])  # type: ignore[func-returns-value]
    present(told([]), "run", mode="card", place=place)
    assert made[0].comm is not None
    place.leave()
    assert made[0].comm is None


def test_a_detached_container_has_a_live_card_until_it_ends(outputs: list[Handle]) -> None:
    container = FakeContainer()
    show_container(container, Surroundings(), mode="card")
    container.say(b"hello\n")
    container.end(3)
    (output,) = outputs
    until(lambda: WIDGET not in output.bundles[-1])
    assert "exited 3" in output.bundles[-1]["text/plain"] and "hello" in output.bundles[-1]["text/html"]


def test_a_page_that_forgot_the_display_id_sees_the_end_in_the_widget(outputs: list[Handle]) -> None:
    container = FakeContainer()
    show_container(container, stopping(lambda: None), mode="card")
    (output,) = outputs
    container.end(0)
    until(lambda: WIDGET not in output.bundles[-1])
    from ipywidgets.widgets import widget

    card = widget._instances[output.bundles[0][WIDGET]["model_id"]]
    assert "exited 0" in card.body and card.actions == []


def test_what_stays_of_a_card_tells_standard_error_apart(outputs: list[Handle]) -> None:
    container = FakeContainer()
    show_container(container, Surroundings(), mode="card")
    container.say(b"said\n")
    container.say(b"<complained>\n", "stderr")
    container.end(1)
    (output,) = outputs
    until(lambda: WIDGET not in output.bundles[-1])
    last = output.bundles[-1]
    assert 'said\n<span class="nbc-err">&lt;complained&gt;</span>' in last["text/html"]
    assert "said" in last["text/plain"] and "nbc-err" not in last["text/plain"]


def test_without_a_front_end_a_container_is_a_line(outputs: list[Handle], capsys: pytest.CaptureFixture[str]) -> None:
    show_container(FakeContainer(), Surroundings(), mode="plain")
    assert outputs == [] and capsys.readouterr().out.startswith("running web · hello:latest")


def stopping(act: Callable[[], object]) -> Surroundings:
    return Surroundings((Button("stop", "Stop", act, "docker stop {name}", RUNNING, "Stopping…"),))


def removing(act: Callable[[], object]) -> Surroundings:
    return Surroundings((Button("remove", "Remove", act, confirm="Stop and remove?"),))


def card_of(container: FakeContainer, around: Surroundings) -> live.LiveContainer:
    return live.LiveContainer(container, around)


def test_a_button_acts_once_and_is_busy_meanwhile() -> None:
    pressed: list[float] = []

    def stop() -> None:
        pressed.append(time.monotonic())
        time.sleep(0.3)

    card = card_of(FakeContainer(), stopping(stop))
    card.act("stop")
    card.act("stop")
    (button,) = card.draw().actions
    assert (button.label, button.enabled, button.command) == ("Stopping…", False, "docker stop web")
    until(lambda: card.draw().actions[0].enabled)
    assert len(pressed) == 1


def test_what_goes_wrong_behind_a_button_is_said_in_the_card() -> None:
    def remove() -> None:
        raise InUse("<b>it is needed", hint="stop the other")

    card = card_of(FakeContainer(), removing(remove))
    card.act("remove")
    until(lambda: "stop the other" in card.draw().picture.body)
    assert "remove: &lt;b&gt;it is needed" in card.draw().picture.body


def test_a_button_nobody_offered_does_nothing() -> None:
    card = card_of(FakeContainer(), Surroundings())
    card.act("__class__")
    assert card.draw().actions == []


def test_removing_what_runs_has_to_be_confirmed() -> None:
    container = FakeContainer()
    assert card_of(container, removing(lambda: None)).draw().actions[0].confirm == "Stop and remove?"
    container.status = "exited"
    assert card_of(container, removing(lambda: None)).draw().actions[0].confirm == ""


def test_a_container_started_again_keeps_its_card(outputs: list[Handle]) -> None:
    container = FakeContainer()
    show_container(container, Surroundings(), mode="card")
    container.journal.append(Finished(container.id, "done", exit_code=143))
    old, container.journal = container.journal, type(container.journal)()
    for record in old.read():
        container.journal.append(record.event)
    container.journal.append(Started(container.id, "web"))
    container.say(b"second life\n")
    old.close()
    (output,) = outputs
    time.sleep(0.5)
    assert WIDGET in output.bundles[-1]
    container.end(0)
    until(lambda: WIDGET not in output.bundles[-1])
    assert "second life" in output.bundles[-1]["text/html"]


def test_a_container_started_again_has_each_line_once() -> None:
    from nbcontain.display.widgets import Card

    container = FakeContainer()
    live_card = card_of(container, Surroundings())
    shown = Card(live_card.draw(), lambda action: None)
    container.say(b"first life\n")
    container.journal.append(Finished(container.id, "done", exit_code=143))
    container.journal.append(Started(container.id, "web"))
    container.say(b"second life\n")
    for record in container.journal.read():
        live_card._take([record])
        shown.redraw(live_card.draw())
    assert [line[1][0] for line in shown.tail["lines"]] == ["first life", "started again", "second life"]


def test_only_new_lines_travel() -> None:
    from nbcontain.display.widgets import Card

    card = Card(Drawn(Picture("web", ""), (), (line("one"),), 1), lambda action: None)
    card.redraw(Drawn(Picture("web", ""), (), (line("one"), line("two")), 2))
    assert card.delta == {"from": 1, "lines": [["stdout", ["two", ""]]], "begun": []}
    assert card.tail["end"] == 2 and len(card.tail["lines"]) == 2


def test_the_tail_does_not_travel_but_is_there_for_a_new_page() -> None:
    from nbcontain.display.widgets import Card

    card = Card(Drawn(Picture("web", "")), lambda action: None)
    assert not card._should_send_property("tail", {}) and "tail" in card.get_state()


def test_a_card_that_has_ended_is_a_picture_and_keeps_next_to_nothing() -> None:
    from nbcontain.display.widgets import Card

    up = Drawn(Picture("web", "<b>up</b>"), (Action("stop", "Stop"),), (line("one"),) * 500, 500)
    card = Card(up, lambda action: None)
    card.end(Picture("web", "", body="<b>gone</b>"))
    state = card.get_state()
    assert "<b>gone</b>" in state["body"] and "<style" not in state["body"]
    assert (state["actions"], state["head"], state["tail"]["lines"]) == ([], "", [])
    assert len(json.dumps(state, default=str)) < 5_000


def test_a_page_that_never_saw_a_live_card_is_told_how_they_look(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbcontain.display.widgets import Card

    card, sent = Card(Drawn(Picture("web", "")), lambda action: None), []
    card.end(Picture("web", ""))
    monkeypatch.setattr(card, "send", sent.append)
    card._handle_custom_msg({"style": True}, [])
    assert ".nbc " in sent[0]["style"]


def test_a_message_that_is_no_action_is_ignored() -> None:
    from nbcontain.display.widgets import Card

    pressed: list[str] = []
    card = Card(Drawn(Picture("web", ""), (Action("stop", "Stop"),)), pressed.append)
    for content in ({"action": "stop"}, {"action": 3}, "stop", {}):
        card._handle_custom_msg(content, [])
    assert pressed == ["stop"]


def test_the_ticker_joins_marks_and_survives_a_bad_drawing() -> None:
    drawn: list[int] = []
    ticker = Ticker(interval_s=0.05)

    def draw() -> int:
        drawn.append(1)
        return 0

    def fail() -> int:
        raise RuntimeError

    ticker.mark(fail)
    for _ in range(100):
        ticker.mark(draw)
    until(lambda: drawn)
    time.sleep(0.15)
    assert len(drawn) <= 2


def test_a_running_download_says_how_fast_it_is_and_how_long_it_will_take() -> None:
    from nbcontain.display.pictures import steps_picture
    from nbcontain.display.view import View, update
    from nbcontain.events import Progress, Record, Started

    view = View()
    for event in (Started("pull", "pull x"), Started("l", "layer 1", "pull"), Progress("l", 0, 60_000_000)):
        view = update(view, Record(100.0, event))
    view = update(view, Record(101.0, Progress("l", 20_000_000, 60_000_000)))
    assert "20 MB of 60 MB · 10 MB/s · 4.0 s left" in steps_picture(view, 102.0, "pull").body


def test_a_container_that_goes_away_while_it_is_listed_does_not_end_the_board() -> None:
    def around(container: Any) -> Surroundings:
        if container.name == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        return Surroundings()

    gone, web = FakeContainer("gone"), FakeContainer("web")
    gone.id = "0" * 64
    board = Board(lambda: [gone, web], around)
    board.look()
    assert "web" in board.picture().body and "gone" not in board.picture().body


def test_a_board_says_at_once_how_each_has_ended(outputs: list[Handle]) -> None:
    bad = FakeContainer("bad")
    bad.say(b"going wrong\n")
    bad.end(137)
    show_board(lambda: [bad], lambda container: Surroundings(), mode="html")
    text = outputs[0].bundles[0]["text/plain"]
    assert "exited 137" in text and "going wrong" in text


def test_nobody_follows_what_was_on_a_board_that_is_watched_no_more(outputs: list[Handle]) -> None:
    container = FakeContainer("left")
    board = Board(lambda: [container], lambda container: Surroundings())
    board.look()
    [follower] = [each for each in threading.enumerate() if each.name == "nbcontain board left"]
    board.act("enough")
    board.follow()
    container.say(b"who hears this?\n")
    until(lambda: not follower.is_alive())


def test_a_board_is_drawn_as_it_is_saved_only_when_it_is() -> None:
    board = Board(lambda: [FakeContainer()], lambda container: Surroundings())
    board.look()
    drawn: list[int] = []
    board.picture = lambda: drawn.append(1) or Picture("board", "")  # type: ignore[method-assign, func-returns-value]
    live_picture = board.draw()
    assert drawn == []
    assert (live_picture.saved.label, drawn) == ("board", [1])
