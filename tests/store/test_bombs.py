"""Archives of a few kilobytes that would cost minutes, or gigabytes of memory: refused at a limit (T6)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archives import Member, archive, directory, listing, member, symlink, unpack
from nbcontain.errors import BadArchive
from nbcontain.store import removal
from nbcontain.store.unpack_tree import TreeTarget

DEPTH = 600
DEEP = "/".join("a" * DEPTH)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "fs"
    found.mkdir()
    yield found
    removal.remove_tree(found)  # pytest's own would go too deep


# --- time ---


def ways_down_and_up(hops: int, members: int) -> list[Member]:
    """Each link leads down a long way, up again, and to the next: whoever follows them one by one walks for ever."""
    links = [symlink(f"s{hop}", f"/{DEEP}/{'../' * DEPTH}" + (f"s{hop - 1}" if hop else "q")) for hop in range(hops)]
    files = [member(f"s{hops - 1}/d{number}/f", data=b"x") for number in range(members)]
    return [directory("q"), directory(DEEP), *links, *files]


@pytest.mark.parametrize("form", [None, TreeTarget])
def test_links_that_lead_down_and_up_again_end_at_a_limit(root: Path, form: type[TreeTarget] | None) -> None:
    begun_s = time.process_time()
    with pytest.raises(BadArchive, match="too many directories"):
        unpack(root, archive(*ways_down_and_up(30, 2000)), target_type=form)
    assert time.process_time() - begun_s < 20


def test_links_with_many_steps_up_are_followed(root: Path) -> None:
    unpack(root, archive(*ways_down_and_up(3, 2)))
    assert {path: data for path, data in listing(root / "q").items() if data == "x"} == {"d0/f": "x", "d1/f": "x"}


def test_names_that_make_thousands_of_directories_each_end_at_a_limit(root: Path) -> None:
    deep = [member(f"{number}/" + "/".join("a" * 1900) + "/f") for number in range(500)]
    with pytest.raises(BadArchive, match="too many directories"):
        unpack(root, archive(*deep))


def test_emptying_a_deep_tree_again_and_again_ends_at_a_limit(root: Path) -> None:
    again = [member(".wh..wh..opq")] * 4000
    with pytest.raises(BadArchive, match="too many directories"):
        unpack(root, archive(directory("/".join("a" * 1900)), *again), target_type=TreeTarget)


def test_a_tree_of_many_directories_deep_down_is_no_bomb(root: Path) -> None:
    """As of node's modules: some twenty deep, each directory in another one."""
    way = "/".join(["node_modules/package"] * 10)
    unpack(root, archive(*(member(f"{way}/{number}/lib/index/f", data=b"x") for number in range(1500))))
    assert sum(data == "x" for data in listing(root).values()) == 1500
