"""One program over many items, each in a container of its own, several at a time: `nb.map("wc -c", texts, image=…)`."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nbcontain import api, keywords
from nbcontain.errors import Cancelled, ContainerFailed, NbcontainError, UsageError
from nbcontain.events import Emit, Finished, Progress, Started, scope
from nbcontain.outcomes import RunResult
from nbcontain.task import Task

_PLACE = re.compile(r"\{([A-Za-z_]\w*)?\}")
_TASK = "map"
_LOOK_S = 0.1


class Results(list[RunResult]):
    """What came of each item, in the order of the items."""

    def __init__(self, items: Sequence[Any], results: Iterable[RunResult], seconds: Sequence[float]) -> None:
        super().__init__(results)
        self.items, self.seconds = items, seconds

    def __repr__(self) -> str:
        failed = sum(each.exit_code != 0 for each in self)
        return f"<Results {len(self)}{f', {failed} failed' if failed else ''}>"

    def to_dict(self) -> list[dict[str, Any]]:
        """A dictionary an item."""
        return [
            {"item": item, "exit_code": each.exit_code, "stdout": each.stdout, "stderr": each.stderr, "seconds": took}
            for item, each, took in zip(self.items, self, self.seconds, strict=True)
        ]

    @property
    def df(self) -> Any:
        """The same as a pandas DataFrame. Raises Unavailable."""
        from nbcontain import objects

        return objects.frame(self.to_dict(), ("item", "exit_code", "stdout", "stderr", "seconds"))


def map(  # noqa: A001 - it is that, over containers
    command: Any, items: Iterable[Any], *, image: Any, parallel: int | None = None, check: bool = True, **options: Any
) -> Results:
    """Run a command for every item, in a new container each, at most `parallel` (one per processor) at a time.

    In the command {} stands for the item, and {name} for a value of an item that is a dictionary; without either the
    item is its last argument. It may be a function too, which gives the command for an item, or a dictionary of `run`'s
    keywords: {"command": …, "input": …, "put": …}. `options` are `run`'s for all of them. With `check` the first
    that fails is raised, as ContainerFailed, and no others are begun.
    """
    return api.shown(map_task(command, items, image=image, parallel=parallel, check=check, **options), "work")


def map_task(
    command: Any, items: Iterable[Any], *, image: Any, parallel: int | None = None, check: bool = True, **options: Any
) -> Task[Results]:
    """The same without waiting: a task, which can be awaited."""
    every = list(items)
    count = parallel or os.cpu_count() or 1
    if count < 1:
        raise UsageError(f"map: parallel={parallel}", hint="one or more at a time")
    # What is wrong with them is said before anything is begun.
    runs = [_run(image, _keywords(command, item, options), check=check) for item in every]
    return Task("map", lambda emit: _Pool(image, every, runs, count).run(emit))


def _run(image: Any, given: Mapping[str, Any], *, check: bool) -> Callable[[], Task[Any]]:
    """What begins the run of one item. Raises UsageError."""
    for name in ("check", "image"):
        if name in given:
            raise UsageError(f"map: {name} is the same for all items")
    if given.get("detach"):
        raise UsageError("map: detach=True", why="it waits for what comes of each item")
    return api.run_later(image, check=check, **{"remove": True, **given})


def _keywords(command: Any, item: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """`run`'s keywords for one item."""
    made = command(item) if callable(command) else _filled(keywords.command_of(command), item)
    return {**options, **(made if isinstance(made, Mapping) else {"command": made})}


def _filled(words: Sequence[str], item: Any) -> tuple[str, ...]:
    """The words with the item in them. Raises UsageError for a name that it has not."""
    names: Mapping[str, Any] = item if isinstance(item, Mapping) else {}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return str(item)
        if name not in names:
            if not names:
                return match[0]
            raise UsageError(f"map: {{{name}}} is no value of the item", hint="there are " + ", ".join(names))
        return str(names[name])

    filled = tuple(_PLACE.sub(value, word) for word in words)
    return filled if filled != tuple(words) else (*words, str(item))


class _Pool:
    """The items that wait, those that run, and what came of the others."""

    def __init__(self, image: Any, items: Sequence[Any], runs: Sequence[Callable[[], Task[Any]]], count: int) -> None:
        self._image, self._items, self._runs = image, items, runs
        self._count = min(count, len(items))
        self._waiting = iter(range(len(items)))
        self._lock = threading.Condition()
        self._running: dict[int, Task[Any]] = {}
        self._events: list[Started | Finished] = []
        self._results: dict[int, RunResult] = {}
        self._seconds = [0.0] * len(items)
        self._error: BaseException | None = None

    def run(self, emit: Emit) -> Results:
        """All of them. A cancellation ends those that run."""
        what = f"{len(self._items)} items in {getattr(self._image, 'name', self._image)}"
        threads = [threading.Thread(target=self._work, name="nbcontain map", daemon=True) for _ in range(self._count)]
        with scope(emit, _TASK, what):
            threads = _started(threads)
            try:
                while any(thread.is_alive() for thread in threads):
                    self._tell(emit)
                    with self._lock:
                        self._lock.wait(_LOOK_S)
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                for thread in threads:
                    thread.join()
            self._tell(emit)
            if self._error is not None:
                raise self._error
        return Results(self._items, [self._results[each] for each in range(len(self._items))], self._seconds)

    def _tell(self, emit: Emit) -> None:
        with self._lock:
            events, self._events = self._events, []
            done = len(self._results)
        for event in events:
            emit(event)
        emit(Progress(_TASK, done, len(self._items), "files"))

    def _fail(self, error: BaseException) -> None:
        """No further ones; those that run are ended."""
        with self._lock:
            self._error = self._error or error
            running = list(self._running.values())
        for task in running:
            task.cancel()

    def _work(self) -> None:
        """One of the threads: item after item."""
        while True:
            with self._lock:
                number = next(self._waiting, None)
                if number is None or self._error is not None:
                    return
                name = f"item-{number}"
                self._events.append(Started(name, str(self._items[number])[:80], parent=_TASK))
                began = time.monotonic()
                outcome: BaseException | None = None
                task, result = None, None
                try:
                    task = self._running[number] = self._runs[number]()
                except Exception as error:  # noqa: BLE001 - raised by whoever waits for all of them
                    outcome = error
            try:
                result = task.result() if task is not None else None
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for all of them
                outcome, result = error, getattr(error, "result", None)
            with self._lock:
                self._seconds[number] = time.monotonic() - began
                self._running.pop(number, None)
                if result is not None:
                    self._results[number] = result
                code = result.exit_code if result is not None else None
                self._events.append(Finished(name, "done" if code == 0 else "failed", exit_code=code))
                self._lock.notify()
            if outcome is not None and not isinstance(outcome, Cancelled):
                self._fail(_about(outcome, self._items[number]))


def _started(threads: Sequence[threading.Thread]) -> list[threading.Thread]:
    """As many of them as this machine lets begin. Raises RuntimeError where that is none."""
    begun: list[threading.Thread] = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:
            if not begun:
                raise
            break
        begun.append(thread)
    return begun


def _about(error: BaseException, item: Any) -> BaseException:
    """An error that says which item it was."""
    if isinstance(error, NbcontainError):
        error.message = f"{error.message} (for {str(item)[:80]})"
        error.args = (error.message,)
        if isinstance(error, ContainerFailed) and error.result is not None and not error.why:
            error.why = str(error.result).rstrip()[-400:]
    return error
