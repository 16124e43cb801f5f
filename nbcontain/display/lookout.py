"""One thread that looks at all containers on show, once a second: what they use, and whether they still run.

It asks for all of them together, since looking over the machine's processes is what costs. Who is told decides what
has changed: nothing is drawn where nothing has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

EVERY_S = 1.0

Sample = Callable[[Sequence[Any]], Mapping[Any, Any]]
"""What containers have used, of those that run: `engine.resources.sample`."""
Tell = Callable[[Any], None]
"""Is given a container's `Usage`, or None where it does not run."""


class Lookout:
    """Looks at what it was asked to. The thread lives as long as somebody wants to know something."""

    def __init__(self, sample: Sample, every_s: float = EVERY_S) -> None:
        self._sample = sample
        self.every_s = every_s
        self._watched: dict[Tell, Any] = {}
        self._changed = threading.Condition()
        self._is_new = False
        self._thread: threading.Thread | None = None

    def watch(self, container: Any, tell: Tell) -> None:
        """Tell of this container from now on, at once and then every second. Any thread."""
        with self._changed:
            self._watched[tell] = container
            self._is_new = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbcontain lookout", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, tell: Tell) -> None:
        """Tell this one no more; what is being told just now still may be."""
        with self._changed:
            self._watched.pop(tell, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._watched:
                    self._thread = None
                    return
                watched, self._is_new = dict(self._watched), False
            try:
                usages = self._sample(list(set(watched.values())))
            except Exception:  # noqa: BLE001 - a look that failed says nothing, and the next one may
                usages = {}
            for tell, container in watched.items():
                try:
                    tell(usages.get(container))
                except Exception:  # noqa: BLE001 - one card's trouble is not the others'
                    self.forget(tell)
            with self._changed:
                self._changed.wait_for(lambda: self._is_new, self.every_s)
