"""Tables that follow what happens: drawn again when something has, silent when nothing has, at rest below."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any

import pytest

from machine import until
from nbcontain.display import following
from nbcontain.display.following import Following
from nbcontain.display.table import Watched
from nbcontain.display.ticker import Ticker, shared_ticker

EVIL = "<img src=x onerror=alert(1)>\u202e"


class World:
    """Names in a table, and events by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = ["one"]
        self.looks = 0
        self.outputs: list[list[dict[str, Any]]] = []
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = 0
        self.is_gone = False
        self._is_asked = False
        self.following = Following(self.hear, Ticker(interval_s=0.01))
        monkeypatch.setattr(following, "display", self._display)

    def table(self) -> Watched:
        self.looks += 1
        return Watched(("NAME",), [(each,) for each in self.names], command="docker ps", again=self.table,
                       kinds=("container",))  # fmt: skip

    def happens(self, kind: str = "container", action: str = "start") -> None:
        self._is_asked = False
        self._events.put({"Type": kind, "Action": action})

    def is_heard(self) -> bool:
        """Whether somebody has come back for more after the last that happened."""
        return self._events.empty() and self._is_asked

    def hear(self) -> Generator[dict[str, Any] | None]:
        try:
            while True:
                if self.is_gone:
                    raise FileNotFoundError("the store")
                try:
                    yield self._events.get(timeout=0.02)
                except queue.Empty:
                    self._is_asked = True
                    yield None
        finally:
            self.ended += 1

    def _display(self, bundle: dict[str, Any]) -> Any:
        shown = [bundle]
        self.outputs.append(shown)

        class Handle:
            def update(self, drawn: dict[str, Any], raw: bool) -> None:
                shown.append(drawn)

        return Handle()


# What ends quietly must not tell of it on the thread's way out.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_table_is_drawn_again_when_something_has_happened_and_only_then(world: World) -> None:
    world.following.show(world.table())
    until(lambda: world.looks == 2)  # what happened until it was heard of
    (output,) = world.outputs
    world.names.append(EVIL)
    world.happens("image", "pull")
    world.happens("container", "exec_start: ls")
    world.happens()
    until(lambda: len(output) == 2)
    assert world.looks == 3
    assert "&lt;img" in output[1]["text/html"] and "\u202e" not in output[1]["text/html"]
    assert "≡ docker ps" in output[1]["text/html"] and "docker" not in output[1]["text/plain"]
    world.happens()
    until(lambda: world.looks == 4)
    world.following.rest()
    until(lambda: world.ended)
    # An event that changed nothing sent nothing.
    assert len(output) == 2


def test_as_text_it_is_a_table_like_others(world: World) -> None:
    table = world.table()
    assert repr(table) == str(table) == table.text()


def test_below_another_cell_it_stays_as_it_was(world: World) -> None:
    world.following.show(world.table())
    until(lambda: world.looks == 2)
    world.following.rest()
    until(lambda: world.ended)
    world.names.append("two")
    world.following.show(world.table())
    until(lambda: world.looks == 4)
    world.names.append("three")
    world.happens()
    first, second = world.outputs
    until(lambda: len(second) == 2)
    assert "three" in second[1]["text/plain"] and len(first) == 1
    world.following.rest()


def test_what_cannot_be_looked_at_any_more_is_left_as_it_was(world: World) -> None:
    table = world.table()

    def gone() -> Watched:
        world.looks += 1
        raise FileNotFoundError

    world.following.show(Watched(table.columns, table.rows, again=gone, kinds=("container",)))
    until(lambda: world.looks == 2)
    world.following.rest()
    until(lambda: world.ended)
    assert len(world.outputs[0]) == 1


def test_when_nothing_is_heard_any_more_tables_stay_as_they_are_and_the_next_one_listens_anew(world: World) -> None:
    world.is_gone = True
    world.following.show(world.table())
    until(lambda: world.ended and world.looks == 2)
    world.is_gone = False
    until(lambda: not any(each.name == "nbcontain tables" for each in threading.enumerate()))
    world.following.rest()
    world.following.show(world.table())
    until(lambda: world.looks == 4)
    world.names.append("two")
    world.happens()
    until(lambda: len(world.outputs[1]) == 2)
    assert len(world.outputs[0]) == 1
    world.following.rest()


def test_cards_do_not_wait_for_what_takes_long_to_look_at(world: World) -> None:
    may_end, is_drawn = threading.Event(), threading.Event()

    def looked() -> Watched:
        world.looks += 1
        may_end.wait(10)
        return table

    def draw() -> int:
        is_drawn.set()
        return 0

    table = Watched(("NAME",), [], again=looked)
    tables = Following(world.hear)
    tables.show(table)
    until(lambda: world.looks)
    shared_ticker().mark(draw)
    try:
        assert is_drawn.wait(5)
    finally:
        may_end.set()
        tables.rest()


def test_what_happens_during_a_look_in_vain_is_looked_at(world: World) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def goes_meanwhile() -> Watched:
        if has_begun.is_set():
            return world.table()
        has_begun.set()
        may_end.wait(10)
        raise FileNotFoundError

    world.following.show(Watched(("NAME",), [("gone",)], again=goes_meanwhile, kinds=("container",)))
    assert has_begun.wait(10)
    world.happens("container", "destroy")
    until(world.is_heard)
    may_end.set()
    until(lambda: len(world.outputs[0]) == 2)
    world.following.rest()
