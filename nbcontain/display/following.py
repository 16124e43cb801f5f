"""Tables that follow what happens: each is drawn again when something has, for as long as no other cell is run.

A table tells how things were at its place in the notebook, and goes on telling that once the story goes on below it. So
it needs no widget: its output is replaced, and what is saved is what was seen last.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from typing import Any

from nbcontain.display.surface import HTML_EVERY_S, display
from nbcontain.display.table import Watched
from nbcontain.display.ticker import Ticker
from nbcontain.errors import NbcontainError

Hear = Callable[[], Generator[Mapping[str, Any] | None]]
"""Begins to hear of events in docker's names, each as it comes, and None several times a second while none does."""
_PASSING = "exec_"
"""Programs that are executed in a container change nothing of what a table says."""


class Following:
    """The tables of one kernel that follow what happens. The thread lives as long as one does."""

    def __init__(self, hear: Hear, ticker: Ticker | None = None) -> None:
        self._hear = hear
        # Not the cards': a look may read every image or volume, and they would wait for it.
        self._ticker = ticker or Ticker(HTML_EVERY_S)
        self._lock = threading.Lock()
        self._shown: list[_Shown] = []
        self._is_heard = False

    def show(self, table: Watched) -> None:
        """Below the current cell, whose thread this is."""
        shown = _Shown(table, display(bundle(table)))
        with self._lock:
            self._shown.append(shown)
            begins, self._is_heard = not self._is_heard, True
        if begins:
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._follow,), name="nbcontain tables", daemon=True).start()
        else:
            self._ticker.mark(shown.redraw)

    def rest(self, *_: object) -> None:
        """Another cell begins: those that are there stay as they are. IPython's `pre_run_cell`."""
        with self._lock:
            shown, self._shown = self._shown, []
        for each in shown:
            each.is_over = True
            self._ticker.drop(each.redraw)

    def _follow(self) -> None:
        # Where the store is gone, they stay as they are; the next one may be of another store in its place.
        with suppress(NbcontainError, OSError), closing(self._hear()) as events:
            self._mark("")  # what happened since they were looked at
            for event in events:
                if event is not None and not str(event["Action"]).startswith(_PASSING):
                    self._mark(str(event["Type"]))
                with self._lock:
                    if not self._shown:
                        self._is_heard = False
                        return
        with self._lock:
            self._is_heard = False

    def _mark(self, kind: str) -> None:
        with self._lock:  # a table that rests is never marked again
            for each in self._shown:
                if not kind or kind in each.kinds:
                    self._ticker.mark(each.redraw)


class _Shown:
    """One of them, in its output."""

    def __init__(self, table: Watched, handle: Any) -> None:
        self.kinds = table.kinds
        self.is_over = False
        self._table, self._handle = table, handle

    def redraw(self) -> int:
        """Look again, and say about how many bytes were sent: none where nothing has changed. The ticker's thread."""
        try:
            table = self._table.again()
        except (NbcontainError, OSError):
            return 0  # it stays as it was, and what happened meanwhile has marked it again
        if self.is_over or (table.rows, table.footer) == (self._table.rows, self._table.footer):
            return 0
        self._table = table
        drawn = bundle(table)
        self._handle.update(drawn, raw=True)
        return len(drawn["text/html"])


def bundle(table: Watched) -> dict[str, Any]:
    """What a notebook keeps of it."""
    return {"text/plain": table.text(), "text/html": table.html()}
