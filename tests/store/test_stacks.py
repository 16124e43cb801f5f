"""Layers on their way to being snapshots."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from machine import until
from nbcontain.errors import BadArchive, Cancelled, StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Layer
from nbcontain.store import Store, early
from nbcontain.store.early import Early
from nbcontain.store.layer_writer import ring_for
from nbcontain.store.pipes import piped
from nbcontain.store.snapshots import Snapshotter, Staging, Worker
from nbcontain.store.stacks import Arrivals, Stacks, unpacked


def test_a_layer_that_cannot_be_begun_keeps_nothing_open(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staging(self: Snapshotter, parent: object = None) -> AbstractContextManager[Staging]:
        raise StoreError("no place to unpack it")

    monkeypatch.setattr(Snapshotter, "staging", staging)
    digest = Digest.of(b"layer")
    layer = Layer(Descriptor(LAYER_TAR_GZIP, digest, 5), DiffID(digest))
    coming = tmp_path / "layer"
    coming.touch()
    before = len(os.listdir("/proc/self/fd"))
    arrivals = Arrivals(Stacks(store, cast(Worker, None)), [layer])
    with arrivals.feed(layer, coming) or nullcontext() as feed:
        assert feed is not None
        feed.wrote(b"piece")
        with pytest.raises(StoreError, match="no place"):
            arrivals.wait()
    # Fewer, where what earlier tests left open has been collected meanwhile.
    # Other stores' threads may have a file open for a moment.
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


class NoThreads:
    """From the n-th on, no thread can be started: as where a limit of processes is reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
        begin, self.left = threading.Thread.start, first

        def start(thread: threading.Thread) -> None:
            if not self.left:
                raise RuntimeError("can't start new thread")
            self.left -= 1
            begin(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("first", [0, 1])
def test_where_no_thread_can_be_started_nothing_stays_open(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    coming = tmp_path / "layer"
    coming.touch()
    stacks = Stacks(store, cast(Worker, None))
    alive, before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, coming.open("rb", buffering=0) as file, store.snapshots.staging() as staging:
        NoThreads(patch, first)
        with pytest.raises(RuntimeError, match="new thread"):
            unpacked(stacks, staging, file)
    # Other stores' threads may have a file open for a moment.
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    until(lambda: threading.active_count() <= alive)


@pytest.mark.parametrize("kind", ["feed", "follow", "piped"])
def test_what_has_no_thread_is_closed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    coming = tmp_path / "layer"
    coming.touch()
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, Early(Stacks(store, cast(Worker, None))) as layers:
        NoThreads(patch, 0)
        work: dict[str, Callable[[], object]] = {
            "feed": lambda: layers.feed(partial(ring_for, 1)), "follow": lambda: layers.follow(coming),
            "piped": lambda: piped(lambda sink: {}, os.close),
        }  # fmt: skip
        for _ in range(3):
            with pytest.raises(RuntimeError, match="new thread"):
                work[kind]()
    # Other stores' threads may have a file open for a moment.
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_who_writes_to_a_pipe_keeps_its_end_though_nobody_waits_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, is_over, found = threading.Event(), threading.Event(), []

    def work(sink: int) -> dict[str, Any]:
        go_on.wait(30)
        try:
            found.append(stat.S_ISFIFO(os.fstat(sink).st_mode))
        finally:
            is_over.set()
        return {}

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            piped(work, lambda source: None)
    go_on.set()
    assert is_over.wait(30) and found == [True]


@pytest.mark.parametrize("trouble", ["new thread", "cannot look"])
def test_layers_above_one_that_could_not_be_begun_do_not_wait_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def holds(self: Snapshotter, name: object) -> bool:
        raise RuntimeError("cannot look")

    digest = Digest.of(b"layer")
    layer = Layer(Descriptor(LAYER_TAR_GZIP, digest, 5), DiffID(digest))
    arrivals = Arrivals(Stacks(store, cast(Worker, None)), [layer])
    with monkeypatch.context() as patch:
        if trouble == "new thread":
            NoThreads(patch, 0)
        else:
            patch.setattr(Snapshotter, "holds", holds)
        with pytest.raises(RuntimeError, match=trouble):
            arrivals.stored(layer)
    with pytest.raises(RuntimeError, match=trouble):
        arrivals.wait(lambda: pytest.fail("somebody waits for it"))


def test_whoever_waits_for_its_turn_hears_that_nobody_wants_it(store: Store) -> None:
    go_on = threading.Event()

    class Busy:
        def call(self, *_: object, **__: object) -> dict[str, Any]:
            go_on.wait(30)
            return {}

    def strike() -> None:
        raise Cancelled("nobody wants it")

    with Early(Stacks(store, cast(Worker, Busy())), strike) as layers:
        for _ in range(2):
            assert layers.feed(partial(ring_for, 1)) is not None
        try:
            with pytest.raises(Cancelled):
                layers.feed(partial(ring_for, 1))
        finally:
            go_on.set()


def test_a_worker_that_dies_leaves_nobody_who_reads_on(store: Store) -> None:
    class Slow:
        def readinto(self, buffer: memoryview, /) -> int:
            time.sleep(0.2)
            return len(buffer)

    class Dead:
        def call(self, *_: object, **__: object) -> dict[str, Any]:
            raise StoreError("the worker died")

    descriptors = len(os.listdir("/proc/self/fd"))
    stacks = Stacks(store, cast(Worker, Dead()))
    with store.snapshots.staging() as staging, pytest.raises(StoreError, match="died"):
        unpacked(stacks, staging, Slow())
    assert [each.name for each in threading.enumerate() if each.name in ("nbcontain unzip", "nbcontain layer")] == []
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_what_waits_for_its_turn_when_an_archive_is_given_up_is_not_unpacked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, started = list[int](), threading.Semaphore(0)

    def reading(stacks: Stacks, staging: Staging, source: Any) -> DiffID:
        started.release()
        counts.append(source.readinto(memoryview(bytearray(100))))
        raise BadArchive("cut off")

    monkeypatch.setattr(early, "unpacked", reading)
    coming = tmp_path / "layer"
    coming.write_bytes(b"piece")
    with Early(Stacks(store, cast(Worker, None))) as begun:
        assert begun.follow(coming) and begun.follow(coming)
        assert started.acquire(timeout=20) and started.acquire(timeout=20)
        third = begun.follow(coming)
        assert third is not None
        third.wrote(b"piece")
        third.end()
    assert counts == [0, 0, 0]
