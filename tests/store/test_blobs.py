from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from nbcontain.errors import DigestMismatch, DiskFull, StoreError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor
from nbcontain.store import Store, files


def everything(root: Path) -> list[str]:
    """All that is in the store, but for the record of what a power cut is undone by."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != "unsettled")


def test_a_blob_is_named_by_its_digest(store: Store) -> None:
    descriptor = store.blobs.put([b"he", b"llo"], "text/plain")
    assert descriptor == Descriptor("text/plain", Digest.of(b"hello"), 5)
    assert store.blobs.read(descriptor.digest, 10) == b"hello"
    assert list(store.blobs.walk()) == [descriptor.digest]


def test_putting_it_twice_changes_nothing(store: Store) -> None:
    store.blobs.put([b"hello"], "")
    before = store.blobs.path(Digest.of(b"hello")).stat().st_ino
    store.blobs.put([b"hello"], "")
    assert store.blobs.path(Digest.of(b"hello")).stat().st_ino == before


@pytest.mark.parametrize("chunks", [[b"hellO"], [b"hell"], [b"hello", b"!"], [b"x" * 9]])
def test_other_bytes_than_expected_are_refused_and_leave_nothing(store: Store, chunks: list[bytes]) -> None:
    before = everything(store.layout.root)
    with pytest.raises(DigestMismatch):
        store.blobs.put(chunks, "", Descriptor("", Digest.of(b"hello"), 5))
    assert everything(store.layout.root) == before


def test_an_abandoned_blob_leaves_nothing(store: Store) -> None:
    before = everything(store.layout.root)
    with pytest.raises(KeyboardInterrupt), store.blobs.writer() as writer:
        writer.write(b"half")
        raise KeyboardInterrupt
    assert everything(store.layout.root) == before


def test_a_damaged_blob_is_found_out_at_its_end(store: Store) -> None:
    digest = store.blobs.put([b"hello"], "").digest
    store.blobs.path(digest).chmod(0o600)
    store.blobs.path(digest).write_bytes(b"hellO")
    with pytest.raises(DigestMismatch), store.blobs.open(digest) as blob:
        assert blob.read(5) == b"hellO"
        blob.read(1)


@pytest.mark.parametrize("size", [0, 5, (4 << 20) + 3, 30 << 20])
def test_what_is_hashed_beside_is_the_same_and_judged_the_same(store: Store, size: int) -> None:
    data = os.urandom(1 << 20) * (size >> 20) + os.urandom(size & ((1 << 20) - 1))
    digest = store.blobs.put([data], "").digest
    with store.blobs.open_beside(digest) as blob:
        assert blob.read() == data
        # Its end may be asked for more than once.
        assert [blob.read(10) for _ in range(9)] == [b""] * 9
    if not data:
        return
    store.blobs.path(digest).chmod(0o600)
    store.blobs.path(digest).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestMismatch), store.blobs.open_beside(digest) as blob:
        blob.read()


def test_who_reads_no_further_leaves_no_thread_that_hashes(store: Store) -> None:
    digest = store.blobs.put([bytes(20 << 20)], "").digest
    before = {*threading.enumerate()}
    with pytest.raises(KeyboardInterrupt), store.blobs.open_beside(digest) as blob:
        blob.read(17 << 20)
        raise KeyboardInterrupt
    assert {*threading.enumerate()} <= before  # others' may have ended meanwhile


def test_a_missing_blob_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="sha256:2cf24dba"):
        store.blobs.open(Digest.of(b"hello"))


def test_a_blob_larger_than_asked_for_is_not_read(store: Store) -> None:
    with pytest.raises(StoreError, match="larger than 4"):
        store.blobs.read(store.blobs.put([b"hello"], "").digest, 4)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_by_name_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(number, os.strerror(number))

    before = everything(store.layout.root)
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(DiskFull, match=str(store.layout.root)):
        store.blobs.put([b"hello"], "")
    assert everything(store.layout.root) == before
