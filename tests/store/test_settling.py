"""Snapshots are usable before they are written out, and hold after a power cut only if they were."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

import needs
from archives import archive, member
from machine import until
from nbcontain.errors import StoreError
from nbcontain.linux import boot, syscalls
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.store import Store, files, gc, settling
from stores import add_image

NAME = ChainID(Digest.of(b"layer"))
ABOVE = ChainID(Digest.of(b"layer above"))


def committed(store: Store, content: str = "x", name: ChainID = NAME, parent: ChainID | None = None) -> None:
    with store.snapshots.staging() as staging:
        (staging.fs / "file").write_text(content)
        staging.commit(name, parent)


def content(store: Store) -> str:
    return (store.layout.snapshot(NAME) / "fs/file").read_text()


def is_marked(store: Store, name: ChainID = NAME) -> bool:
    return (store.layout.snapshot(name) / "synced").exists()


@pytest.fixture(autouse=True)
def _kernel() -> None:
    """Of what was written out, and by whom, older releases of gVisor tell otherwise than Linux."""
    needs.kernel()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written out in the background."""
    monkeypatch.setattr(settling.Settling, "_run", lambda self: None)


def power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "boot_id", lambda: "the next boot")


def test_a_snapshot_is_there_at_once_and_is_marked_when_it_is_written_out(store: Store) -> None:
    committed(store)
    assert store.snapshots.exists(NAME)
    deadline = time.monotonic() + 20
    while not is_marked(store):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_written_after_closing_and_what_comes_later_is_written_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, written = threading.Event(), files.sync_filesystem_of

    def slowly(fd: int, directory: Path) -> None:
        begun.set()
        time.sleep(0.3)
        written(fd, directory)

    monkeypatch.setattr(files, "sync_filesystem_of", slowly)
    committed(store)
    assert begun.wait(20)
    committed(store, name=ABOVE, parent=NAME)
    store.close()
    assert is_marked(store) and store.snapshots.exists(ABOVE)
    time.sleep(0.5)
    assert not is_marked(store, ABOVE)
    other = ChainID(Digest.of(b"a third one"))
    committed(store, name=other)
    until(lambda: is_marked(store, other))


@pytest.mark.usefixtures("unhurried")
def test_after_a_power_cut_what_was_not_written_out_is_not_there_and_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(store, "cut off")
    power_cut(monkeypatch)
    assert not store.snapshots.exists(NAME)
    committed(store, "whole")
    assert (store.snapshots.exists(NAME), content(store)) == (True, "whole")


def test_what_was_written_out_holds_after_a_power_cut(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(store)
    store.snapshots.settle()
    power_cut(monkeypatch)
    assert store.snapshots.exists(NAME)


@pytest.mark.usefixtures("unhurried")
def test_a_container_that_is_kept_has_its_layers_written_out_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(store)
    committed(store, name=ABOVE, parent=NAME)
    store.snapshots.prepare("kept", ABOVE, durable=True)
    power_cut(monkeypatch)
    assert store.snapshots.exists(ABOVE)


def test_where_no_boot_has_a_name_everything_is_written_out_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "boot_id", lambda: "")
    committed(store)
    assert is_marked(store)


# --- who would be deceived ---


@pytest.mark.usefixtures("unhurried")
def test_a_mark_is_not_set_on_what_took_the_place_of_what_was_written_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collected and unpacked again by others, between the writing out and the mark."""
    committed(store, "written out")
    original = syscalls.syncfs

    def syncfs(fd: int) -> None:
        original(fd)
        monkeypatch.setattr(syscalls, "syncfs", original)
        other = Store.open(store.layout.root, userxattr=True)
        other.snapshots.remove(NAME)
        committed(other, "only in memory")

    monkeypatch.setattr(syscalls, "syncfs", syncfs)
    store.snapshots._settling._write_out_what_waits()
    assert not is_marked(store)
    power_cut(monkeypatch)
    assert not store.snapshots.exists(NAME)


@pytest.mark.usefixtures("unhurried")
def test_what_is_above_a_layer_that_was_lost_is_not_there_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper one's mark reached the disk, and the lower one's did not: marks are not synced."""
    committed(store)
    committed(store, name=ABOVE, parent=NAME)
    files.write_new(store.layout.snapshot(ABOVE) / "synced", b"")
    power_cut(monkeypatch)
    assert (store.snapshots.holds(ABOVE), store.snapshots.exists(ABOVE)) == (True, False)
    with pytest.raises(StoreError, match="does not hold") as raised:
        store.snapshots.prepare("container", ABOVE)
    assert "repair" in raised.value.hint
    assert list(store.snapshots.actives()) == []


