"""One thread that redraws everything live: what changed, at once where it can be, and never too much of it.

The first change after a pause is drawn at once; what follows it closely waits for the next drawing. A thread of its
own per card would send more messages than a notebook server lets through (1000 a second, all cards together), and
would do so in bursts that the kernel's socket drops silently.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from functools import cache

INTERVAL_S = 0.03
"""Between two drawings of one thing, at least."""
DRAWINGS_PER_S = 100
BYTES_PER_S = 2_000_000
"""What all cards together may send: more is followed by a longer pause."""
_SHARE = 0.25
"""Of the thread's time that may go into drawing: the cells' own work comes first."""

Redraw = Callable[[], int]
"""Draws what is due and says about how many bytes it sent."""


class Ticker:
    """Redraws what was marked. The thread starts with the first mark and ends when there is nothing left to do."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._changed = threading.Condition()
        self._marked: dict[Redraw, None] = {}
        self._every_second: dict[Redraw, None] = {}
        self._drawn_at: dict[Redraw, float] = {}
        self._thread: threading.Thread | None = None

    def mark(self, redraw: Redraw) -> None:
        """Redraw this as soon as may be. Any thread; never waits for a drawing."""
        with self._changed:
            if redraw not in self._marked:
                self._marked[redraw] = None
                self._wake()

    def keep(self, redraw: Redraw) -> None:
        """Redraw this every second too, for what shows a duration and cannot count by itself."""
        with self._changed:
            self._every_second[redraw] = None
            self._wake()

    def drop(self, redraw: Redraw) -> None:
        """Forget it; a drawing that has begun is not waited for."""
        with self._changed:
            for known in (self._every_second, self._marked, self._drawn_at):
                known.pop(redraw, None)

    def _wake(self) -> None:
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._run,), name="nbcontain cards", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        free_at = 0.0
        while True:
            with self._changed:
                now = time.monotonic()
                at = self._next()
                if at is None:
                    if not self._changed.wait(5.0) and self._next() is None:
                        self._thread = None
                        return
                    continue
                if (wait_s := max(at, free_at) - now) > 0:
                    self._changed.wait(wait_s)
                    continue
                due = [redraw for redraw in {**self._marked, **self._every_second} if self._due_at(redraw) <= now]
                for redraw in due:
                    self._marked.pop(redraw, None)
                    self._drawn_at[redraw] = now
            sent = sum(self._drawn(redraw) for redraw in due)
            took = time.monotonic() - now
            free_at = now + max(len(due) / DRAWINGS_PER_S, sent / BYTES_PER_S, took / _SHARE)

    def _next(self) -> float | None:
        """When something is due; None if nothing ever is."""
        known = {**self._marked, **self._every_second}
        return min(map(self._due_at, known)) if known else None

    def _due_at(self, redraw: Redraw) -> float:
        return self._drawn_at.get(redraw, 0.0) + (self.interval_s if redraw in self._marked else 1.0)

    def _drawn(self, redraw: Redraw) -> int:
        try:
            return redraw()
        except Exception:  # noqa: BLE001 - a card that cannot be drawn must not stop the others
            self.drop(redraw)
            return 0


@cache
def shared_ticker() -> Ticker:
    """The process's one ticker."""
    return Ticker()
