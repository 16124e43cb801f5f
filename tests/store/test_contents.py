"""What is in layers, beside another reader of the same tars, and what layers and images change of each other."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import Member, archive, directory, layer_of, link, member, symlink
from nbcontain.errors import BadArchive, DigestMismatch, StoreError
from nbcontain.oci.image import LAYER_TAR
from nbcontain.store import Store, tar
from nbcontain.store.blobs import Blobs
from nbcontain.store.contents import Contents, paths_of, read_contents, read_file
from nbcontain.store.file_trees import Change, Node, all_of, apply, compare, resolve
from nbcontain.store.layout import Layout
from nbcontain.store.write_back import WriteBack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

import facts  # noqa: E402


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    return Store.open(tmp_path_factory.mktemp("contents") / "root").blobs


def contents(blobs: Blobs, *members: Member) -> Contents:
    data = archive(*members)
    blobs.put([data], LAYER_TAR)
    return read_contents(blobs, layer_of(data), lambda size_bytes: None)


def changes_of(blobs: Blobs, lower: list[Member], upper: list[Member]) -> list[tuple[str, str, tuple[str, ...]]]:
    root = all_of([contents(blobs, *lower)])
    found, _ = apply(root, contents(blobs, *upper))
    return [(each.letter, each.path, each.what) for each in found]


def test_a_layer_adds_changes_and_removes(blobs: Blobs) -> None:
    lower = [directory("a"), member("a/same", data=b"1"), member("a/other", data=b"1"), member("a/gone", data=b"1")]
    upper = [
        directory("a"), member("a/same", data=b"1"), member("a/other", data=b"2", mode=0o600), member("a/new"),
        member("a/.wh.gone"),
    ]  # fmt: skip
    assert changes_of(blobs, lower, upper) == [
        ("D", "/a/gone", ()), ("A", "/a/new", ()), ("C", "/a/other", ("content", "mode")), ("C", "/a/same", ()),
    ]  # fmt: skip


def test_the_order_of_members_does_not_matter(blobs: Blobs) -> None:
    lower = [directory("a"), member("a/x"), directory("b"), member("b/y")]
    # A file where a directory was found before, more beside it, and the root itself in the end.
    upper = [member("a/z"), member("a/v"), member("b"), member("c/d/e"), member("c/d/f"), member("g"), directory(".")]
    root = all_of([contents(blobs, *lower), contents(blobs, *upper)])
    assert [path for path, _ in root.walk()] == [
        "/a",
        "/a/v",
        "/a/x",
        "/a/z",
        "/b",
        "/c",
        "/c/d",
        "/c/d/e",
        "/c/d/f",
        "/g",
    ]
    assert root.file is not None and b"" not in root.children


def test_an_opaque_directory_removes_what_it_does_not_have_itself(blobs: Blobs) -> None:
    lower = [directory("a"), member("a/x"), directory("a/d"), member("a/d/y"), member("a/d/z")]
    upper = [member("a/d/y", data=b"new"), directory("a"), member("a/.wh..wh..opq")]
    assert [each[:2] for each in changes_of(blobs, lower, upper)] == [
        ("C", "/a/d/y"), ("D", "/a/d/z"), ("D", "/a/x"),
    ]  # fmt: skip
    root = all_of([contents(blobs, *lower), contents(blobs, *upper)])
    assert [path for path, _ in root.walk()] == ["/a", "/a/d", "/a/d/y"]


def test_what_is_hidden_is_wasted_but_not_while_it_has_another_name(blobs: Blobs) -> None:
    lower = [member("one", data=b"x" * 100), link("two", "one"), member("three", data=b"y" * 10)]
    root = all_of([contents(blobs, *lower)])
    _, hidden = apply(root, contents(blobs, member(".wh.one"), member("three", data=b"z")))
    assert sorted((path, file.size_bytes) for path, file in hidden) == [("/one", 100), ("/three", 10)]
    assert {node.file for _, node in root.walk()} & {file for _, file in hidden} == {resolve(root, "/two")[1].file}


def test_a_file_in_the_place_of_a_directory_hides_all_of_it(blobs: Blobs) -> None:
    root = all_of([contents(blobs, directory("a"), member("a/b", data=b"123"))])
    changes, hidden = apply(root, contents(blobs, member("a", data=b"4")))
    assert changes == [Change("C", "/a", 1, ("type",), 0, False)]
    assert [path for path, _ in hidden] == ["/a/b"]


def test_what_a_tar_says_twice_holds_as_it_says_last_and_hides_nothing_below(blobs: Blobs) -> None:
    root = all_of([contents(blobs, member("low", data=b"1"))])
    twice = contents(blobs, member("x", data=b"1"), member("y"), member("x", data=b"22"), member("z"), link("z", "y"))
    changes, hidden = apply(root, twice)
    said = [(each.letter, each.path, each.size_bytes) for each in changes]
    assert said == [("A", "/x", 2), ("A", "/y", 0), ("A", "/z", 0)]
    assert hidden == []
    assert resolve(root, "/z")[1].file is resolve(root, "/y")[1].file


def test_two_trees_are_compared_and_what_is_whole_new_is_one_change(blobs: Blobs) -> None:
    base = contents(blobs, directory("a"), member("a/x", data=b"1"), directory("gone"), member("gone/y", data=b"22"))
    touched = member("a/x", data=b"1", mtime_ns=5)
    new = contents(blobs, directory("b"), member("b/p", data=b"333"), member("b/q"), touched, member(".wh.gone"))
    old, other = all_of([base]), all_of([base, new])
    assert compare(old, other) == [
        Change("A", "/b", 3, (), 0, True, 3),
        Change("D", "/gone", 2, (), 0, True, 2),
    ]
    assert [each.what for each in compare(old, other, times=True) if each.letter == "C"] == [("time",)]
    assert compare(old, all_of([base])) == []


def test_paths_are_followed_through_links_and_never_out(blobs: Blobs) -> None:
    root = all_of([contents(
        blobs, directory("a"), member("a/file", data=b"x"), symlink("abs", "/a"), symlink("a/up", "../../../../a/file"),
        symlink("loop", "loop"), symlink("dangling", "nowhere"),
    )])  # fmt: skip
    assert resolve(root, "/abs/file")[0] == "/a/file"
    assert resolve(root, "abs/up")[0] == "/a/file"
    assert resolve(root, "/../..")[0] == "/"
    for path in ("/loop", "/dangling", "/a/file/below", "/missing"):
        with pytest.raises(StoreError):
            resolve(root, path)


def test_bytes_of_a_file_come_from_the_layer_that_has_them(blobs: Blobs) -> None:
    data = archive(member("first", data=b"1" * 700), member("./second", data=b"two"), link("third", "second"))
    blobs.put([data], LAYER_TAR)
    layer = layer_of(data)
    root = all_of([read_contents(blobs, layer, lambda size_bytes: None)])
    file = resolve(root, "/third")[1].file
    assert file is not None
    assert b"".join(read_file(blobs, layer, file.place)) == b"two"


def test_hostile_and_damaged_layers_are_refused(blobs: Blobs) -> None:
    with pytest.raises(BadArchive):
        contents(blobs, member("../evil"))
    data = archive(member("x", data=b"12345"))
    blobs.put([data], LAYER_TAR)
    path = Path(blobs.path(layer_of(data).descriptor.digest))
    path.chmod(0o600)
    path.write_bytes(data.replace(b"12345", b"12346"))
    with pytest.raises(DigestMismatch):
        read_contents(blobs, layer_of(data), lambda size_bytes: None)


def test_what_is_hashed_where_others_have_it_too_tells_hard_links_apart(blobs: Blobs) -> None:
    data = archive(member("one", data=b"1"), link("two", "one"), link("three", "two"), member("four", data=b"4"))
    blobs.put([data], LAYER_TAR)
    upper = contents(blobs, member("three", data=b"2"))
    lower = read_contents(blobs, layer_of(data), lambda size_bytes: None, paths_of([upper]))
    changes, _ = apply(all_of([lower]), upper)
    assert [(each.letter, each.path, each.what) for each in changes] == [("C", "/three", ("content",))]
    assert lower.is_hashed_at(paths_of([upper])) and not lower.is_hashed_at(None)


def test_what_nobody_hashed_is_not_taken_for_the_same(blobs: Blobs) -> None:
    data, other = archive(member("x", data=b"1")), archive(member("x", data=b"2"))
    trees = []
    for each in (data, other):
        blobs.put([each], LAYER_TAR)
        trees.append(all_of([read_contents(blobs, layer_of(each), lambda size_bytes: None, frozenset())]))
    with pytest.raises(AssertionError):
        compare(*trees)


def test_deep_trees_are_no_deep_recursion(blobs: Blobs) -> None:
    name = "/".join("d" * 1500)
    root = all_of([contents(blobs, directory(name))])
    assert root.totals() == (1500, 0)
    assert len(list(root.walk())) == 1500
    assert compare(Node(), root)[0].count == 1500


NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "a/c/e", "b/f"])
MEMBERS = st.one_of(
    st.builds(member, NAMES, data=st.sampled_from([b"", b"1", b"22"]), mode=st.sampled_from([0o644, 0o600])),
    st.builds(directory, NAMES),
    st.builds(symlink, NAMES, st.sampled_from(["a", "/b"])),
    st.builds(lambda path: member("/".join([*path.split("/")[:-1], f".wh.{path.split('/')[-1]}"])), NAMES),
    st.builds(lambda path: member(f"{path}/.wh..wh..opq"), st.sampled_from(["a", "b", "a/c"])),
)
LINKS = st.builds(link, NAMES, NAMES)


def _tidy(members: list[Member]) -> list[Member]:
    """As tars are written: one entry a path, parents first and directories, nothing both whited out and there."""
    entries = {each[0].name: each for each in members}
    kept: list[Member] = []
    for name, each in sorted(entries.items()):
        parents = [name[:at] for at, char in enumerate(name) if char == ord("/")]
        if all(parent not in entries or entries[parent][0].kind == tar.DIRECTORY for parent in parents):
            kept += [directory(parent.decode()) for parent in parents if parent not in {one[0].name for one in kept}]
            kept.append(each)
    names = {each[0].name for each in kept}
    return [each for each in kept if each[0].name.replace(b".wh.", b"") not in names or b".wh." not in each[0].name]


@contextmanager
def own_blobs() -> Iterator[Blobs]:
    """Blobs of one example's own: a fixture would be shared by all of them."""
    with tempfile.TemporaryDirectory() as name:
        layout = Layout(Path(name))
        for path in (layout.blobs / "sha256", layout.tmp):
            path.mkdir(parents=True)
        yield Blobs(layout, WriteBack(layout))


