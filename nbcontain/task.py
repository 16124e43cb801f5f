"""Work in progress on a thread of its own: its journal, its result, its cancellation."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar

from nbcontain.errors import Cancelled
from nbcontain.events import Emit, Event
from nbcontain.journal import MemoryJournal

T = TypeVar("T")
U = TypeVar("U")

_AT_ONCE = 50
"""As many containers docker stops at the same time."""
_HEARTBEAT_S = 0.1
"""How often an awaiting cell wakes: an interrupt cancels its future, but does not wake a sleeping loop."""


class Task(Generic[T]):
    """Work in progress on a thread of its own.

    The body gets an `Emit` that appends to `journal` and raises `Cancelled` once `cancel` was called.
    The thread copies the caller's context, so that a front end still knows which cell it belongs to;
    it never prints. The journal is closed when the body has ended, whichever way.
    """

    def __init__(self, name: str, body: Callable[[Emit], T]) -> None:
        self.name = name
        self.journal = MemoryJournal()
        self._body = body
        self._result: T
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._cancelled = threading.Event()
        self._on_cancel: list[Callable[[], None]] = []
        self._on_done: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._change: Callable[[T], Any] | None = None
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._run,), name=f"nbcontain {name}", daemon=True)
        thread.start()

    def _run(self) -> None:
        try:
            self._result = self._body(self._emit)
        except BaseException as error:  # noqa: BLE001 - it is raised again by result()
            self._error = error
        finally:
            self.journal.close()
            with self._lock:
                self._done.set()
                callbacks, self._on_done = self._on_done, []
            for callback in callbacks:
                callback()

    def _emit(self, event: Event) -> None:
        self.journal.append(event)
        if self._cancelled.is_set():
            raise Cancelled(f"{self.name} was cancelled")

    @property
    def is_done(self) -> bool:
        """Whether the body has ended."""
        return self._done.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for the end of it."""
        return self._cancelled.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the body has ended; False if it has not within `timeout_s`."""
        return self._done.wait(timeout_s)

    def result(self) -> T:
        """Wait, and give what the body returned or raise what it raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result if self._change is None else self._change(self._result)

    def then(self, change: Callable[[T], U]) -> Task[U]:
        """The same work, with its result made into something else."""
        changed: Task[U] = self  # type: ignore[assignment]
        self._change = change
        return changed

    def cancel(self) -> None:
        """Ask for the end: the body's next `emit` raises `Cancelled`, and what `on_cancel` left is called now."""
        with self._lock:
            self._cancelled.set()
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call this from `cancel`, for work that waits where no `emit` strikes (at once if cancelled already)."""
        self._call_after(self._cancelled, self._on_cancel, callback)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call this when the body has ended, in its thread (at once if it has). It must not raise."""
        self._call_after(self._done, self._on_done, callback)

    def _call_after(
        self, event: threading.Event, waiting: list[Callable[[], None]], callback: Callable[[], None]
    ) -> None:
        with self._lock:
            if not event.is_set():
                waiting.append(callback)
                return
        callback()

    def __await__(self) -> Generator[Any, None, T]:
        return self._until_done().__await__()

    async def _until_done(self) -> T:
        # Only whoever awaits has it loaded.
        import asyncio

        while not self._done.is_set():
            await asyncio.sleep(_HEARTBEAT_S)
        return self.result()


def at_once(items: Sequence[T], act: Callable[[T], U], name: str) -> list[U]:
    """What `act` gives for each of these, in their order, each on a thread of its own; 50 at a time.

    The first error is raised when all have ended. A pool of concurrent.futures would not do: a program that was
    interrupted, and ends, waits for its threads.
    """
    if len(items) < 2:
        return [act(each) for each in items]
    room = threading.Semaphore(_AT_ONCE)

    def work(each: T) -> U:
        with room:
            return act(each)

    tasks = [Task(name, lambda emit, each=each: work(each)) for each in items]  # type: ignore[misc]
    for task in tasks:
        task.wait()
    return [task.result() for task in tasks]
