from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import archives
import needs
import old_kernel
from archives import Member, archive, directory, link, listing, member, symlink, unpack
from nbcontain.errors import BadArchive, StoreError
from nbcontain.store import pack as packing
from nbcontain.store import removal, tar
from nbcontain.store.layers import Added, Deleted, Modified, changes, tar_of
from nbcontain.store.metadata import Metadata
from nbcontain.store.open_directories import MANY
from nbcontain.store.owners import Ledger
from nbcontain.store.pack import Pipe
from nbcontain.store.plain_members import PlainMembers


@pytest.fixture(autouse=True, params=["this kernel", "an old one"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "an old one":
        old_kernel.pretended(monkeypatch)


@pytest.fixture(autouse=True, params=["Python", "own code"])
def _maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes plain members of a layer: in these small ones from the first on."""
    if request.param == "own code":
        monkeypatch.setattr(archives, "PLAIN", PlainMembers)
        monkeypatch.setattr(Metadata, "own", (os.geteuid(), os.getegid()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text("alive")
    inside = tmp_path / "fs"
    inside.mkdir()
    return inside


def pack(root: Path, *, overlay: bool = True, skip: frozenset[str] = frozenset()) -> bytes:
    out = bytearray()
    tar_of(str(root), out.extend, overlay=overlay, userxattr=True, skip=skip)
    return bytes(out)


def names(data: bytes) -> list[str]:
    import io

    reader, found = tar.Reader(io.BytesIO(data)), []
    while (entry := reader.next()) is not None:
        found.append(entry.name.decode())
    return found


# --- unpacking ---


def test_files_directories_and_links_come_out_as_they_went_in(root: Path) -> None:
    applied = unpack(
        root,
        archive(
            directory("bin/", 0o711),
            member("bin/sh", data=b"#!", mode=0o4755),
            link("bin/ash", "bin/sh"),
            symlink("l", "bin"),
        ),
    )
    assert listing(root) == {"bin": "directory", "bin/ash": "#!", "bin/sh": "#!", "l": "-> bin"}
    assert (root / "bin/sh").stat().st_ino == (root / "bin/ash").stat().st_ino
    assert stat.S_IMODE((root / "bin/sh").stat().st_mode) == 0o4755
    assert ((root / "bin").stat().st_mtime, stat.S_IMODE((root / "bin").stat().st_mode)) == (1, 0o711)
    assert (applied.entries, applied.size_bytes) == (4, 2)


def test_the_diff_id_is_of_the_uncompressed_bytes(root: Path) -> None:
    data = archive(member("f"))
    assert unpack(root, gzip.compress(data)).diff_id.hex == hashlib.sha256(data).hexdigest()


def test_missing_directories_are_made(root: Path) -> None:
    unpack(root, archive(member("a/b/c", data=b"x")))
    assert listing(root)["a/b/c"] == "x"


@pytest.mark.parametrize("name", ["/abs", "//abs", "./abs", ".//./abs"])
def test_every_path_is_relative_to_the_root(root: Path, name: str) -> None:
    unpack(root, archive(member(name, data=b"x")))
    assert listing(root) == {"abs": "x"}


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "a/..", "/../x"])
def test_a_path_that_points_out_is_refused(root: Path, name: str) -> None:
    with pytest.raises(BadArchive, match="points out"):
        unpack(root, archive(member(name, data=b"x")))
    assert listing(root.parent / "outside") == {"canary": "alive"}


@pytest.mark.parametrize("target", ["../outside", "..", "../../../../../..", "/", "/proc/self/root", "/proc/self/cwd"])
def test_what_goes_through_a_symlink_stays_inside(root: Path, target: str) -> None:
    unpack(root, archive(symlink("l", target), member("l/canary", data=b"dead"), member("l/etc/passwd", data=b"dead")))
    assert listing(root.parent / "outside") == {"canary": "alive"}
    assert "dead" in listing(root).values()


def test_an_absolute_symlink_is_resolved_beneath_the_root(root: Path) -> None:
    unpack(root, archive(directory("usr/bin/"), symlink("bin", "/usr/bin"), member("bin/sh", data=b"x")))
    assert listing(root)["usr/bin/sh"] == "x"


def test_symlinks_that_chase_each_other_are_refused(root: Path) -> None:
    with pytest.raises(BadArchive, match="too many symlinks"):
        unpack(root, archive(symlink("a", "b"), symlink("b", "a"), member("a/x")))


def test_a_file_replaces_a_symlink_and_not_its_target(root: Path) -> None:
    unpack(root, archive(symlink("canary", "../outside/canary"), member("canary", data=b"new")))
    assert listing(root) == {"canary": "new"}
    assert listing(root.parent / "outside") == {"canary": "alive"}


def test_a_replaced_directory_is_not_written_through_its_old_fd(root: Path) -> None:
    unpack(root, archive(member("d/a", data=b"1"), symlink("d", "e"), member("d/b", data=b"2")))
    assert listing(root) == {"d": "-> e", "e": "directory", "e/b": "2"}


def test_the_last_of_several_entries_wins(root: Path) -> None:
    unpack(
        root,
        archive(
            member("x", data=b"file"), directory("x/"), member("x/y"), symlink("x", "z"), member("x", data=b"last")
        ),
    )
    assert listing(root) == {"x": "last"}


def test_a_directory_named_twice_keeps_its_content(root: Path) -> None:
    unpack(root, archive(directory("d/", 0o755), member("d/f", data=b"x"), directory("d/", 0o700)))
    assert listing(root)["d/f"] == "x"
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o700


def test_many_small_files_and_some_large_ones_are_each_as_the_archive_says(root: Path) -> None:
    # The first fill pieces with their headers, which end between two of them.
    sizes = [1500] * 300 + [0, 1, 511, 512, 513, 5_000, 100_000, 300_000, 700_000] * 10
    wanted = {
        f"f{number}": ((f"{number} " * size)[:size], 0o755 if number % 3 else 0o4755, number)
        for number, size in enumerate(sizes)
    }
    members = [
        member(name, data=text.encode(), mode=mode, mtime_ns=time_s * 1_000_000_000)
        for name, (text, mode, time_s) in wanted.items()
    ]
    unpack(root, archive(*members))
    assert {
        name: ((root / name).read_text(), stat.S_IMODE((root / name).stat().st_mode), (root / name).stat().st_mtime)
        for name in os.listdir(root)
    } == wanted


def test_a_name_that_comes_back_does_not_get_what_the_first_was_to_have(root: Path) -> None:
    late = {"mtime_ns": 5_000_000_000}
    unpack(root, archive(
        member("f", data=b"first"), link("g", "f"), member("f", data=b"last", mode=0o600, **late), link("h", "f"),
        member("d", data=b"file"), directory("d/", **late), member("d/x", data=b"in it"),
    ))  # fmt: skip
    assert listing(root) == {"f": "last", "g": "first", "h": "last", "d": "opaque directory", "d/x": "in it"}
    assert [(root / name).stat().st_mtime for name in "fghd"] == [5, 1, 5, 5]


def test_whose_a_name_is_that_comes_back_is_what_its_last_entry_says(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no attributes here")

    monkeypatch.setattr(os, "setxattr", refused)
    lines: list[bytes] = []
    first, last = member("f", uid=5, gid=6), member("f", tar.SYMLINK, link=b"g", uid=7, gid=8)
    unpack(root, archive(member("e"), first, last), ids="single", ledger=Ledger(write=lines.append))
    assert Ledger(b"".join(lines)).owner(None, b"f", (root / "f").lstat()) == (7, 8)


def opened() -> Iterator[str]:
    """What this process has open."""
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("bad", [link("l", "nothing"), member("../out"), member("x" * 300)])
def test_nothing_stays_open_of_an_archive_that_is_refused(root: Path, bad: Member) -> None:
    with pytest.raises(BadArchive):
        unpack(root, archive(*(member(f"f{number}", data=b"x") for number in range(9)), bad))
    # In there only: threads of other tests' stores open and close what they have.
    assert [target for target in opened() if target.startswith(os.path.realpath(root))] == []


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777, 0o2755, 0o500, 0o7777])
def test_a_directory_has_its_own_mode_and_time(root: Path, mode: int) -> None:
    unpack(root, archive(directory("d/", mode), directory("d/e/", mode), member("d/e/f", data=b"x")))
    for path in (root / "d", root / "d/e"):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime) == (mode, 1)
        path.chmod(0o700)


def test_what_became_something_else_does_not_get_the_time_of_the_directory_that_it_was(root: Path) -> None:
    late = 5_000_000_000
    unpack(root, archive(
        directory("d/", 0o644), member("d/e/f"), member("d", data=b"x", mtime_ns=late),
        directory("g/"), directory("g/h/", 0o644), member("g", data=b"x"), directory("g/"),
        member("g/h", data=b"x", mtime_ns=late),
    ))  # fmt: skip
    assert [(root / name).stat().st_mtime for name in ("d", "g/h", "g")] == [5, 5, 1]


def test_a_directory_without_any_right_still_gets_its_content(root: Path) -> None:
    unpack(root, archive(directory("d/", 0), member("d/f", data=b"x")))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0
    (root / "d").chmod(0o700)


@pytest.mark.parametrize("target", ["missing", "../outside/canary", "/etc/passwd", "l/canary", ".", "d", ""])
def test_a_hard_link_leads_only_to_a_file_of_the_layer(root: Path, target: str) -> None:
    with pytest.raises(BadArchive):
        unpack(root, archive(directory("d/"), symlink("l", "../outside"), link("x", target)))


def test_a_hard_link_to_itself_does_no_harm(root: Path) -> None:
    unpack(root, archive(member("x", data=b"1"), link("x", "x")))
    assert listing(root) == {"x": "1"}


def test_a_hard_link_is_made_where_it_belongs_however_many_directories_are_open(root: Path) -> None:
    """Looking for its source could close the directory that it goes to, and open another by the same number."""
    full = [member(f"d{number}/f", data=b"") for number in range(2 * MANY - 1)]
    unpack(root, archive(member("s/f", data=b"source"), *full, link(f"d{len(full) - 1}/link", "s/f")))
    assert [path.relative_to(root).as_posix() for path in root.rglob("link")] == [f"d{len(full) - 1}/link"]
    assert (root / f"d{len(full) - 1}/link").read_text() == "source"


def test_overwriting_one_of_two_links_leaves_the_other(root: Path) -> None:
    unpack(root, archive(member("a", data=b"old"), link("b", "a"), member("b", data=b"new")))
    assert listing(root) == {"a": "old", "b": "new"}


def test_a_file_is_no_directory(root: Path) -> None:
    with pytest.raises(BadArchive, match="no directory"):
        unpack(root, archive(member("a"), member("a/b")))


def test_the_root_stays_a_directory(root: Path) -> None:
    with pytest.raises(BadArchive, match="root directory"):
        unpack(root, archive(symlink("./", "/etc")))


def test_a_name_no_disk_can_hold_is_refused(root: Path) -> None:
    with pytest.raises(BadArchive, match="256 bytes"):
        unpack(root, archive(member("x" * 256)))


def test_a_very_deep_path_is_unpacked_and_packed_and_removed(root: Path) -> None:

    unpack(root, archive(member("d/" * 2000 + "f", data=b"x")))
    assert names(pack(root))[-1] == "d/" * 2000 + "f"
    removal.remove_tree(root)
    assert not root.exists()


def test_strange_bytes_in_names_are_kept(root: Path) -> None:
    unpack(root, archive(member(b"a\nb\xff\x01", data=b"x")))
    assert os.listdir(os.fsencode(root)) == [b"a\nb\xff\x01"]


def test_attributes_of_overlayfs_and_of_the_host_are_dropped(root: Path) -> None:
    forged = {
        b"user.overlay.opaque": b"y",
        b"trusted.overlay.redirect": b"/",
        b"security.selinux": b"x",
        b"user.kept": b"1",
    }
    unpack(root, archive(directory("d/", xattrs=forged), member("f", xattrs=forged)))
    assert os.listxattr(root / "d") == os.listxattr(root / "f") == ["user.kept"]


def test_a_forged_whiteout_device_is_left_out(root: Path) -> None:
    applied = unpack(root, archive(member("w", tar.CHARACTER, major=0, minor=0), member("f", data=b"x")))
    assert (listing(root), applied.skipped) == ({"f": "x"}, 1)


def test_with_a_single_id_everything_belongs_to_the_caller(root: Path) -> None:
    applied = unpack(
        root, archive(member("f", uid=7, gid=8, mode=0o6755), member("g", uid=0, gid=0, mode=0o4755)), ids="single"
    )
    assert applied.lost_owners == 1
    assert (root / "f").stat().st_uid == os.getuid()
    # A program that was to run as somebody must not run as somebody else.
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in "fg"] == [0o755, 0o4755]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_owners_are_kept(root: Path) -> None:
    unpack(root, archive(directory("d/", uid=5, gid=6), member("d/f", uid=7, gid=8, mode=0o6755), symlink("l", "x")))
    status = (root / "d/f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (7, 8, 0o6755)
    assert ((root / "d").stat().st_uid, (root / "d").stat().st_gid) == (5, 6)


# --- whiteouts ---


def test_a_whiteout_hides_what_is_below(root: Path) -> None:
    unpack(root, archive(member("d/.wh.gone")))
    assert listing(root) == {"d": "directory", "d/gone": "whiteout"}


def test_an_opaque_marker_hides_all_below(root: Path) -> None:
    unpack(root, archive(member("d/new", data=b"x"), member("d/.wh..wh..opq")))
    assert listing(root) == {"d": "opaque directory", "d/new": "x"}


@pytest.mark.parametrize(
    "members",
    [(member(".wh.f"), member("f", data=b"x")), (member("f", data=b"x"), member(".wh.f"))],
    ids=["before", "after"],
)
def test_a_whiteout_does_not_hide_what_its_own_layer_has(root: Path, members: tuple[Member, ...]) -> None:
    unpack(root, archive(*members))
    assert listing(root) == {"f": "x"}


@pytest.mark.parametrize(
    "members",
    [
        (member(".wh.d"), member("d/f", data=b"x")),
        (member("d/f", data=b"x"), member(".wh.d")),
        (member(".wh.d"), directory("d/"), member("d/f", data=b"x")),
    ],
    ids=["before", "after", "named"],
)
def test_a_directory_that_was_deleted_and_made_anew_shows_nothing_of_below(
    root: Path, members: tuple[Member, ...]
) -> None:
    unpack(root, archive(*members))
    assert listing(root) == {"d": "opaque directory", "d/f": "x"}


@pytest.mark.parametrize("first", [member("d", data=b"x"), symlink("d", "elsewhere"), member("d", tar.FIFO)])
def test_a_directory_in_the_place_of_what_was_none_shows_nothing_of_below(root: Path, first: Member) -> None:
    unpack(root, archive(first, directory("d/", 0o711), member("d/f", data=b"x")))
    assert listing(root) == {"d": "opaque directory", "d/f": "x"}
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh."])
def test_a_whiteout_of_nothing_is_refused(root: Path, name: str) -> None:
    with pytest.raises(BadArchive, match="whiteout"):
        unpack(root, archive(member(name)))


def test_metadata_of_aufs_is_left_out(root: Path) -> None:
    assert unpack(root, archive(member(".wh..wh.plnk"))).skipped == 1
    assert listing(root) == {}


def test_a_whiteout_through_a_symlink_stays_inside(root: Path) -> None:
    unpack(root, archive(symlink("l", "../outside"), member("l/.wh.canary")))
    assert listing(root.parent / "outside") == {"canary": "alive"}


# --- packing ---


def test_a_layer_survives_the_round_trip(root: Path) -> None:
    members = (
        directory("d/", 0o1777, xattrs={b"user.x": b"\0\n="}),
        member("d/.wh.gone"),
        directory("e/"),
        member("e/.wh..wh..opq", mode=0),
        member("f" * 120, data=b"x" * 5000),
        link("g", "f" * 120),
        symlink("l", "y" * 200),
        member("p", tar.FIFO),
    )
    unpack(root, archive(*members))
    again = root.parent / "again"
    again.mkdir()
    unpack(again, pack(root))
    assert listing(again) == listing(root)
    assert pack(again) == pack(root)
    assert os.getxattr(again / "d", "user.x") == b"\0\n="


def test_the_same_tree_gives_the_same_bytes_whatever_the_order_of_its_making(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    members = [directory("a/"), member("a/x", data=b"1"), member("b", data=b"2")]
    for place, order in ((one, members), (two, members[::-1])):
        place.mkdir()
        unpack(place, archive(*order))
    assert pack(one) == pack(two)


@pytest.mark.parametrize("can_splice", [True, False])
def test_what_goes_through_a_pipe_by_reference_is_the_same_tar(
    root: Path, can_splice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "no splice here")

    if not can_splice:
        monkeypatch.setattr(os, "splice", refused)
    for number in range(200):
        (root / f"small{number:03}").write_bytes(b"%d" % number * number)
    (root / "large").write_bytes(random.Random(1).randbytes(3_000_001))
    (root / "sparse").touch()
    os.truncate(root / "sparse", 700_000)
    reading, writing = os.pipe()
    found: list[bytes] = []
    with open(reading, "rb") as stream:
        reader = threading.Thread(target=lambda: found.append(stream.read()))
        reader.start()
        try:
            pipe = Pipe(writing)
            tar_of(str(root), pipe.write, overlay=True, userxattr=True, send=pipe.send)
            pipe.flush()
        finally:
            # Whatever went wrong: who reads would wait for more, and closing for that one.
            os.close(writing)
            reader.join()
    assert found == [pack(root)]


def test_a_deleted_directory_becomes_one_whiteout(root: Path) -> None:
    unpack(root, archive(member("a/.wh.d")))
    assert names(pack(root)) == ["a/", "a/.wh.d"]


def test_outside_an_overlay_a_device_that_would_hide_something_elsewhere_is_refused(root: Path) -> None:
    unpack(root, archive(member(".wh.null")))
    with pytest.raises(StoreError, match="/null is a device with the number 0/0"):
        pack(root, overlay=False)


@pytest.mark.parametrize("name", ["b", "d"])
def test_what_is_gone_after_it_was_listed_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unpack(root, archive(member("a"), member("b"), member("c"), directory("d")))
    kind_of = packing._kind_of

    def listed(entry: os.DirEntry[str]) -> int:
        kind = kind_of(entry)
        if entry.name == name:
            (root / name).rmdir() if entry.is_dir() else (root / name).unlink()
        return kind

    monkeypatch.setattr(packing, "_kind_of", listed)
    assert names(pack(root)) == [each for each in ("a", "b", "c", "d/") if each.strip("/") != name]


def test_sockets_are_left_out(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "s"))
        assert names(pack(root)) == []


def test_mount_points_are_left_out_unless_something_is_in_them(root: Path) -> None:
    unpack(
        root,
        archive(
            directory("dev/"),
            directory("run/"),
            member("run/kept"),
            directory("etc/"),
            member("etc/hosts"),
            member("etc/x"),
        ),
    )
    assert names(pack(root, skip=frozenset({"/dev", "/run", "/etc", "/etc/hosts"}))) == [
        "etc/",
        "etc/x",
        "run/",
        "run/kept",
    ]


def test_a_whole_tree_survives_gnu_tar(root: Path, tmp_path: Path) -> None:
    program = needs.program("tar")
    unpack(
        root,
        archive(
            directory("d/"), member("d/" + "n" * 150, data=b"x" * 3000), link("h", "d/" + "n" * 150), symlink("s", "d")
        ),
    )
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run([program, "-x", "-C", str(there)], input=pack(root), check=True)
    assert listing(there) == listing(root)
    back = subprocess.run([program, "-c", "-C", str(there), "."], capture_output=True, check=True).stdout
    again = tmp_path / "again"
    again.mkdir()
    unpack(again, back)
    assert pack(again) == pack(root)


# --- what changed ---


def test_changes_tell_what_was_added_modified_and_deleted(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    unpack(lower, archive(member("etc/old"), member("etc/same"), member("dir/inner")))
    unpack(
        upper,
        archive(
            member("etc/.wh.old"),
            member("etc/.wh.never"),
            member("etc/same", data=b"x"),
            member("etc/new"),
            member("dir/.wh..wh..opq"),
        ),
    )
    assert list(changes(str(upper), [str(lower)], userxattr=True)) == [
        Modified("/dir"),
        Deleted("/dir/inner"),
        Modified("/etc"),
        Added("/etc/new"),
        Deleted("/etc/old"),
        Modified("/etc/same"),
    ]


def test_a_directory_is_changed_for_a_mount_points_sake_only_if_nothing_else_of_it_is(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for place in (lower, upper):
        place.mkdir()
        unpack(place, archive(directory("same/"), directory("mode/"), directory("noted/"), symlink("link", place.name)))
    for name in ("same", "mode", "noted"):
        (upper / name / "point").touch()
    (upper / "mode").chmod(0o711)
    os.setxattr(upper / "noted", "user.note", b"new")
    skip = frozenset({"/same/point", "/mode/point", "/noted/point", "/link/point"})
    found = list(changes(str(upper), [str(lower)], userxattr=True, skip=skip))
    assert found == [Modified("/link"), Modified("/mode"), Modified("/noted")]


def test_what_a_middle_layer_deleted_is_added_again(tmp_path: Path) -> None:
    upper, middle, lower = (tmp_path / name for name in ("upper", "middle", "lower"))
    for place, content in ((lower, member("f")), (middle, member(".wh.f")), (upper, member("f", data=b"x"))):
        place.mkdir()
        unpack(place, archive(content))
    assert list(changes(str(upper), [str(middle), str(lower)], userxattr=True)) == [Added("/f")]
