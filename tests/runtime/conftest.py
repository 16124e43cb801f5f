"""Fixtures of the runtime's tests: one store and one image for the whole session, since a start is what is tested."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places
from machine import Machine, until
from nbcontain.engine import Engine


@pytest.fixture(scope="session")
def shared_machine(busybox_context: Path) -> Iterator[Machine]:
    """The one machine of this process."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(directory) as engine:
        yield Machine(engine, busybox_context)
        # Rootless, some files belong to ids that only an engine may remove.
        engine.store.snapshots.remove_tree(engine.layout.snapshots)
    places.remove(directory)


@pytest.fixture
def machine(shared_machine: Machine) -> Iterator[Machine]:
    """A machine without containers; after the test nothing is left but images."""
    yield shared_machine
    shared_machine.clear()
    # --rm frees the names at once; the files behind them go a moment later.
    until(lambda: shared_machine.left() == [], what=lambda: f"left behind: {shared_machine.left()}")
