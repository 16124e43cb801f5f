"""What each layer made of each path, from tars made by hand."""

from __future__ import annotations

import io
import os

import pytest

from archives import Member, archive, directory, layer_of, link, member
from nbcontain.store import story
from nbcontain.store.contents import parse_contents
from nbcontain.store.file_trees import Node, apply
from nbcontain.store.story import Place, Totals, story_of


def told(*layers: tuple[Member, ...]) -> Place:
    """The story of layers of these members."""
    root = Node()
    pairs = []
    for members in layers:
        data = archive(*members)
        contents = parse_contents(io.BytesIO(data), layer_of(data), lambda read_bytes: None)
        pairs.append((apply(root, contents)[0], contents))
    return story_of(pairs)


def letters(root: Place, path: str) -> str:
    """What each layer did to a path, as "1A 3D"."""
    place = root.child(path)
    assert place is not None
    return " ".join(f"{each.number}{place.change(each.number)}" for each in place.versions)


def test_each_layer_says_what_it_did_to_a_path() -> None:
    root = told(
        (member("a/b", data=b"1"), member("c", data=b"12")),
        (member("a/b", data=b"22"), member(".wh.c")),
        (member("c", data=b"333"), member("a/.wh.b")),
    )
    assert letters(root, "/a/b") == "1A 2C 3D"
    assert letters(root, "/c") == "1A 2D 3A"
    # Nobody wrote it, and it is there all the same.
    assert letters(root, "/a") == "1A"
    place = root.child("/a/b")
    assert place is not None
    version = place.at(2)
    assert version is not None and version.file is not None and version.file.size_bytes == 2
    assert place.at(3) is None


def test_what_is_in_a_removed_or_replaced_directory_goes_with_it() -> None:
    root = told(
        (member("d/e/f", data=b"1"), member("g/h", data=b"1"), member("o/p", data=b"1"), member("o/q", data=b"1")),
        (member(".wh.d"), member("g", data=b"now a file"), member("o/.wh..wh..opq"), member("o/q", data=b"2")),
    )
    assert [letters(root, path) for path in ("/d", "/d/e", "/d/e/f")] == ["1A 2D"] * 3
    assert letters(root, "/g") == "1A 2C"
    assert letters(root, "/g/h") == "1A 2D"
    assert letters(root, "/o/p") == "1A 2D"
    assert letters(root, "/o/q") == "1A 2C"
    assert [path for path, _ in story.walk(root, 2)] == ["/d", "/d/e", "/d/e/f", "/g", "/g/h", "/o", "/o/p", "/o/q"]


def test_sums_count_hard_links_once_and_say_how_much_a_layer_touched() -> None:
    root = told(
        (member("one", data=b"x" * 100), link("two", "one"), member("sub/three", data=b"y" * 10)),
        (member("sub/four", data=b"z"), link("sub/five", "one"), member("sub/.wh.three")),
    )
    first, second = Totals(root, 1), Totals(root, 2)
    assert (first[root].entries, first[root].size_bytes) == (5, 110)
    assert (second[root].entries, second[root].size_bytes) == (6, 101)
    one, two, sub = (root.child(path) for path in ("/one", "/two", "/sub"))
    assert one is not None and two is not None and sub is not None
    assert {first[one].size_bytes, first[two].size_bytes} == {0, 100}
    assert second[sub].touched == 3


def test_a_story_ends_as_the_layers_laid_on_each_other() -> None:
    layers = (
        (directory("x"), member("x/a", data=b"1"), member("x/b", data=b"2"), member("y", data=b"3")),
        (member(".wh.x"), member("x", data=b"file"), member("z/w", data=b"4")),
        (member(".wh.y"), directory("x"), member("x/a", data=b"5"), member("z/.wh..wh..opq")),
    )
    root = Node()
    for members in layers:
        data = archive(*members)
        apply(root, parse_contents(io.BytesIO(data), layer_of(data), lambda read_bytes: None))
    shown = [path for path, place in story.walk(told(*layers), 3) if place.at(3) is not None]
    assert shown == [path for path, _ in root.walk()]


@pytest.mark.parametrize(
    ("text", "path", "is_meant"),
    [("CONF", "/etc/app.conf", True), ("*.py", "/usr/a.PY", True), ("*.py", "/usr/a.pyc", False),
     ("/usr/*", "/usr/a/b", True), ("[", "/a[b", True), (os.fsdecode(b"\xff"), os.fsdecode(b"/\xff"), True)],
)  # fmt: skip
def test_what_is_typed_means_paths(text: str, path: str, is_meant: bool) -> None:
    assert story.matcher(text)(path) is is_meant
