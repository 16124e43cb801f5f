from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from nbcontain.store import Store


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Pytest's own, where whiteouts can be made: not on an overlay, which /tmp is in many a container."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch(runs=False)))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", userxattr=True)


@pytest.fixture(scope="session")
def store_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for many examples."""
    return Store.open(tmp_path_factory.mktemp("store"))
