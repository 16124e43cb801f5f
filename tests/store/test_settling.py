"""Snapshots are usable before they are written out, and hold after a power cut only if they were."""

from __future__ import annotations

import time

import pytest

from nbcontain.oci.digest import ChainID, Digest
from nbcontain.store import Store, settling

NAME = ChainID(Digest.of(b"layer"))


def committed(store: Store, content: str = "x") -> None:
    with store.snapshots.staging() as staging:
        (staging.fs / "file").write_text(content)
        staging.commit(NAME, None)


def test_a_snapshot_is_there_at_once_and_is_marked_when_it_is_written_out(store: Store) -> None:
    committed(store)
    assert store.snapshots.exists(NAME)
    deadline = time.monotonic() + 20
    while not (store.layout.snapshot(NAME) / "synced").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_power_cut_what_was_not_written_out_is_not_there_and_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling.Settling, "_run", lambda self: None)
    committed(store, "cut off")
    monkeypatch.setattr(settling, "boot_id", lambda: "the next boot")
    assert not store.snapshots.exists(NAME)
    committed(store, "whole")
    assert (store.snapshots.exists(NAME), (store.layout.snapshot(NAME) / "fs/file").read_text()) == (True, "whole")


def test_what_was_written_out_holds_after_a_power_cut(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(store)
    store.snapshots.settle()
    monkeypatch.setattr(settling, "boot_id", lambda: "the next boot")
    assert store.snapshots.exists(NAME)


def test_a_container_that_is_kept_has_its_layers_written_out_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling.Settling, "_run", lambda self: None)
    committed(store)
    store.snapshots.prepare("kept", NAME, durable=True)
    monkeypatch.setattr(settling, "boot_id", lambda: "the next boot")
    assert store.snapshots.exists(NAME)


def test_where_no_boot_has_a_name_everything_is_written_out_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "boot_id", lambda: "")
    committed(store)
    assert (store.layout.snapshot(NAME) / "synced").exists()
