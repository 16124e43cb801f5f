from __future__ import annotations

from pathlib import Path

import pytest

from nbcontain.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", userxattr=True)


@pytest.fixture(scope="session")
def store_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for many examples."""
    return Store.open(tmp_path_factory.mktemp("store"))
