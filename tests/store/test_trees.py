"""Whole trees in place of overlays: a copy, what was changed in it, and the same changes laid on the original."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import old_kernel
from archives import archive, directory, link, listing, member, symlink, unpack
from nbcontain.errors import BadArchive
from nbcontain.linux.boot import boot_id
from nbcontain.store import clone, tar, tree_index
from nbcontain.store.compression import uncompressed
from nbcontain.store.tree_changes import Comparison, TreePacker, tree_changes
from nbcontain.store.unpack import apply_tar
from nbcontain.store.unpack_tree import TreeTarget

BEFORE = archive(
    directory("etc/"), member("etc/passwd", data=b"root"), member("etc/hosts", data=b"localhost"),
    directory("bin/"), member("bin/tool", data=b"tool", mode=0o755), symlink("bin/t", "tool"),
    link("bin/tool2", "bin/tool"), directory("var/"),
    directory("var/empty/"), directory("var/lib/"), member("var/lib/db", data=b"x" * 5000),
)  # fmt: skip


@pytest.fixture(autouse=True, params=["this kernel", "an old one"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "an old one":
        old_kernel.pretended(monkeypatch)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    (tmp_path / "original").mkdir()
    unpack(tmp_path / "original", BEFORE)
    return tmp_path / "original"


def copied(original: Path, *, linked: bool = False) -> tuple[Path, bytes]:
    """A copy beside it, and its index."""
    target, index = original.parent / "copy", original.parent / "index"
    target.mkdir()
    clone.copy_tree(original.parent, original, target, index, linked=linked)
    return target, index.read_bytes()


def test_who_copies_a_tree_sees_whether_a_device_is_in_it(original: Path) -> None:
    (original / "special").mkdir()
    os.mkfifo(original / "special" / "pipe")

    def is_plain(name: str) -> bool:
        (original.parent / name).mkdir()
        return clone.copy_tree(original.parent, original, original.parent / name, None, linked=False)

    assert is_plain("before")
    try:
        os.mknod(original / "special" / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no device can be made here")
    assert not is_plain("after")


def changes_of(target: Path, original: Path, index: bytes | None, quiet: tuple[str, ...] = ()) -> bytes:
    out = bytearray()
    root, below = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (target, original))
    try:
        comparison = Comparison(root, below, index, boot_id())
        TreePacker(str(target), out.extend, None, comparison, frozenset(map(os.fsencode, quiet))).finish(frozenset())
    finally:
        os.close(root)
        os.close(below)
    return bytes(out)


def names_in(data: bytes) -> list[str]:
    reader = tar.Reader(io.BytesIO(data))
    found = []
    while (entry := reader.next()) is not None:
        found.append(entry.name.decode())
        reader.skip()
    return found


def lay(root: Path, data: bytes) -> None:
    apply_tar(uncompressed(io.BytesIO(data)), str(root), userxattr=True, target_type=TreeTarget)


def facts(root: Path) -> dict[str, object]:
    """All of a tree but the times of directories, which making something in them changes."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        time = None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns // 1_000_000_000
        found[str(path.relative_to(root))] = (status.st_mode, time, status.st_uid)
    return {"listing": listing(root), "facts": found}


def test_a_copy_is_the_same_and_nothing_is_changed_in_it(original: Path) -> None:
    target, index = copied(original)
    assert facts(target) == facts(original)
    assert (target / "bin/tool").stat().st_ino == (target / "bin/tool2").stat().st_ino
    assert (target / "bin/tool").stat().st_ino != (original / "bin/tool").stat().st_ino
    assert names_in(changes_of(target, original, index)) == names_in(changes_of(target, original, None)) == []


def test_a_linked_copy_has_the_same_files_and_its_index_stands_their_further_links(original: Path) -> None:
    target, index = copied(original, linked=True)
    assert (target / "etc/passwd").stat().st_ino == (original / "etc/passwd").stat().st_ino
    # Somebody else links the same files: that changes their ctime.
    os.link(original / "etc/passwd", original.parent / "third")
    assert names_in(changes_of(target, original, index)) == []
    (target / "etc/passwd").unlink()
    (target / "etc/passwd").write_text("root")
    assert names_in(changes_of(target, original, index)) == ["etc/", "etc/passwd"]


def test_a_change_that_hides_behind_size_and_time_is_found(original: Path) -> None:
    target, index = copied(original)
    before = (target / "etc/passwd").stat()
    (target / "etc/passwd").write_text("toor")
    os.utime(target / "etc/passwd", ns=(before.st_atime_ns, before.st_mtime_ns))
    for known in (index, None):
        assert names_in(changes_of(target, original, known)) == ["etc/", "etc/passwd"]


