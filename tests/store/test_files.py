from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbcontain.errors import DiskFailed, StoreError
from nbcontain.store import files, removal


def test_replace_makes_a_file_hold_exactly_these_bytes(tmp_path: Path) -> None:
    files.replace(tmp_path / "f", b"long before")
    files.replace(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_twin_that_was_quicker_is_left_alone(tmp_path: Path) -> None:
    for name in ("mine", "published"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert not files.publish(tmp_path / "mine", tmp_path / "published")
    assert os.listdir(tmp_path / "published") == ["published"]


def test_what_came_in_an_image_of_another_engine_is_taken_away_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories of an overlay's lower layer cannot be renamed: a store that a RUN of docker's made has them."""
    gone: list[str] = []

    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)

    def unlink(path: str | bytes, *, dir_fd: int | None = None, into: object = os.unlink) -> None:
        gone.append(Path(os.fsdecode(path)).name)
        into(path, dir_fd=dir_fd)  # type: ignore[operator]

    layer, tmp = tmp_path / "layer", tmp_path / "tmp"
    (layer / "fs" / "etc").mkdir(parents=True)
    tmp.mkdir()
    for name in ("fs/etc/hosts", "synced", "parent"):
        (layer / name).touch()
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "unlink", unlink)
    aside = removal.set_aside(layer, tmp)
    assert not layer.exists()
    assert gone[-1] == "hosts", "what says that it is whole goes before what it is"
    aside.remove(removal.remove_tree)
    assert list(tmp.iterdir()) == []


def test_sweeping_leaves_what_somebody_makes_and_takes_what_nobody_does(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from nbcontain.store import files\n"
        "with files.temporary(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env={"PYTHONPATH": os.getcwd()})
    [dead] = tmp_path.iterdir()
    with files.temporary(tmp_path), files.temporary_directory(tmp_path):
        assert list(files.sweep(tmp_path)) == [dead]


def test_a_lock_excludes_threads_too(tmp_path: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with files.lock(tmp_path / "lock", exclusive=True):
            entered.set()

    thread = threading.Thread(target=enter)
    with files.lock(tmp_path / "lock", exclusive=False):
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5)
    assert entered.is_set()


def test_try_lock_says_who_is_alive(tmp_path: Path) -> None:
    held = files.try_lock(tmp_path / "lock")
    assert held is not None
    assert files.try_lock(tmp_path / "lock") is None
    os.close(held)
    again = files.try_lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_locks_do_not_outlive_exec(tmp_path: Path) -> None:
    held = files.try_lock(tmp_path / "lock")
    assert held is not None
    with subprocess.Popen(["sleep", "5"], close_fds=False) as child:
        os.close(held)
        again = files.try_lock(tmp_path / "lock")
        child.kill()
    assert again is not None
    os.close(again)


def test_only_a_regular_file_of_a_sane_size_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name in ("fifo", "large"):
        with pytest.raises(StoreError):
            files.read(tmp_path / name, 10)
    (tmp_path / "link").symlink_to("large")
    with pytest.raises(OSError, match="symbolic links"):
        files.read(tmp_path / "link", 100)


def test_removing_a_tree_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").touch()
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/sub/link").symlink_to(tmp_path / "outside")
    removal.remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/canary").exists()


def test_removing_a_tree_ignores_the_rights_of_its_directories(tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/f").touch()
    (tmp_path / "tree/sub").chmod(0o500)
    (tmp_path / "tree").chmod(0)
    removal.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("times", [1, 4])
def test_what_is_made_in_a_tree_while_it_is_removed_goes_too(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by who mounts a layer that he had been told of, for a container that could not be started."""
    work = tmp_path / "tree" / "work"
    work.mkdir(parents=True)
    rmdir, left = os.rmdir, [times]

    def racing(name: bytes, *, dir_fd: int) -> None:
        if name == b"work" and left[0]:
            left[0] -= 1
            (work / f"work{left[0]}").mkdir()
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", racing)
    removal.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    removal.remove_tree(tmp_path / "nothing")


def test_a_place_where_nothing_can_be_made_is_an_error_and_no_endless_try() -> None:
    # gVisor's /proc says that it is not permitted.
    with pytest.raises((FileNotFoundError, PermissionError)), files.temporary_directory(Path("/proc")):
        pass


def test_what_nfs_keeps_because_it_is_open_stays_for_a_later_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of NFS gives a file that is removed while it is open another name, which is busy (nfs(5))."""
    unlink = os.unlink
    is_open = True

    def as_on_nfs(name: bytes, *, dir_fd: int) -> None:
        if is_open and name.startswith(b".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        if is_open and name == b"open":
            os.rename(name, b".nfs0001", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        else:
            unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", as_on_nfs)
    for directory in ("flat", "deep/below"):
        (tmp_path / directory).mkdir(parents=True)
        for name in ("a", "open", "z"):
            (tmp_path / directory / name).touch()
    for name in ("flat", "deep"):
        removal.remove_tree(tmp_path / name)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["deep", "deep/below", "deep/below/.nfs0001", "flat", "flat/.nfs0001"]
    is_open = False
    for name in ("flat", "deep"):
        removal.remove_tree(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_read_only_is_told_of_as_one(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed) as told, files.disk(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert "can be written to" in told.value.hint
