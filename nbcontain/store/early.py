"""Layers that are unpacked while an archive is read, before it is known whose they are and what they lie on.

An archive says that at its end. In overlayfs' form a layer's directory does not depend on what is below, so it can be
made meanwhile, and gets its name afterwards. What was begun in vain, or failed, is thrown away: whoever needs that
layer unpacks its blob, and is told what is wrong with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from nbcontain.oci.digest import DiffID
from nbcontain.store.pipes import pipe
from nbcontain.store.ring import Sender
from nbcontain.store.snapshots import Staging
from nbcontain.store.stacks import Feed, Stacks, apply, unpacked

_MANY = 64
"""More layers of one archive than these wait for their turn: each holds a directory open."""


class Early:
    """The layers of one archive. A context: what nobody took is gone at its end. Used by one thread."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._places = ExitStack()
        self._begun: list[_Unpacking] = []

    def __enter__(self) -> Early:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._begun:
            each.feed.close()
            each.thread.join()
        self._places.close()

    def begin(self, *, is_plain: bool) -> Feed | None:
        """Something to write one more layer's bytes to as they come, compressed or not, and to close.

        Of a tar that `is_plain` the writer says the diff ID (`Feed.diff_id`), since it hashes it anyway. None where it
        has to wait: a whole tree begins as the one below. Two at a time are unpacked.
        """
        if self._stacks.store.snapshots.form == "tree" or len(self._begun) >= _MANY:
            return None
        for each in self._begun[:-1]:
            each.thread.join()
        staging = self._places.enter_context(self._stacks.store.snapshots.staging())
        self._begun.append(_Unpacking(self._stacks, staging, is_plain=is_plain))
        return self._begun[-1].feed

    def take(self, diff_id: DiffID) -> Staging | None:
        """The directory that this layer was unpacked into, for whoever asks first; None if there is none."""
        for each in self._begun:
            each.thread.join()
            if each.is_whole and diff_id in (each.diff_id, each.feed.diff_id):
                # Two jobs may come to this line at once: one of them gets it.
                with each.lock:
                    staging, each.staging = each.staging, None
                if staging is not None:
                    return staging
        return None


class _Unpacking:
    """One layer, by a thread of its own."""

    def __init__(self, stacks: Stacks, staging: Staging, *, is_plain: bool) -> None:
        self.lock = threading.Lock()
        self.staging: Staging | None = staging
        self.is_whole = False
        """Whether all of it is unpacked."""
        self.diff_id: DiffID | None = None
        """What it was then; None if the feed says that."""
        if is_plain:
            sender = Sender()
            self.feed, work = Feed(sender), partial(apply, stacks, staging, sender)
        else:
            reading, writing = pipe()
            self.feed, work = Feed(writing), partial(self._unzip, stacks, staging, reading)
        self.thread = threading.Thread(target=self._run, args=(work,), name="nbcontain unpack", daemon=True)
        self.thread.start()

    def _unzip(self, stacks: Stacks, staging: Staging, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as raw:
            self.diff_id = unpacked(stacks, staging, raw)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
            self.is_whole = True
        except BaseException:  # noqa: BLE001 - it is unpacked again, and whoever does that is told
            return