@settings(max_examples=120)
@given(st.lists(st.lists(MEMBERS, max_size=6), min_size=1, max_size=4))
def test_layers_show_together_what_another_reader_finds(stacks: list[list[Member]]) -> None:
    with own_blobs() as blobs:
        expected: facts.Tree = {}
        root = Node()
        for members in stacks:
            tidied = _tidy(members)
            if not tidied:
                continue
            before = dict(expected)
            facts.apply_layer(expected, io.BytesIO(archive(*tidied)))
            changes, _ = apply(root, contents(blobs, *tidied))
            letters = {change.path: change.letter for change in changes}
            gone = {path for path in before if path not in expected}
            assert {path for path, letter in letters.items() if letter == "A"} == set(expected) - set(before)
            top = {path for path in gone if path.rpartition("/")[0] not in gone}
            whole = {path for path, letter in letters.items() if letter == "C" and not expected[path].startswith("dir")}
            assert {path for path, letter in letters.items() if letter == "D"} == {
                path for path in top if path.rpartition("/")[0] not in whole
            }
        found = dict(root.walk())
        assert set(found) == set(expected)
        for path, words in expected.items():
            file = found[path].file
            assert file is not None
            assert words.split()[0] == {"directory": "dir", "link": "symlink"}.get(file.kind, file.kind)
            if file.kind == "file":
                assert f"size={file.size_bytes} sha256={file.digest.hex()[:16]}" in words
                assert words.split()[1] == f"{file.mode:o}"


@settings(max_examples=120)
@given(st.lists(st.lists(MEMBERS | LINKS, min_size=1, max_size=6), min_size=2, max_size=3))
def test_the_lowest_layer_hashed_in_part_tells_what_one_hashed_whole_tells(stacks: list[list[Member]]) -> None:
    with own_blobs() as blobs:
        lowest = archive(*stacks[0])
        whole = contents(blobs, *stacks[0])
        above = [contents(blobs, *members) for members in stacks[1:]]
        part = read_contents(blobs, layer_of(lowest), lambda size_bytes: None, paths_of(above))
        one, other = all_of([whole]), all_of([part])
        for each in above:
            assert list(apply(one, each)[0]) == list(apply(other, each)[0])
