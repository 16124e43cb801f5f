"""Blocks that are compressed by several threads at the same time, and come out in their order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from nbcontain.store.gzip_stream import Block
from nbcontain.store.layer_forms import Packs

_THREADS = 4
"""More than these would wait for who reads the blocks, and hashes them."""
_AHEAD = 8
"""So many may be compressed, or be about to be, that were not taken yet."""


class Packing:
    """A block on its way."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self._is_done = threading.Event()
        self._packed: Sequence[bytes] = ()
        self._error: BaseException | None = None

    def settle(self, packed: Sequence[bytes], error: BaseException | None = None) -> None:
        """That became of it."""
        self._packed, self._error = packed, error
        self._is_done.set()

    def result(self) -> Sequence[bytes]:
        """What it was compressed to, in pieces. Waits; raises what hindered it."""
        self._is_done.wait()
        if self._error is not None:
            raise self._error
        return self._packed


class Packers:
    """The threads. A block is not needed any more when its result was taken, and none of those before it."""

    def __init__(self, packer: Callable[[], Packs]) -> None:
        self._packer = packer
        self._items: queue.SimpleQueue[Packing | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        """Had before a block is taken: so whoever has the earliest one never waits for it."""
        self._is_abandoned = False
        count = max(1, min(_THREADS, len(os.sched_getaffinity(0))))
        self._threads = [threading.Thread(target=self._run, name="nbcontain layer", daemon=True) for _ in range(count)]
        for each in self._threads:
            each.start()

    def put(self, block: Block) -> Packing:
        """One more block. Does not wait."""
        self._items.put(item := Packing(block))
        return item

    def taken(self) -> None:
        """The result of one was taken, or is not wanted."""
        self._room.release()

    def finish(self) -> None:
        """Wait until all are compressed; their results are taken meanwhile."""
        for _ in self._threads:
            self._items.put(None)
        for each in self._threads:
            each.join()

    def abandon(self) -> None:
        """Nobody wants what is not compressed yet: whoever waits for it is told so. Idempotent, also after `finish`."""
        self._is_abandoned = True
        for _ in self._threads:
            self._room.release()
        self.finish()

    def _run(self) -> None:
        packer = self._packer()
        while True:
            if not self._is_abandoned:
                self._room.acquire()
            item = self._items.get()
            if item is None:
                self._room.release()
                return
            try:
                if self._is_abandoned:
                    raise RuntimeError("nobody wants this layer any more")
                item.settle(packer.pack(item.block))
            except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
                item.settle((), error)
            del item
