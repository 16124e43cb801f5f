"""Id maps: what subuid(5) files give, and how a map numbers them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.linux.idmap import IdMap, subordinate
from nbcontain.oci.spec import IdMapping


def ranges_in(text: str, directory: Path, uid: int = 1000, name: str = "ada") -> tuple[IdMapping, ...]:
    path = directory / "subuid"
    path.write_text(text)
    return subordinate(str(path), uid, name)


def test_ranges_are_found_by_name_and_by_number_and_follow_each_other(tmp_path: Path) -> None:
    text = "grace:1:1\nada:100000:65536\n1000:300000:10\n"
    assert ranges_in(text, tmp_path) == (IdMapping(1, 100000, 65536), IdMapping(65537, 300000, 10))


@pytest.mark.parametrize("line", ["", "#", "ada:1", "ada:x:1", "ada:1:x", "ada:-1:5", "ada:5:0", ":5:5", "ada :5:5"])
def test_a_line_that_says_nothing_gives_nothing(tmp_path: Path, line: str) -> None:
    assert ranges_in(line + "\n", tmp_path) == ()


def test_a_user_without_a_name_owns_no_nameless_line(tmp_path: Path) -> None:
    assert ranges_in(":100000:65536\n", tmp_path, name="") == ()


def test_no_file_gives_nothing(tmp_path: Path) -> None:
    assert subordinate(str(tmp_path / "none"), 1000, "ada") == ()


@given(st.text(alphabet="ada:0123456789 x#\n", max_size=80))
def test_any_text_is_read_without_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for each in ranges_in(text, tmp_path_factory.getbasetemp()):
        assert each.container_id >= 1
        assert each.size >= 1


def test_a_map_knows_its_groups() -> None:
    single = IdMap.single(1000, 100)
    assert single.is_single
    assert [single.has_gid(gid) for gid in (0, 1, 100)] == [True, False, False]
    wide = IdMap.ranges(1000, 100, (IdMapping(1, 100000, 10),), (IdMapping(1, 200000, 10),))
    assert not wide.is_single
    assert [wide.has_gid(gid) for gid in (0, 10, 11)] == [True, True, False]
    assert IdMap.identity().is_identity
