"""For tests of what builds make: a machine for a whole file, as each of its tests tags images of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from building import Ran, written
from machine import Machine, fresh
from nbcontain.build.plan import BuildOptions


@pytest.fixture(scope="module")
def box(busybox_context: Path) -> Iterator[Machine]:
    with fresh(busybox_context) as machine:
        yield machine


@pytest.fixture
def ran(box: Machine, tmp_path: Path) -> Ran:
    def run(lines: str, **options: object) -> str:
        chosen = BuildOptions(tags=("ran",), context=tmp_path, **options)  # type: ignore[arg-type]
        task = box.engine.build(f"FROM box\n{lines}\n", chosen)
        task.result()
        return written(task).strip()

    return run
