"""Symlinks of a tree that is a root to its programs alone: none leads out of it, and all are told as they were."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.store.rooted_links import RootedLinks

LINKS = RootedLinks(b"/store/active/c/fs", (b"/proc", b"/dev/null"))
NAMES = st.sampled_from([b"a", b"b", b"..", b".", b"", b"proc", b"fs", b".hidden"])
TARGETS = st.builds(
    lambda slash, parts: slash + b"/".join(parts), st.sampled_from([b"", b"/"]), st.lists(NAMES, min_size=1, max_size=8)
).filter(bool)


def led_to(base: bytes, directory: bytes, target: bytes, top: bytes) -> bytes:
    """Where a link in this directory leads by its words alone, below `top`, which nobody gets above."""
    whole = target if target.startswith(b"/") else directory + b"/" + target
    inner = whole[len(base) :] if base and whole.startswith(base + b"/") else whole
    done: list[bytes] = []
    for part in inner.split(b"/"):
        if part == b"..":
            del done[-1:]
        elif part not in (b"", b"."):
            done.append(part)
    return top + b"/" + b"/".join(done)


@pytest.mark.parametrize(
    ("target", "depth", "kept"),
    [
        ("/etc/alternatives/awk", 2, "/store/active/c/fs/etc/alternatives/awk"),
        ("/", 0, "/store/active/c/fs/"),
        ("../lib/x", 2, "../lib/x"),
        ("..", 1, ".."),
        ("/proc/self/mounts", 1, "/proc/self/mounts"),
        ("/process", 1, "/store/active/c/fs/process"),
        ("/dev/nullary", 1, "/store/active/c/fs/dev/nullary"),
    ],
)
def test_a_link_is_kept_with_the_trees_path_in_front_if_it_is_absolute(target: str, depth: int, kept: str) -> None:
    assert LINKS.kept(target.encode(), depth) == kept.encode()
    assert LINKS.told(kept.encode()) == target.encode()


@pytest.mark.parametrize("target", ["../../../etc/passwd", "..", "../../.", "../../../../"])
def test_what_climbs_above_the_root_stays_at_it_and_is_told_as_it_was(target: str) -> None:
    kept = LINKS.kept(target.encode(), target.count("..") - 1)
    assert kept.startswith(LINKS.base + b"/") and b".." not in kept
    assert LINKS.told(kept) == target.encode()


@pytest.mark.parametrize("target", ["/../../etc", "/proc/../../x", "/a/../../../x", "a/../../../x", "/.."])
def test_no_other_way_round_leads_above_it_either(target: str) -> None:
    kept = LINKS.kept(target.encode(), 0)
    assert os.path.normpath(kept).startswith(LINKS.base)


@given(TARGETS, st.integers(0, 3))
def test_each_link_leads_to_the_same_in_the_tree_and_as_it_is_told(target: bytes, depth: int) -> None:
    directory = b"".join(b"/d%d" % number for number in range(depth))
    kept, wanted = LINKS.kept(target, depth), led_to(b"", directory, target, b"")
    if kept.startswith(b"/proc/") or kept == b"/proc":
        assert kept == target and b".." not in kept
        return
    whole = kept if kept.startswith(b"/") else LINKS.base + directory + b"/" + kept
    assert os.path.normpath(whole).startswith(LINKS.base)
    assert led_to(LINKS.base, LINKS.base + directory, kept, b"") == wanted
    assert led_to(b"", directory, LINKS.told(kept), b"") == wanted


@given(st.binary(max_size=40))
def test_no_link_is_told_with_the_trees_path_in_it(target: bytes) -> None:
    for told in (LINKS.told(LINKS.base + target), LINKS.told(LINKS.base + LINKS.base + b"/" + target)):
        assert not told.startswith(LINKS.base + b"/") and told != LINKS.base


def test_a_worker_is_told_of_them_in_words() -> None:
    assert RootedLinks.of(LINKS.words()) == LINKS
    assert RootedLinks.of({"linked": False}) is None
