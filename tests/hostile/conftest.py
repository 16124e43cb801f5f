"""Fixtures of the attacks: one machine for the session, and a directory of the host's that must stay as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import Machine, fresh


@pytest.fixture(scope="session")
def _hostile_machine(busybox_context: Path) -> Iterator[Machine]:
    with fresh(busybox_context) as machine:
        yield machine


@pytest.fixture
def machine(_hostile_machine: Machine) -> Iterator[Machine]:
    """A machine without containers, and without any afterwards."""
    if os.geteuid() != 0:
        pytest.skip("these attacks are made by a container's root who is the host's root too")
    yield _hostile_machine
    _hostile_machine.clear()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's, outside of everything; the test fails if anything in it changed."""
    directory = tmp_path / "canary"
    directory.mkdir()
    (directory / "secret").write_text("do not touch\n")
    for name in ("hosts", "hostname", "resolv.conf"):
        (directory / name).touch()
    before = _looks(directory)
    yield directory
    assert _looks(directory) == before


def _looks(directory: Path) -> list[tuple[str, int, int, bytes]]:
    found = [directory, *sorted(directory.rglob("*"))]
    return [
        (str(each), each.lstat().st_mode, each.lstat().st_uid, each.read_bytes() if each.is_file() else b"")
        for each in found
    ]
