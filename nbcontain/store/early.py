"""Layers that are unpacked while an archive is read, before it is known whose they are and what they lie on.

An archive says that at its end. In overlayfs' form a layer's directory does not depend on what is below, so it can be
made meanwhile, and gets its name afterwards. What was begun in vain, or failed, is thrown away: whoever needs that
layer unpacks its blob, and is told what is wrong with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from nbcontain.oci.digest import DiffID
from nbcontain.store.growing import Growing
from nbcontain.store.layer_writer import Blocks, Slots
from nbcontain.store.ring import Sender
from nbcontain.store.snapshots import Staging
from nbcontain.store.stacks import Stacks, unpacked

_MANY = 64
"""More layers of one archive than these wait for their turn: each holds a directory open."""
_AT_ONCE = 2
"""So many are unpacked at a time: that keeps two processors busy."""
_STRIKE_S = 0.1


class Early:
    """The layers of one archive. A context: what nobody took is gone at its end. Used by one thread.

    `strike` is called now and then while something is waited for, and raises when nobody wants this any more.
    """

    def __init__(self, stacks: Stacks, strike: Callable[[], None] = lambda: None) -> None:
        self._stacks = stacks
        self._strike = strike
        self._places = ExitStack()
        self._begun: list[_Unpacking] = []
        self._slots = threading.Semaphore(_AT_ONCE)

    def __enter__(self) -> Early:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._begun:
            # What nobody has taken by now is wanted by nobody.
            each.source.cut()
        for each in self._begun:
            each.thread.join()
        self._places.close()

    def follow(self, path: Path) -> Growing | None:
        """Unpack one more layer, compressed or not, from the file that its bytes are written to (`Growing.wrote`).

        None where it has to wait: a whole tree begins as the one below.
        """
        if not self._has_room:
            return None
        staging = self._places.enter_context(self._stacks.store.snapshots.staging())
        with ExitStack() as stack:
            growing = stack.enter_context(closing(Growing(path)))

            def work() -> DiffID:
                with self._slots, closing(growing):
                    return unpacked(self._stacks, staging, growing)

            self._begun.append(_Unpacking(growing, staging, work))
            # Its thread closes it.
            stack.pop_all()
        return growing

    def feed(self, ring: Callable[[], Sender]) -> Feed | None:
        """Unpack one more layer, a plain tar, from the blocks of this that a `LayerWriter` makes.

        Waits for its turn. None as above.
        """
        if not self._has_room:
            return None
        staging = self._places.enter_context(self._stacks.store.snapshots.staging())
        while not self._slots.acquire(timeout=_STRIKE_S):
            self._strike()
        with ExitStack() as stack:
            stack.callback(self._slots.release)
            feed = Feed(ring())
            stack.callback(feed.ring.leave)
            stack.callback(feed.end)

            def work() -> DiffID | None:
                try:
                    self._stacks.apply(staging, feed.ring)
                finally:
                    self._slots.release()
                return None

            self._begun.append(_Unpacking(feed, staging, work))
            # Both ends have somebody now.
            stack.pop_all()
        return feed

    @property
    def _has_room(self) -> bool:
        return self._stacks.store.snapshots.form != "tree" and len(self._begun) < _MANY

    def take(self, diff_id: DiffID) -> Staging | None:
        """The directory that this layer was unpacked into, for whoever asks first; None if there is none."""
        for each in self._begun:
            each.thread.join()
            if each.is_whole and diff_id == each.diff_id:
                # Two jobs may come to this line at once: one of them gets it.
                with each.lock:
                    staging, each.staging = each.staging, None
                if staging is not None:
                    return staging
        return None


class Feed:
    """A ring for the blocks of a plain tar, whose writer hashes it anyway. A context: at its end no more will come.

    The writer goes on if the unpacking has failed: in memory that nobody else reads.
    """

    def __init__(self, ring: Sender) -> None:
        self.ring = ring
        self.slots = ring.slots
        self.diff_id: DiffID | None = None
        """What was written, once its writer has told."""
        self._where: Slots = ring

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def slot(self) -> memoryview:
        """Where the next block goes."""
        try:
            return self._where.slot()
        except BrokenPipeError:
            self._where = Blocks()
            return self._where.slot()

    def send(self, count: int) -> None:
        """So many bytes of it are there."""
        try:
            self._where.send(count)
        except BrokenPipeError:
            self._where = Blocks()

    def end(self) -> None:
        """That was all, or all that will come: a layer that is cut off fails. Idempotent."""
        self.ring.close()

    def cut(self) -> None:
        """The same: no more than a ring of it can be left."""
        self.end()


class _Unpacking:
    """One layer, by a thread of its own. `work` gives the diff ID, or None where the feed does."""

    def __init__(self, source: Growing | Feed, staging: Staging, work: Callable[[], DiffID | None]) -> None:
        self.source = source
        self.lock = threading.Lock()
        self.staging: Staging | None = staging
        self.is_whole = False
        """Whether all of it is unpacked."""
        self._diff_id: DiffID | None = None
        self._work = work
        self.thread = threading.Thread(target=self._run, name="nbcontain unpack", daemon=True)
        self.thread.start()

    @property
    def diff_id(self) -> DiffID | None:
        """What it was, once it is whole."""
        return self.source.diff_id if isinstance(self.source, Feed) else self._diff_id

    def _run(self) -> None:
        try:
            self._diff_id = self._work()
            self.is_whole = True
        except BaseException:  # noqa: BLE001 - it is unpacked again, and whoever does that is told
            return
