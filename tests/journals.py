"""Tasks and containers that do what a test tells them, with real journals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from nbcontain.events import Event, Finished, Output, Record, Started
from nbcontain.journal import MemoryJournal
from nbcontain.task import Task

CONTAINER_ID = "c0ffee" + "0" * 58


def told(events: Sequence[Event], result: object = None) -> Task[object]:
    """A task that emits these and is over."""

    def body(emit):  # type: ignore[no-untyped-def]
        for event in events:
            emit(event)
        return result

    task = Task("told", body)
    task.wait()
    return task


def endless(events: Sequence[Event] = ()) -> Task[object]:
    """A task that emits these and then goes on until it is cancelled."""
    ended = threading.Event()

    def body(emit):  # type: ignore[no-untyped-def]
        for event in events:
            emit(event)
        ended.wait(20)
        emit(Finished("c", "cancelled"))

    task = Task("endless", body)
    task.on_cancel(ended.set)
    return task


class FakeContainer:
    """A container made of a journal, started by hand."""

    def __init__(self, name: str = "web") -> None:
        self.id, self.name, self.image, self.status = CONTAINER_ID, name, "hello:latest", "running"
        self.pid: int | None = 4711
        self.is_paused = False
        self.exists = True
        self.exit_code: int | None = None
        self.oom_killed = False
        self.memory_peak = 0
        self.journal = MemoryJournal()
        self.journal.append(Started(self.id, name))

    def state(self) -> FakeContainer:
        """It is its own."""
        return self

    def batches(self, enough: Callable[[], bool] = lambda: False) -> Iterator[list[Record]]:
        for record in self.journal.follow():
            yield [record]
            if enough():
                return

    def say(self, data: bytes, stream: Literal["stdout", "stderr"] = "stdout") -> None:
        self.journal.append(Output(self.id, stream, data))

    def end(self, exit_code: int = 0) -> None:
        self.status, self.exit_code = "exited", exit_code
        self.journal.append(Finished(self.id, "done", exit_code=exit_code))
        self.journal.close()
