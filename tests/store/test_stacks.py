"""Layers on their way to being snapshots."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from typing import cast

import pytest

from nbcontain.errors import StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Layer
from nbcontain.store import Store
from nbcontain.store.snapshots import Snapshotter, Staging, Worker
from nbcontain.store.stacks import Arrivals, Stacks


def test_who_feeds_a_layer_that_cannot_be_begun_does_not_wait_for_good(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staging(self: Snapshotter, parent: object = None) -> AbstractContextManager[Staging]:
        raise StoreError("no place to unpack it")

    monkeypatch.setattr(Snapshotter, "staging", staging)
    digest = Digest.of(b"layer")
    layer = Layer(Descriptor(LAYER_TAR_GZIP, digest, 5), DiffID(digest))
    before = len(os.listdir("/proc/self/fd"))
    arrivals = Arrivals(Stacks(store, cast(Worker, None)), [layer])
    feed = arrivals.feed(layer)
    assert feed is not None
    writer = threading.Thread(target=feed.write, args=(bytes(3 << 20),), daemon=True)
    writer.start()
    with pytest.raises(StoreError, match="no place"):
        arrivals.wait()
    writer.join(10)
    assert not writer.is_alive()
    feed.close()
    # Fewer, where what earlier tests left open has been collected meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before
