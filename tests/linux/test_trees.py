"""Making mount points in a tree that means harm: nothing outside is ever touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import old_kernel
from nbcontain.linux import directories, trees


@pytest.fixture(params=["openat2", "without openat2"])
def outside(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory beside the root, which must stay empty; on either kind of kernel."""
    if request.param != "openat2":
        old_kernel.pretended(monkeypatch)
    (tmp_path / "root").mkdir()
    directory = tmp_path / "outside"
    directory.mkdir()
    yield directory
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert os.listdir(directory) == []


def made_in(root: Path, path: str, *, directory: bool = True) -> list[str]:
    """Make a target; gives what had to be made, after checking that it is the very thing that is there."""
    made: list[str] = []
    root_fd = os.open(root, os.O_PATH)
    try:
        fd = trees.make_target(root_fd, path, made, directory=directory)
        assert os.readlink(f"/proc/self/fd/{fd}").startswith(str(root))
        assert trees.is_directory(fd) == directory
        os.close(fd)
    finally:
        os.close(root_fd)
    return made


def test_what_is_missing_is_made_and_told(outside: Path) -> None:
    root = outside.parent / "root"
    assert made_in(root, "/a/b/c") == ["/a", "/a/b", "/a/b/c"]
    assert made_in(root, "/a/b/file", directory=False) == ["/a/b/file"]
    assert made_in(root, "/a/b/../b/./c") == []


@pytest.mark.parametrize("link", ["/outside", "../../outside", "../outside", "/../../../outside"])
def test_a_symlink_leads_no_further_than_the_root(outside: Path, link: str) -> None:
    root = outside.parent / "root"
    (root / "way").symlink_to(link)
    assert made_in(root, "/way/in") == ["/outside", "/outside/in"]
    assert (root / "outside" / "in").is_dir()


def test_a_link_to_nothing_is_followed_and_its_end_made(outside: Path) -> None:
    root = outside.parent / "root"
    (root / "etc").mkdir()
    (root / "etc" / "resolv.conf").symlink_to("../run/systemd/stub.conf")
    assert made_in(root, "/etc/resolv.conf", directory=False) == ["/run", "/run/systemd", "/run/systemd/stub.conf"]


def test_a_circle_of_links_is_an_error(outside: Path) -> None:
    root = outside.parent / "root"
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        made_in(root, "/a/in")
    assert caught.value.filename == "/a/in"


def test_a_file_in_the_way_is_an_error(outside: Path) -> None:
    root = outside.parent / "root"
    (root / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        made_in(root, "/file/below")


def test_a_symlink_that_takes_a_new_directorys_place_leads_nothing_to_it(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As another container does in a volume that both have, just then.
    root, make = outside.parent / "root", os.mkdir
    outside.chmod(0o700)

    def overtaken(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        (root / name).rmdir()
        (root / name).symlink_to(outside)

    monkeypatch.setattr(os, "mkdir", overtaken)
    before = os.umask(0o077)
    try:
        with pytest.raises(AssertionError):
            made_in(root, "/volume")
    finally:
        os.umask(before)
    assert outside.stat().st_mode & 0o777 == 0o700


parts = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c"]), min_size=1, max_size=5).map("/".join)


@settings(max_examples=60)
@given(links=st.lists(st.tuples(st.sampled_from("abc"), parts), max_size=3), path=parts)
def test_no_tree_of_links_leads_out(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]], path: str
) -> None:
    top = tmp_path_factory.mktemp("tree")
    root = top / "root"
    root.mkdir()
    for name, target in links:
        if not os.path.lexists(root / name) and target:
            (root / name).symlink_to(target)
    try:
        made_in(root, f"/{path}")
    except (OSError, AssertionError) as error:
        assert isinstance(error, OSError), error
    assert os.listdir(top) == ["root"]


PLACES = ["a", "b", "c", "d/a", "d/e/b"]
FLAGS = [os.O_PATH, os.O_PATH | os.O_NOFOLLOW, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW, os.O_RDONLY]


@settings(max_examples=150, deadline=None)
@given(
    links=st.lists(st.tuples(st.sampled_from(PLACES), parts | parts.map("/".__add__)), max_size=4),
    path=parts | st.sampled_from(["d/a", "d/e/b/f", "f", "d/f/", "d/e/../f", "d/e/../../..", "d/../../top"]),
    flags=st.sampled_from(FLAGS),
)
def test_an_old_kernel_opens_within_a_root_what_a_new_one_does(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]], path: str, flags: int
) -> None:
    top = tmp_path_factory.mktemp("tree")
    (top / "root/d/e").mkdir(parents=True)
    for name in ("root/f", "root/d/f", "root/d/e/f", "f"):
        (top / name).write_text(name)
    for name, target in links:
        if not os.path.lexists(top / "root" / name) and target:
            (top / "root" / name).symlink_to(target)
    root_fd = os.open(top / "root", os.O_PATH)

    def opened() -> object:
        try:
            fd = trees.open_in(root_fd, path, flags)
        except OSError as error:
            # A name behind a file is no name either.
            return "none" if error.errno in (errno.ENOENT, errno.ENOTDIR) else error.errno
        status = os.fstat(fd)
        os.close(fd)
        return status.st_dev, status.st_ino

    try:
        new = opened()
        with pytest.MonkeyPatch.context() as patch:
            old_kernel.pretended(patch)
            old = opened()
    finally:
        os.close(root_fd)
    assert old == new


