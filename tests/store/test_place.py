"""Where the store is when nobody says: not on a network's file system, nor where nobody can write."""

from __future__ import annotations

import os
import pwd
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from nbcontain.__main__ import main
from nbcontain.errors import DiskFailed, StoreError
from nbcontain.store import files
from nbcontain.store import place as places
from nbcontain.store.layout import Layout
from nbcontain.store.place import Place, file_systems, place, refuse_anothers, unless_unfit

MOUNTS = """\
22 1 {device} / / rw,relatime shared:1 - {kind} server:/export/home rw,vers=4.2
23 22 0:999 / /proc rw - proc proc rw
damaged
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a disk beside it that is told to be this machine's own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "disk").mkdir()
    mounted_as(monkeypatch, tmp_path, "nfs4")
    return tmp_path / "home"


def mounted_as(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str) -> None:
    device = os.stat(path).st_dev
    text = MOUNTS.format(device=f"{os.major(device)}:{os.minor(device)}", kind=kind)
    monkeypatch.setattr(places, "_mounts", lambda: text)
    # Both are on one file system here; that the disk is another one is told.
    own = places.networked
    monkeypatch.setattr(places, "networked", lambda path, mounts: "" if "disk" in path.parts else own(path, mounts))


def chosen(home: Path) -> Place:
    return unless_unfit(Layout(home / "store"), os.geteuid(), (str(home.parent / "disk"),))


def mine(home: Path) -> Path:
    return home.parent / "disk" / f"nbcontain-{os.geteuid()}"


def test_a_home_on_a_network_is_no_place_for_a_store_and_that_is_told(home: Path) -> None:
    first, again = chosen(home), chosen(home)
    assert first.layout.root == again.layout.root == mine(home)
    assert (first.is_new, again.is_new) == (True, False)
    assert "nfs4" in first.why and str(home) in first.notice and str(mine(home)) in first.notice
    assert os.stat(mine(home)).st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a home that is to be read only")
def test_a_home_that_is_to_be_read_only_is_no_place_for_a_store(tmp_path: Path) -> None:
    """As in a pod whose root file system is read-only."""
    for name in ("home", "disk"):
        (tmp_path / name).mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path / "home"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        found = chosen(tmp_path / "home")
        usual = Layout(tmp_path / "home" / "none" / "store")
        assert unless_unfit(usual, os.geteuid(), (str(tmp_path / "none"),)) == Place(usual)
    finally:
        subprocess.run(["umount", tmp_path / "home"], check=True)
    assert found == Place(Layout(mine(tmp_path / "home")), f"{tmp_path / 'home'} cannot be written to", is_new=True)


def test_what_somebody_says_holds_and_so_does_a_store_that_is_there(home: Path) -> None:
    said = {"HOME": str(home), "NBCONTAIN_ROOT": str(home / "x")}
    assert place(said, os.geteuid()) == Place(Layout(home / "x"))
    (home / "store").mkdir()
    (home / "store" / "version").write_text("1")
    assert chosen(home) == Place(Layout(home / "store"))


def test_a_directory_that_others_could_have_made_is_not_taken(home: Path) -> None:
    os.symlink(home, mine(home))
    assert chosen(home) == Place(Layout(home / "store"))
    mine(home).unlink()
    mine(home).mkdir()
    mine(home).chmod(0o777)
    assert chosen(home).why == ""


@pytest.mark.parametrize(
    ("kind", "is_moved"),
    [("ext4", False), ("lustre", True), ("fuse.sshfs", True), ("fuse.fuse-overlayfs", False), ("9p", True)],
)
def test_each_kind(home: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_moved: bool) -> None:
    monkeypatch.undo()
    mounted_as(monkeypatch, home, kind)
    assert (places.networked(home, places._mounts()) == kind) is is_moved


def test_what_is_mounted_is_read_from_the_kernel() -> None:
    kinds = file_systems(Path("/proc/self/mountinfo").read_text())
    assert "proc" in kinds.values() and "" not in kinds.values()
    device = os.stat("/proc").st_dev
    assert kinds[f"{os.major(device)}:{os.minor(device)}"] == "proc"


def test_a_disk_that_cannot_be_written_to_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = places.files.make_new_directory

    def as_on_a_read_only_disk(path: Path, mode: int = 0o700) -> None:
        if path.parent.name == "var-disk":
            raise DiskFailed(f"the disk under {path.parent} fails", why="Read-only file system")
        made(path, mode)

    monkeypatch.setattr(places.files, "make_new_directory", as_on_a_read_only_disk)
    monkeypatch.setattr(places, "networked", lambda path, mounts: "nfs4" if "home" in path.parts else "")
    disks = (str(home.parent / "var-disk"), str(home.parent / "disk"))
    assert unless_unfit(Layout(home / "store"), os.geteuid(), disks).layout.root == mine(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to others")
@pytest.mark.parametrize(
    ("owner", "mine", "is_taken"), [(4321, 1234, False), (1234, 1234, True), (0, 1234, True), (4321, 0, True)]
)
def test_a_directory_that_another_user_has_laid_ready_is_no_place_for_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mine: int, is_taken: bool
) -> None:
    """As in /dev/shm or on a cluster's scratch: whose it is may put links in the place of what is in it."""
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, owner, owner)
    monkeypatch.setattr(os, "getuid", lambda: mine)
    with nullcontext() if is_taken else pytest.raises(StoreError, match="another user's"):
        refuse_anothers(Layout(root))
    assert os.listdir(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to others")
def test_where_all_files_are_one_users_a_store_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers of networks may show them: what is made here would be that user's too."""
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    os.chown(tmp_path, 4321, 4321)
    open_new = files.open_new

    def squashed(path: Path) -> int:
        fd = open_new(path)
        os.fchown(fd, 4321, 4321)
        return fd

    monkeypatch.setattr(files, "open_new", squashed)
    refuse_anothers(Layout(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to others")
@pytest.mark.parametrize("verb", ["ps", "images", "rename a b"])
def test_no_command_works_in_another_users_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    os.chown(tmp_path, 4321, 4321)
    monkeypatch.setenv("NBCONTAIN_ROOT", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    assert main(verb.split()) == 1
    assert "is another user's directory" in capsys.readouterr().err and os.listdir(tmp_path) == []


def test_who_has_no_variable_of_a_home_has_the_one_of_the_account() -> None:
    """As in a service, or with `env -i`."""
    account = pwd.getpwuid(1)
    assert place({}, account.pw_uid).layout.root == Path(account.pw_dir, ".local/share/nbcontain")
    with pytest.raises(StoreError, match="no place"):
        place({}, 1_000_650_000)
