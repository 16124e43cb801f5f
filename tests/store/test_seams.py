"""A layer on what it lies on: what its tar does not say is as it is below, in both forms and for every kind of user."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import places
from archives import Member, archive, directory, layer_of, link, listing, member, unpack
from machine import Machine
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.oci.digest import ChainID
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import tar
from nbcontain.store.fitting import fit, fit_ledger
from nbcontain.store.owners import Ledger
from nbcontain.store.plain_members import PlainMembers
from nbcontain.store.seams import Seams
from nbcontain.store.unpack_tree import TreeTarget


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "fs").mkdir()
    (tmp_path / "below").mkdir()
    return tmp_path / "fs"


def fitted(root: Path, data: bytes, below: bytes | None) -> dict[str, str]:
    """What is in the layer once it lies on the other."""
    applied = unpack(root, data)
    place, under = os.open(root, os.O_RDONLY), -1
    if below is not None:
        unpack(root.parent / "below", below)
        under = os.open(root.parent / "below", os.O_RDONLY)
    fit(place, under, Seams.parse(applied.seams.written()), userxattr=True)
    for fd in {place, under} - {-1}:
        os.close(fd)
    return listing(root)


def mode_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), int(status.st_mtime)


# --- what is told of it ---


def test_a_layer_whose_directories_are_named_has_no_seams(root: Path) -> None:
    seams = unpack(root, archive(directory("d"), member("d/e/f"), directory("d/e"), member("g"))).seams
    assert (seams, seams.written()) == (Seams(), b"")


def test_directories_without_a_name_and_with_whiteouts_are_told_of(root: Path) -> None:
    data = archive(member("d/e/f"), member("d/.wh.g"), member("d/.wh.h"), directory("x"), member("x/.wh..wh..opq"))
    seams = unpack(root, data).seams
    assert seams == Seams((b"d", b"d/e"), (b"d",))
    assert Seams.parse(seams.written()) == seams


def test_a_layer_on_a_whole_tree_has_none(root: Path) -> None:
    assert unpack(root, archive(member("d/f"), member("d/.wh.g")), target_type=TreeTarget).seams == Seams()


# --- directories ---


def test_a_directory_that_a_layer_does_not_name_is_as_it_is_below(root: Path) -> None:
    tmp = directory("tmp", 0o1777, xattrs={b"user.a": b"1"})
    below = archive(tmp, directory("home", 0o711), directory("home/u", 0))
    assert fitted(root, archive(member("tmp/app"), member("home/u/app"), member("new/app")), below)
    assert [mode_and_time(root / name) for name in ("tmp", "home", "home/u")] == [(0o1777, 1), (0o711, 1), (0, 1)]
    assert os.getxattr(root / "tmp", "user.a") == b"1"
    assert mode_and_time(root / "new")[0] == 0o755


def test_a_directory_in_the_place_of_what_is_none_below_is_its_own(root: Path) -> None:
    below = archive(member("f"), directory("d", 0o700))
    fitted(root, archive(member("f/app"), member(".wh.d"), member("d/app")), below)
    assert [mode_and_time(root / name)[0] for name in ("f", "d")] == [0o755, 0o755]


@pytest.mark.parametrize("opaque", ["", "a/"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_directory_in_what_hides_all_below_is_its_own(root: Path, opaque: str, is_first: bool) -> None:
    hides, file = member(f"{opaque}.wh..wh..opq"), member("a/d/f")
    layer = archive(*((hides, file) if is_first else (file, hides)))
    below = archive(directory("a", 0o711), directory("a/d", 0o700))
    fitted(root, layer, below)
    tree = root.parent / "below"
    unpack(tree, layer, target_type=TreeTarget)
    assert mode_and_time(root / "a/d")[0] == mode_and_time(tree / "a/d")[0] == 0o755
    assert mode_and_time(root / "a")[0] == mode_and_time(tree / "a")[0] == (0o711 if opaque else 0o755)


# --- whiteouts ---


def test_whiteouts_in_a_directory_that_is_below_stay(root: Path) -> None:
    found = fitted(root, archive(directory("d"), member("d/.wh.x"), member(".wh.y")), archive(directory("d")))
    assert found == {"d": "directory", "d/x": "whiteout", "y": "whiteout"}


@pytest.mark.parametrize("below", [None, archive(member("d")), archive(directory("e"))], ids=["nothing", "a file", "e"])
def test_whiteouts_in_a_directory_that_is_not_below_are_no_names(root: Path, below: bytes | None) -> None:
    found = fitted(root, archive(directory("d", 0o700), member("d/.wh.x"), member("d/z")), below)
    assert found == {"d": "directory", "d/z": ""}
    assert mode_and_time(root / "d") == (0o700, 1)


@pytest.mark.parametrize("opaque", ["", "a/", "a/d/"])
def test_whiteouts_in_what_hides_all_below_are_no_names(root: Path, opaque: str) -> None:
    data = archive(directory("a"), directory("a/d"), member("a/d/.wh.x"), member(f"{opaque}.wh..wh..opq"))
    found = fitted(root, data, archive(directory("a"), directory("a/d"), member("a/d/x")))
    assert "a/d/x" not in found


# --- ledgers ---


def recorded(root: Path, data: bytes, known: bytes = b"", **options: object) -> tuple[list[bytes], Seams]:
    """The lines that unpacking where there is one id adds to these, and the seams."""
    lines: list[bytes] = []
    ledger = Ledger(known, lines.append)
    return lines, unpack(root, data, ids="single", ledger=ledger, **options).seams


def owner(root: Path, lines: list[bytes], name: str) -> tuple[int, int]:
    return Ledger(b"".join(lines)).owner(None, name.encode(), (root / name).lstat())


def of(uid: int, name: str, target: str = "x") -> Member:
    return member(name, tar.SYMLINK, link=target.encode(), uid=uid, gid=uid)


@pytest.mark.parametrize("plain", [None, PlainMembers], ids=["Python", "own code"])
@pytest.mark.parametrize("middle", [(), (member(".wh.a"),)], ids=["over it", "after it was removed"])
def test_roots_link_in_the_place_of_anothers_is_roots_on_a_whole_tree(
    root: Path, middle: tuple[Member, ...], plain: type[PlainMembers] | None
) -> None:
    lines, _ = recorded(root, archive(of(1000, "a"), of(1000, "b")))
    upper = archive(*middle, of(0, "a", "y"))
    more, _ = recorded(root, upper, b"".join(lines), target_type=TreeTarget, plain=plain)
    assert (owner(root, lines + more, "a"), owner(root, lines + more, "b")) == ((0, 0), (1000, 1000))


def test_the_last_of_several_links_of_one_name_says_whose_it_is(root: Path) -> None:
    lines, _ = recorded(root, archive(of(1000, "d/a"), member("d"), directory("d"), of(0, "d/a")))
    assert owner(root, lines, "d/a") == (0, 0)


def test_roots_link_over_anothers_of_a_layer_below_is_roots(root: Path) -> None:
    below, _ = recorded(root.parent / "below", archive(of(1000, "a"), of(1000, "b"), of(1000, "d/c"), of(1000, "e")))
    lines, seams = recorded(root, archive(of(0, "a", "y"), of(7, "b"), member("d/other")))
    place = os.open(root, os.O_RDONLY)
    fit_ledger(place, frozenset(seams.unnamed), Ledger(b"".join(lines), lines.append), Ledger(b"".join(below)))
    os.close(place)
    assert [owner(root, below + lines, name) for name in "ab"] == [(0, 0), (7, 7)]
    assert [owner(root.parent / "below", below + lines, name) for name in ("d/c", "e")] == [(1000, 1000)] * 2


def test_a_hard_link_is_whose_the_first_name_is(root: Path) -> None:
    lines, _ = recorded(root, archive(of(1000, "a"), link("b", "a")))
    assert owner(root, lines, "b") == (1000, 1000)
    more, _ = recorded(root, archive(of(0, "c"), link("a", "c")), b"".join(lines), target_type=TreeTarget)
    assert owner(root, lines + more, "a") == (0, 0)


def test_where_no_file_has_attributes_the_same_holds_of_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "setxattr", refuse)
    anothers = {"uid": 1000, "gid": 1000}
    lines, _ = recorded(root, archive(member("f", **anothers), link("g", "f"), directory("d", **anothers)))
    assert [owner(root, lines, name) for name in "fgd"] == [(1000, 1000)] * 3
    mine = {"uid": 0, "gid": 0, "mtime_ns": 9 * 10**9}
    upper = archive(member("f", **mine), directory("d", **mine))
    more, _ = recorded(root, upper, b"".join(lines), target_type=TreeTarget)
    assert [owner(root, lines + more, name) for name in "fgd"] == [(0, 0), (1000, 1000), (0, 0)]


# --- the whole way ---


@pytest.fixture(params=["overlay", "copy"])
def engine(request: pytest.FixtureRequest, profile: str) -> Iterator[Engine]:
    settings = {**os.environ, "NBCONTAIN_STORAGE_DRIVER": request.param}
    with places.store_directory() as place, Engine(place, settings) as engine:
        yield engine
        # Nothing is written in the background any more.
        engine.store.close()
        for each in engine.store.snapshotters:
            each.remove_tree(each.shelf.root)


def exported(engine: Engine, *layers: bytes) -> dict[str, tuple[str, int, int]]:
    """What an image of these layers shows: mode, owner and group of each name."""
    made = [layer_of(each) for each in layers]
    for data in layers:
        engine.store.blobs.put([data], "")
    image = Image.of(ImageConfig(cmd=("true",)), made)
    engine.stacks.unpack(image.layers)
    assert image.chain_id is not None
    return shown(engine, image.chain_id)


def shown(engine: Engine, chain_id: ChainID) -> dict[str, tuple[str, int, int]]:
    data = bytearray()
    engine.stacks.export(chain_id, data.extend)
    reader, found = tar.Reader(io.BytesIO(data)), {}
    while (entry := reader.next()) is not None:
        found[entry.name.decode().rstrip("/")] = (f"{entry.mode:o}", entry.uid, entry.gid)
    return found


LAYERS = (
    archive(
        directory("tmp", 0o1777, uid=0, gid=0), directory("home", uid=0, gid=0),
        directory("home/u", 0o700, uid=1000, gid=1000),
        of(1000, "a"), of(1000, "b"), link("c", "b"), member("home/old", uid=0, gid=0),
    ),
    archive(
        member("tmp/app", uid=0, gid=0), member("home/u/app", uid=1000, gid=1000), of(0, "a", "y"),
        directory("new", uid=0, gid=0), member("new/.wh.phantom"), member("home/.wh.old"),
    ),
)  # fmt: skip


def test_a_stack_shows_the_same_by_either_driver_to_every_user(engine: Engine) -> None:
    assert exported(engine, *LAYERS) == {
        "a": ("777", 0, 0), "b": ("777", 1000, 1000), "c": ("777", 1000, 1000), "home": ("755", 0, 0),
        "home/u": ("700", 1000, 1000), "home/u/app": ("644", 1000, 1000), "new": ("755", 0, 0),
        "tmp": ("1777", 0, 0), "tmp/app": ("644", 0, 0),
    }  # fmt: skip


@pytest.mark.parametrize("place", ["lowest", "topmost"])
def test_the_root_is_0755_and_roots_whatever_a_layer_says_of_it(
    engine: Engine, busybox_image: str, place: str
) -> None:
    """As docker 28's, with overlay2, containerd's overlayfs and vfs."""
    data = archive(directory("./", 0o711, uid=5, gid=6), member("x", uid=0, gid=0))
    engine.store.blobs.put([data], "")
    box = engine.image(busybox_image)
    layers = (layer_of(data), *box.layers) if place == "lowest" else (*box.layers, layer_of(data))
    engine.store.images.put(Image.of(box.config, layers), Reference.parse("odd"))
    options = RunOptions(image="odd", command=("stat", "-c", "%a %u:%g", "/"), network=("none",), remove=True)
    result: Any = engine.run(options).result()
    assert result.stdout == "755 0:0\n"


def test_a_step_may_shut_the_root_and_the_next_one_has_it_open(engine: Engine, busybox_image: str) -> None:
    text = "FROM busybox\nRUN echo x > /x; chmod 700 /; chown 5 / || true\nRUN cat /x && stat -c '%a %u:%g' / > /y\n"
    engine.build(text, BuildOptions(tags=("shut",))).result()
    options = RunOptions(image="shut", command=("cat", "/y"), network=("none",), remove=True)
    result: Any = engine.run(options).result()
    assert result.stdout == "755 0:0\n"


def test_roots_link_that_is_copied_over_anothers_is_roots(engine: Engine, tmp_path: Path) -> None:
    for name, data in {"one": archive(of(1000, "a"), of(1000, "d/b")), "other": archive(of(0, "s/a", "y"))}.items():
        engine.store.blobs.put([data], "")
        engine.store.images.put(Image.of(ImageConfig(cmd=("true",)), [layer_of(data)]), Reference.parse(name))
    Machine.on(engine).build("FROM one\nCOPY --from=other /s /\n", "both", tmp_path)
    chain_id = engine.image("both").chain_id
    assert chain_id is not None
    assert shown(engine, chain_id) == {"a": ("777", 0, 0), "d": ("755", 0, 0), "d/b": ("777", 1000, 1000)}
