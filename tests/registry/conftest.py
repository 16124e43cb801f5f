"""A registry in this process, an image for it, and an engine that knows nobody's credentials."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from samples import image_of, new_engine  # noqa: E402
from server import Registry  # noqa: E402

from nbcontain.engine import Engine  # noqa: E402


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


@pytest.fixture
def engine(root: Path, tmp_path: Path) -> Iterator[Engine]:
    with new_engine(root, tmp_path) as engine:
        yield engine


@pytest.fixture(scope="session")
def sample() -> Any:
    """Two layers: one of a few bytes, one of 3 MB that do not compress."""
    return image_of(b"small", random.Random(1).randbytes(3_000_000))
