"""Layers on their way to being snapshots."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import pytest

from nbcontain.errors import StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Descriptor, Layer
from nbcontain.store import Store
from nbcontain.store.snapshots import Snapshotter, Staging, Worker
from nbcontain.store.stacks import Arrivals, Stacks


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
