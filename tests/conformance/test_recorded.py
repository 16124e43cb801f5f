"""Each conformance case, built here and compared with what docker made of it when `make conformance-record` asked."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs

sys.path.insert(0, str(Path(__file__).parent))

import compare  # noqa: E402
import peers  # noqa: E402
import suites  # noqa: E402
from cases import Case, all_cases  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="owners of files are compared: root only")]

ROOT = Path(__file__).resolve().parents[2]
CASES = all_cases()
OPEN = (Path(__file__).parent / "open.txt").read_text().split()
"""Cases that are not as docker has them yet."""


@pytest.fixture(scope="module")
def ours(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Ours]:
    with tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name:
        builder = peers.Ours(Path(name), busybox)
        yield builder
        builder.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_image_is_as_docker_makes_it(ours: peers.Ours, case: Case) -> None:
    wrong = compare.verdict(case, ours.facts(case), compare.recorded().get(case.name))
    if wrong and case.name in OPEN:
        pytest.xfail(str(wrong))
    assert not wrong


def test_what_is_shown_elsewhere_is_named_there() -> None:
    for names in suites.named().values():
        for name, said in names.items():
            if said.startswith("= "):
                assert re.search(rf"\b{name}\b", (ROOT / said[2:]).read_text()), f"{name} in {said[2:]}"


def test_the_page_tells_of_every_name() -> None:
    page = suites.PAGE.read_text()
    missing = [name for names in suites.named().values() for name in names if f"| {name} |" not in page]
    assert missing == [], "python tests/conformance/compare.py names"


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 150
    assert set(OPEN) <= {case.name for case in CASES}
