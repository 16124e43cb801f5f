"""One of several threads that work on the same blocks: each does one thing with them, in their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Block = bytes | bytearray | memoryview


class Stage(Generic[Item]):
    """A thread that does `work` with each block; so many of them may wait for it.

    `done` is called when a block is not needed any more, whatever became of it.
    """

    def __init__(
        self, work: Callable[[Item], object], ahead: int, done: Callable[[], object] = lambda: None
    ) -> None:  # fmt: skip
        self._work = work
        self._done = done
        self._blocks: queue.Queue[Item | None] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nbcontain layer", daemon=True)
        self._thread.start()

    def put(self, block: Item) -> None:
        """Have it done, or wait until there is room. Raises what went wrong with an earlier one."""
        if self._error is not None:
            raise self._error
        self._blocks.put(block)

    def finish(self) -> None:
        """Wait until all is done; raises what went wrong."""
        self._end()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Nobody wants what is not done yet. Idempotent, also after `finish`; the thread is over then."""
        if self._thread.is_alive():
            self._error = self._error or RuntimeError("nobody wants this layer any more")
            self._end()

    def _end(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _run(self) -> None:
        # After an error the rest is thrown away, so that whoever puts something in never waits for good.
        while (block := self._blocks.get()) is not None:
            if self._error is None:
                try:
                    self._work(block)
                except BaseException as error:  # noqa: BLE001 - raised again by whoever puts the next one in
                    self._error = error
            del block
            self._done()
