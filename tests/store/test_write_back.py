"""What is stored is there at once, and after a power cut whole, or as if it had not been."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

import needs
from machine import until
from nbcontain.errors import DiskFailed, DiskFull, ImageNotFound
from nbcontain.linux import boot
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX, MANIFEST, Descriptor, Image, ImageConfig, Index, Platform
from nbcontain.oci.indexes import ImageIndex, index_from
from nbcontain.oci.reference import Reference
from nbcontain.store import Store, files, gc, write_back
from nbcontain.store.check import Check
from stores import add_image, check

HELLO = Reference.parse("hello")


@pytest.fixture(autouse=True)
def _kernel() -> None:
    """Of file systems and boots older releases of gVisor tell otherwise than Linux."""
    needs.kernel()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced in the background."""
    monkeypatch.setattr(write_back.WriteBack, "_run", lambda self: None)


def is_marked(store: Store, digest: Digest) -> bool:
    return stat.S_IMODE(os.stat(store.blobs.path(digest)).st_mode) == 0o444


def restarted(store: Store, monkeypatch: pytest.MonkeyPatch, name: str = "the next boot") -> Store:
    monkeypatch.setattr(boot, "boot_id", lambda: name)
    return Store.open(store.layout.root, userxattr=True)


def lost(store: Store, *digests: Digest) -> None:
    """Names came through, their bytes did not."""
    for digest in digests:
        path = store.blobs.path(digest)
        size = path.stat().st_size
        path.chmod(0o600)
        path.write_bytes(bytes(size))


def layer(image: Image) -> Digest:
    return image.manifest.layers[-1].digest


def findings(store: Store) -> list[str]:
    """All but unpacked layers, which are made again after a power cut."""
    found = Check(store, full=True).everything()
    return [f"{each.kind} {each.subject}" for each in found if each.kind != "leftover"]


def test_an_image_is_there_at_once_and_on_the_disk_a_moment_later(store: Store) -> None:
    image = add_image(store, "x")
    assert Store.open(store.layout.root).images.get(HELLO) == image
    until(lambda: all(is_marked(store, each) for each in (image.id, image.digest, layer(image))))


@pytest.mark.usefixtures("unhurried")
def test_what_came_through_unmarked_holds_and_is_marked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add_image(store, "x")
    assert not is_marked(store, layer(image))
    after = restarted(store, monkeypatch)
    assert after.images.get(HELLO) == image
    assert all(is_marked(after, each) for each in (image.id, image.digest, layer(image)))
    assert not after.layout.unsettled.exists()
    assert findings(after) == []


@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
@pytest.mark.usefixtures("unhurried")
def test_an_image_that_did_not_come_through_was_never_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    image = add_image(store, "x")
    lost(store, {"layer": layer(image), "config": image.id, "manifest": image.digest}[part])
    after = restarted(store, monkeypatch)
    with pytest.raises(ImageNotFound):
        after.images.get(HELLO)
    assert (after.images.list(), findings(after)) == ([], [])
    assert add_image(after, "x") == image
    check(after)


@pytest.mark.usefixtures("unhurried")
def test_a_name_that_moved_to_what_did_not_come_through_is_where_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = add_image(store, "old")
    store.write_back.settle()
    new = add_image(store, "new")
    kept = add_image(store, "kept", name="kept")
    lost(store, layer(new))
    after = restarted(store, monkeypatch)
    assert dict(after.images.list()) == {
        HELLO: old, Reference.parse("kept"): kept,
    }  # fmt: skip
    assert findings(after) == []


@pytest.mark.parametrize("bytes_left", [b"", b'{"schemaVersion":2,"man', b"\0" * 300])
@pytest.mark.usefixtures("unhurried")
def test_a_list_of_images_that_did_not_come_through_is_the_last_that_was_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch, bytes_left: bytes
) -> None:
    old = add_image(store, "old")
    store.write_back.settle()
    add_image(store, "new", name="new")
    store.layout.index.write_bytes(bytes_left)
    after = restarted(store, monkeypatch)
    assert after.images.list() == [(HELLO, old)]