def test_a_change_in_the_same_tick_as_the_copy_is_found(original: Path) -> None:
    for attempt in range(20):
        target, index = copied(original)
        before = (target / "etc/passwd").stat()
        with open(target / "etc/passwd", "r+b") as file:
            file.write(b"toor")
        os.utime(target / "etc/passwd", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert "etc/passwd" in names_in(changes_of(target, original, index)), attempt
        shutil.rmtree(target)
        (original.parent / "index").unlink()


def test_where_ctime_does_not_tell_contents_are_compared(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_index, "TELLS_OF_CHANGES", frozenset())
    target, index = copied(original)
    known = index.replace(b'"trusted": true', b'"trusted": false')
    assert names_in(changes_of(target, original, known)) == []
    # What mmap(2) does on tmpfs: the file is another, and its status says nothing of it.
    (original / "etc/passwd").write_text("toor")
    os.utime(original / "etc/passwd", ns=(0, (target / "etc/passwd").stat().st_mtime_ns))
    assert names_in(changes_of(target, original, known)) == ["etc/", "etc/passwd"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]\n[]", b'nonsense\n\xff\n"end"', None])
def test_without_a_good_index_contents_are_compared(original: Path, damage: bytes | None) -> None:
    target, index = copied(original)
    (target / "var/lib/db").write_bytes(b"y" * 5000)
    os.utime(target / "var/lib/db", ns=(0, (original / "var/lib/db").stat().st_mtime_ns))
    assert names_in(changes_of(target, original, damage)) == ["var/", "var/lib/", "var/lib/db"]
    assert index.endswith(b'"end"\n')
    assert names_in(changes_of(target, original, index[:-8])) == ["var/", "var/lib/", "var/lib/db"]


@pytest.fixture
def volatile(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A directory in an overlay of two disks, whose directories have other numbers whenever it is mounted."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for each in (lower, upper, work, merged, upper / "store"):
        each.mkdir()
    mounted = 0

    def mount(*words: object) -> None:
        nonlocal mounted
        done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no overlay of two disks can be mounted here: {done.stderr.strip()}")
        mounted += 1

    def anew() -> Path:
        if mounted > 1:
            subprocess.run(["umount", merged], check=True)
            (upper / f"more{mounted}").mkdir()
        mount("-t", "overlay", "-o", f"xino=off,lowerdir={lower},upperdir={upper},workdir={work}", "overlay", merged)
        for each in merged.iterdir():
            each.stat()
        return merged / "store"

    mount("-t", "tmpfs", "tmpfs", lower)
    try:
        yield anew
    finally:
        subprocess.run(["umount", merged, lower], capture_output=True, check=False)


def test_where_directories_have_other_numbers_after_a_mount_they_are_the_same(volatile: Callable[[], Path]) -> None:
    before = volatile() / "original"
    before.mkdir()
    unpack(before, BEFORE)
    copied(before)
    original = volatile() / "original"
    target, index = original.parent / "copy", (original.parent / "index").read_bytes()
    assert names_in(changes_of(target, original, index)) == []
    shutil.rmtree(target / "var/lib")
    (target / "var/lib").mkdir()
    (target / "var/lib/new").write_text("n")
    assert names_in(changes_of(target, original, index)) == ["var/", "var/lib/", "var/lib/.wh.db", "var/lib/new"]


def test_what_is_gone_or_another_is_said_as_an_overlay_would(original: Path) -> None:
    if not boot_id():
        pytest.skip("this kernel tells no boot from another (gVisor): no index is believed, each name is compared")
    target, index = copied(original)
    (target / "etc/hosts").unlink()
    # Out of the way and not removed: its inode's number must not be free for the next.
    (target / "var/lib").rename(original.parent / "away")
    (target / "var/lib").mkdir()
    (target / "var/lib/new").write_text("n")
    (target / "bin/t").unlink()
    (target / "bin/t").mkdir()
    (target / "fresh").mkdir()
    expected = [
        "bin/", "bin/t/", "bin/t/.wh..wh..opq", "etc/", "etc/.wh.hosts", "fresh/", "var/", "var/lib/",
        "var/lib/.wh..wh..opq", "var/lib/new",
    ]  # fmt: skip
    assert names_in(changes_of(target, original, index)) == expected
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    below = os.open(original, os.O_RDONLY | os.O_DIRECTORY)
    comparison = Comparison(root, below, index, boot_id())
    told = [f"{type(each).__name__[0]} {each.path}" for each in tree_changes(root, comparison)]
    os.close(root)
    os.close(below)
    assert sorted(told) == [
        "A /fresh", "A /var/lib/new", "D /etc/hosts", "D /var/lib/db", "M /bin", "M /bin/t", "M /etc", "M /var",
        "M /var/lib",
    ]  # fmt: skip


def test_where_a_mount_point_was_made_only_the_time_of_the_directory_tells(original: Path) -> None:
    target, index = copied(original)
    (target / "etc/resolv.conf").touch()
    (target / "etc/resolv.conf").unlink()
    assert names_in(changes_of(target, original, index)) == ["etc/"]
    assert names_in(changes_of(target, original, index, ("etc",))) == []
    (target / "etc").chmod(0o700)
    assert names_in(changes_of(target, original, index, ("etc",))) == ["etc/"]


def test_a_layer_on_a_tree_never_writes_into_a_file_of_another_tree(original: Path) -> None:
    target, _ = copied(original, linked=True)
    before = facts(original)
    lay(
        target,
        archive(
            member("etc/passwd", data=b"new"), member("bin/tool", data=b"other", mode=0o700),
            member(".wh.var"), directory("etc/", mode=0o711), symlink("bin/tool2", "tool"),
        ),
    )  # fmt: skip
    assert facts(original) == before
    assert listing(target) == {
        "bin": "directory", "bin/t": "-> tool", "bin/tool": "other", "bin/tool2": "-> tool", "etc": "directory",
        "etc/hosts": "localhost", "etc/passwd": "new",
    }  # fmt: skip


def test_what_a_layer_hides_is_only_what_is_below_it(original: Path) -> None:
    lay(
        original,
        archive(
            directory("etc/"), member("etc/new"), member("etc/.wh..wh..opq"),
            member("var/lib/mine"), member("var/.wh.lib"), member(".wh.bin"), member("bin/tool", data=b"again"),
        ),
    )  # fmt: skip
    assert listing(original) == {
        "bin": "directory", "bin/tool": "again", "etc": "directory", "etc/new": "", "var": "directory",
        "var/empty": "directory", "var/lib": "directory", "var/lib/mine": "",
    }  # fmt: skip


def test_a_directory_in_the_place_of_what_was_none_is_one_as_any_other(original: Path) -> None:
    lay(original, archive(member("etc", data=b"x"), directory("etc/"), directory("bin/t")))
    found = listing(original)
    assert [found["etc"], found["bin/t"]] == ["directory", "directory"]
    assert not any(name.startswith("etc/") for name in found)


def test_a_layer_does_not_follow_symlinks_of_the_layers_below(original: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (original / "out").symlink_to(outside)
    (original / "file").write_text("in the way")
    lay(original, archive(member("out/x", data=b"x"), member("file/y", data=b"y"), member("bin/.wh.t")))
    assert list(outside.iterdir()) == []
    assert {"out/x": "x", "file/y": "y"}.items() <= listing(original).items()
    assert "bin/t" not in listing(original)


def test_a_hard_link_to_a_file_of_the_layers_below_is_refused(original: Path) -> None:
    with pytest.raises(BadArchive):
        lay(original, archive(link("mine", "etc/passwd")))
    with pytest.raises(BadArchive):
        lay(original, archive(member(".wh...")))


# --- whatever is done to a tree, its changes laid on the original give it again ---

PLACES = ("etc", "etc/passwd", "bin/tool", "bin/tool2", "bin/t", "var/lib", "var/lib/db", "var/empty", "new", "etc/new")
DEEDS = ("write", "append", "remove", "directory", "symlink", "mode", "touch", "rename", "link")


def do(root: Path, deed: str, place: str, other: str) -> None:
    """One change; whatever cannot be done there is left."""
    path, second = root / place, root / other
    try:
        match deed:
            case "write":
                path.unlink()
                path.write_text(other)
            case "append":
                with open(path, "a") as file:
                    file.write(other)
            case "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            case "directory":
                path.mkdir()
            case "symlink":
                path.symlink_to(other)
            case "mode":
                path.chmod(0o750)
            case "touch":
                os.utime(path, (1, 5), follow_symlinks=False)
            case "rename":
                path.rename(second)
            case "link":
                os.link(path, second, follow_symlinks=False)
    except OSError:
        return


@pytest.mark.parametrize("known", [True, False], ids=["by its index", "by contents"])
@settings(max_examples=60)
@given(deeds=st.lists(st.tuples(st.sampled_from(DEEDS), st.sampled_from(PLACES), st.sampled_from(PLACES)), max_size=8))
def test_changes_laid_on_the_original_give_the_changed(
    known: bool, deeds: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory_of_its_own = tmp_path_factory.mktemp("tree")
    original = directory_of_its_own / "original"
    original.mkdir()
    unpack(original, BEFORE)
    target, index = copied(original)
    for deed in deeds:
        do(target, *deed)
    layer = changes_of(target, original, index if known else None)
    again = directory_of_its_own / "again"
    again.mkdir()
    clone.copy_tree(directory_of_its_own, original, again, None, linked=True)
    before = facts(original)
    lay(again, layer)
    assert facts(again) == facts(target)
    assert facts(original) == before
    shutil.rmtree(directory_of_its_own)
