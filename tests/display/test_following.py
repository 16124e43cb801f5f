"""Tables that follow what happens: drawn again when something has, silent when nothing has, at rest below."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from nbcontain.display import following
from nbcontain.display.following import Following
from nbcontain.display.table import Watched
from nbcontain.display.ticker import Ticker

EVIL = "<img src=x onerror=alert(1)>\u202e"


class World:
    """Names in a table, and events by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = ["one"]
        self.looks = 0
        self.outputs: list[list[dict[str, Any]]] = []
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = 0
        self.following = Following(self.hear, Ticker(interval_s=0.01))
        monkeypatch.setattr(following, "display", self._display)

    def table(self) -> Watched:
        self.looks += 1
        return Watched(("NAME",), [(each,) for each in self.names], command="docker ps", again=self.table,
                       kinds=("container",))  # fmt: skip

    def happens(self, kind: str = "container", action: str = "start") -> None:
        self._events.put({"Type": kind, "Action": action})

    def hear(self) -> Generator[dict[str, Any] | None]:
        try:
            while True:
                try:
                    yield self._events.get(timeout=0.02)
                except queue.Empty:
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


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