@pytest.mark.usefixtures("unhurried")
def test_a_list_that_did_not_come_through_costs_no_more_than_what_was_not_settled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one before was settled by a process that stored nothing but a name."""
    image = add_image(store, "x")
    store.write_back.settle()
    store.images.tag(image, Reference.parse("again"))
    store.write_back.settle()
    add_image(store, "late", name="late")
    store.layout.index.write_bytes(b"")
    after = restarted(store, monkeypatch)
    assert after.images.list() == [(HELLO, image), (Reference.parse("again"), image)]


@pytest.mark.usefixtures("unhurried")
def test_what_others_have_not_synced_yet_is_synced_before_it_counts_as_settled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store.open(store.layout.root, userxattr=True)
    image = add_image(other, "x")
    store.blobs.put([b"mine"], "")
    store.write_back.settle()
    assert all(is_marked(store, each) for each in (image.id, image.digest, layer(image)))
    store.layout.index.write_bytes(b"")
    assert restarted(store, monkeypatch).images.list() == [(HELLO, image)]


@pytest.mark.usefixtures("unhurried")
def test_what_is_removed_while_it_is_being_synced_does_not_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(store, "x")
    kept = add_image(store, "kept", name="kept")
    sync = files.sync_file

    def meanwhile(fd: int) -> None:
        sync(fd)
        monkeypatch.setattr(files, "sync_file", sync)
        Store.open(store.layout.root).images.remove(HELLO)

    monkeypatch.setattr(files, "sync_file", meanwhile)
    store.write_back.settle()
    store.layout.index.write_bytes(b"")
    assert restarted(store, monkeypatch).images.list() == [(Reference.parse("kept"), kept)]


@pytest.mark.usefixtures("unhurried")
def test_what_was_removed_does_not_come_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its own name, nor as what that name stood for before."""
    add_image(store, "one", name="one")
    add_image(store, "first", name="two")
    store.write_back.settle()
    add_image(store, "second", name="two")
    for name in ("one", "two"):
        store.images.remove(Reference.parse(name))
    left = add_image(store, "left", name="left")
    after = restarted(store, monkeypatch)
    assert after.images.list() == [(Reference.parse("left"), left)]


@pytest.mark.usefixtures("unhurried")
def test_what_a_power_cut_would_bring_back_is_not_collected_before_what_took_its_place_is_on_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(store, "old")
    store.write_back.settle()
    new = add_image(store, "new")
    gc.collect(store, list)
    assert all(is_marked(store, each) for each in (new.id, new.digest, layer(new)))
    after = restarted(store, monkeypatch)
    assert after.images.list() == [(HELLO, new)]


@pytest.mark.usefixtures("unhurried")
def test_an_index_that_did_not_come_through_as_a_whole_is_what_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def index_of(*images: Image) -> ImageIndex:
        entries = tuple(
            Descriptor(MANIFEST, each.digest, len(each.raw_manifest), platform=Platform("linux", arch))
            for each, arch in zip(images, ("amd64", "arm64"), strict=True)
        )
        return index_from(codec.dump_index(Index(entries, media_type=INDEX)))

    first = index_of(add_image(store, "a", name=None), add_image(store, "b", name=None))
    store.images.put_index(first, HELLO)
    store.write_back.settle()
    late = add_image(store, "d", name=None)
    store.images.put_index(index_of(add_image(store, "c", name=None), late), HELLO)
    lost(store, layer(late))
    after = restarted(store, monkeypatch)
    assert after.images.index(HELLO) == first


def test_a_restart_that_is_cut_off_is_gone_on_with(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add_image(store, "x")
    store.close()
    replace = files.replace

    def full(path: Path, *_: object, **__: object) -> None:
        if path == store.layout.index:
            raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files, "replace", full)
    with pytest.raises(DiskFull):
        restarted(store, monkeypatch)
    monkeypatch.setattr(files, "replace", replace)
    after = restarted(store, monkeypatch)
    assert after.images.list() == [(HELLO, image)]
    assert not after.layout.unsettled.exists()


def test_a_store_that_cannot_be_written_to_is_read_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add_image(store, "x")
    store.close()

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", read_only)
        assert restarted(store, monkeypatch).images.list() == [(HELLO, image)]
    assert store.layout.unsettled.exists()


# --- who syncs, and when ---


def test_what_a_dead_process_left_is_synced_by_the_next_that_stores_something(store: Store) -> None:
    image = add_image(store, "x")
    store.close()
    time.sleep(0.1)
    assert not is_marked(store, layer(image))
    other = Store.open(store.layout.root, userxattr=True)
    other.blobs.put([b"more"], "")
    until(lambda: is_marked(store, layer(image)))