@pytest.mark.usefixtures("unhurried")
def test_a_lower_layer_that_is_made_anew_is_not_taken_from_under_whoever_uses_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut two come upon the same half snapshot; the slower may not take away what the quicker made."""
    committed(store, "half")
    power_cut(monkeypatch)
    quicker = Store.open(store.layout.root, userxattr=True)
    is_sound = settling.Settling.is_sound
    asked: list[Path] = []

    def slow(self: settling.Settling, directory: Path) -> bool:
        found = is_sound(self, directory)
        if self is store.snapshots._settling and not asked:
            asked.append(directory)
            committed(quicker, "the quicker's")
        return found

    monkeypatch.setattr(settling.Settling, "is_sound", slow)
    inode = None
    with store.snapshots.staging() as staging:
        (staging.fs / "file").write_text("the slower's")
        staging.commit(NAME, None)
        inode = os.stat(store.layout.snapshot(NAME)).st_ino
    assert asked
    assert content(store) == "the quicker's"
    assert inode == os.stat(quicker.layout.snapshot(NAME)).st_ino


@pytest.mark.usefixtures("unhurried")
def test_a_disk_that_fails_while_it_writes_out_leaves_no_mark(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(store)

    def syncfs(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(syscalls, "syncfs", syncfs)
    store.snapshots._settling._write_out_what_waits()
    assert not is_marked(store)
    with pytest.raises(StoreError):
        store.snapshots.settle()
    assert not is_marked(store)


@pytest.mark.usefixtures("unhurried")
def test_the_witness_of_failed_writes_is_opened_before_the_first_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """syncfs(2) tells of an error only those who had something open before it happened."""
    opened: list[int] = []
    synced: list[int] = []
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: synced.append(os.fstat(fd).st_ino))
    for number in range(2):
        with store.snapshots.staging() as staging:
            opened.append(os.stat(staging.fs.parent).st_ino)
            assert os.listdir(staging.fs) == []
            assert str(staging.fs.parent) in {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()}
            (staging.fs / "file").write_text("x")
            staging.commit(ChainID(Digest.of(bytes([number]))), None)
    store.snapshots._settling._write_out_what_waits()
    # Another store's thread may still be at it.
    assert [each for each in synced if each in opened] == opened[:1]


def _descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


@pytest.mark.usefixtures("unhurried")
def test_many_that_wait_are_written_out_by_who_makes_them(store: Store) -> None:
    before = len(_descriptors())
    for number in range(60):
        committed(store, name=ChainID(Digest.of(bytes([number]))))
        assert len(_descriptors()) <= before + settling._MANY + 2
    assert sum(is_marked(store, ChainID(Digest.of(bytes([n])))) for n in range(60)) >= 60 - settling._MANY


def test_whoever_marks_and_whoever_collects_do_not_meet(store: Store) -> None:
    """A mark that appears in a directory while it is removed would leave it there, or end the collection."""
    stop = time.monotonic() + 1.5
    problems: list[BaseException] = []

    def make() -> None:
        try:
            other = Store.open(store.layout.root, userxattr=True)
            while time.monotonic() < stop:
                with other.shared():
                    committed(other)
                other.snapshots._settling._write_out_what_waits()
        except BaseException as error:  # noqa: BLE001 - looked at below
            problems.append(error)

    makers = [threading.Thread(target=make) for _ in range(2)]
    for each in makers:
        each.start()
    while time.monotonic() < stop:
        gc.collect(store, list)
    for each in makers:
        each.join(20)
    gc.collect(store, list)
    assert (problems, list(store.snapshots.walk()), os.listdir(store.layout.tmp)) == ([], [], [])


@pytest.mark.usefixtures("unhurried")
def test_a_layer_that_repair_made_again_is_written_out_before_the_repair_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was kept stands on it, and its marks said that all below was on the disk."""
    from nbcontain.soundness import Soundness
    from nbcontain.store.layers import apply_tar

    image = add_image(store, "one", "two")
    store.snapshots.prepare("kept", image.chain_id, durable=True)
    bottom = ChainID(image.layers[0].diff_id)
    shutil.rmtree(store.layout.snapshot(bottom) / "fs")

    def unpack(*_: object) -> None:
        import io

        with store.snapshots.staging() as staging:
            apply_tar(io.BytesIO(archive(member("file0", data=b"one"))), str(staging.fs), userxattr=True)
            staging.commit(bottom, None)

    Soundness(store, unpack).look(fix=True)
    power_cut(monkeypatch)
    assert store.snapshots.exists(image.chain_id)  # type: ignore[arg-type]
