"""Layers on their way to being snapshots."""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from nbcontain.errors import BadArchive, StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Layer
from nbcontain.store import Store, early
from nbcontain.store.early import Early
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
    assert len(os.listdir("/proc/self/fd")) <= before


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
    assert len(os.listdir("/proc/self/fd")) <= descriptors


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
