"""One thread that redraws everything live, at most ten times a second and only what changed.

A thread of its own per card would send more messages than a notebook server lets through (1000 a second,
all cards together), and would do so in bursts that the kernel's socket drops silently.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from functools import cache

INTERVAL_S = 0.1
BYTES_PER_S = 1_000_000
"""What all cards together may send; a tick that sent more is followed by a longer pause."""

Redraw = Callable[[], int]
"""Draws what is due and says about how many bytes it sent."""


class Ticker:
    """Redraws what was marked. The thread starts with the first mark and ends when there is nothing left to do."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._changed = threading.Condition()
        self._marked: dict[Redraw, None] = {}
        self._every_second: dict[Redraw, None] = {}
        self._thread: threading.Thread | None = None

    def mark(self, redraw: Redraw) -> None:
        """Redraw this at the next tick. Any thread; never waits for a drawing."""
        with self._changed:
            self._marked[redraw] = None
            self._wake()

    def keep(self, redraw: Redraw) -> None:
        """Redraw this every second too, for what shows a duration."""
        with self._changed:
            self._every_second[redraw] = None
            self._wake()

    def drop(self, redraw: Redraw) -> None:
        """Forget it; a drawing that has begun is not waited for."""
        with self._changed:
            self._every_second.pop(redraw, None)
            self._marked.pop(redraw, None)

    def _wake(self) -> None:
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._run,), name="nbcontain cards", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        second = time.monotonic()
        while True:
            with self._changed:
                if not self._marked and not self._every_second:
                    self._changed.wait(5.0)
                    if not self._marked and not self._every_second:
                        self._thread = None
                        return
                elif not self._marked:
                    self._changed.wait(max(0.0, second + 1.0 - time.monotonic()))
                now = time.monotonic()
                due, self._marked = self._marked, {}
                if now - second >= 1.0:
                    second = now
                    due = {**self._every_second, **due}
            sent = sum(self._drawn(redraw) for redraw in due)
            time.sleep(max(self.interval_s, sent / BYTES_PER_S))

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