def test_nothing_is_synced_after_closing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, sync = threading.Event(), files.sync_file

    def slowly(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.3)
        sync(fd)

    first = store.blobs.put([b"first"], "").digest
    monkeypatch.setattr(files, "sync_file", slowly)
    assert begun.wait(20)
    second = store.blobs.put([b"second"], "").digest
    store.close()
    assert is_marked(store, first)
    time.sleep(0.5)
    assert not is_marked(store, second)
    third = store.blobs.put([b"third"], "").digest
    until(lambda: is_marked(store, third))


@pytest.mark.usefixtures("unhurried")
def test_the_record_is_on_the_disk_before_anything_is_that_needs_it_and_stays_for_the_whole_boot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    rename, sync = files._rename, files.sync_directory
    monkeypatch.setattr(files, "_rename", lambda one, other: (rename(one, other), told.append(other.name)))
    monkeypatch.setattr(files, "sync_directory", lambda path: (sync(path), told.append(path.name)))
    digest = store.blobs.put([b"x"], "").digest
    assert told == ["unsettled", "store", digest.hex]
    store.write_back.settle()
    inode = store.layout.unsettled.stat().st_ino
    Store.open(store.layout.root).blobs.put([b"y"], "")
    assert store.layout.unsettled.stat().st_ino == inode


@pytest.mark.usefixtures("unhurried")
def test_a_mark_is_not_set_on_what_took_the_place_of_what_was_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.blobs.put([b"x"], "").digest
    sync = files.sync_file

    def replaced(fd: int) -> None:
        sync(fd)
        monkeypatch.setattr(files, "sync_file", sync)
        store.blobs.remove(digest)
        Store.open(store.layout.root).blobs.put([b"x"], "")

    monkeypatch.setattr(files, "sync_file", replaced)
    store.write_back.settle()
    assert not is_marked(store, digest)


@pytest.mark.parametrize("where", ["no boot has a name", "a file system of a network"])
def test_where_it_could_be_lost_later_everything_is_synced_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "no boot has a name":
        monkeypatch.setattr(boot, "boot_id", lambda: "")
    else:
        monkeypatch.setattr(write_back, "OF_THIS_MACHINE", frozenset())
    image = add_image(store, "x")
    assert all(is_marked(store, each) for each in (image.id, image.digest, layer(image)))
    assert not store.layout.unsettled.exists()


def test_a_disk_that_fails_afterwards_is_told_once_and_trusted_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fails(fd: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "broken")

    assert store.write_back.begin()
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_file", fails)
        digest = store.blobs.put([b"x"], "").digest
        assert failed.wait(20)
        until(lambda: store.write_back._failure is not None)
    with pytest.raises(DiskFailed, match="fails") as raised:
        store.blobs.put([b"y"], "")
    assert "broken" in raised.value.why
    assert not is_marked(store, digest)
    later = store.blobs.put([b"z"], "").digest
    assert is_marked(store, later)


def test_many_processes_threads_and_a_collector_do_not_meet(store: Store) -> None:
    stop = time.monotonic() + 1.5
    problems: list[BaseException] = []

    def make(number: int) -> None:
        try:
            other = Store.open(store.layout.root, userxattr=True)
            while time.monotonic() < stop:
                with other.shared():
                    add_image(other, f"{number} {time.monotonic_ns() % 5}", name=f"image{number}")
                other.write_back.settle()
        except BaseException as error:  # noqa: BLE001 - looked at below
            problems.append(error)

    makers = [threading.Thread(target=make, args=(number,)) for number in range(2)]
    for each in makers:
        each.start()
    while time.monotonic() < stop:
        gc.collect(store, list)
    for each in makers:
        each.join(20)
    assert problems == []
    check(store)
    assert findings(store) == []


def test_a_config_without_layers_is_an_image_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.of(ImageConfig(cmd=("x",)), ())
    store.images.put(image, HELLO)
    store.close()
    kept = store.layout.root.with_name("kept")
    shutil.copytree(store.layout.root, kept, symlinks=True)
    assert restarted(store, monkeypatch).images.list() == [(HELLO, image)]
    # A copy of a store is taken for one after a restart, where its boot is another's.
    assert Store.open(kept).images.list() == [(HELLO, image)]