@pytest.mark.parametrize("is_old", [False, True])
def test_a_directory_is_opened_and_a_link_to_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    (tmp_path / "d/below").mkdir(parents=True)
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "f").write_text("")
    if is_old:
        old_kernel.pretended(monkeypatch)
        assert directories.follows(str(tmp_path / "l"))
    above = os.open(tmp_path, os.O_PATH)
    fd = directories.open_directory("d", above)
    assert os.listdir(fd) == ["below"] and not os.get_inheritable(fd)
    for name, flags in (("l", os.O_RDONLY), ("l", os.O_PATH), ("f", os.O_RDONLY)):
        with pytest.raises(NotADirectoryError):
            directories.open_directory(name, above, flags)
    os.close(above)
    os.close(fd)


@pytest.fixture(params=["openat2", "without openat2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A directory, where the kernel has openat2(2) and where it has not (older releases of gVisor)."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/up").symlink_to("../..")
    (tmp_path / "a/link").symlink_to("b")
    if request.param != "openat2":
        old_kernel.pretended(monkeypatch)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["a/b/file", "./a//b/file"])
def test_what_lies_beneath_is_opened(tree: int, path: str) -> None:
    fd = trees.open_beneath(tree, path, os.O_RDONLY | os.O_NOFOLLOW)
    assert os.read(fd, 2) == b"x"
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("a/link/file", os.O_RDONLY, errno.ELOOP),
        ("a/up/etc/passwd", os.O_PATH | os.O_NOFOLLOW, errno.ELOOP),
        ("a/link", os.O_PATH, errno.ELOOP),
        ("a/link", os.O_RDONLY | os.O_NOFOLLOW, errno.ELOOP),
        ("../x", os.O_PATH, errno.EXDEV),
        ("/etc/passwd", os.O_PATH, errno.EXDEV),
        ("a/b/file/x", os.O_PATH, errno.ENOTDIR),
        ("a/b/file", os.O_PATH | os.O_DIRECTORY, errno.ENOTDIR),
        ("a/none", os.O_PATH, errno.ENOENT),
    ],
)
def test_what_leads_elsewhere_is_not(tree: int, path: str, flags: int, number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        os.close(trees.open_beneath(tree, path, flags))


def test_a_link_and_the_directory_itself_can_be_looked_at(tree: int) -> None:
    fd = trees.open_beneath(tree, "a/link", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=fd) == "b"
    os.close(fd)
    fd = trees.open_beneath(tree, ".", os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(fd) == ["a"]
    os.close(fd)
