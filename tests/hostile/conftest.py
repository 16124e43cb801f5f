"""Fixtures of the attacks: one machine for the session, and a directory of the host's that must stay as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import Machine, fresh
from nbcontain.errors import NbcontainError, Unavailable


@pytest.fixture(scope="session")
def _hostile_machine(busybox_context: Path) -> Iterator[Machine]:
    with fresh(busybox_context) as machine:
        yield machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """An attack that takes what this place's rung cannot give, as it says itself, is none here."""
    try:
        return (yield)
    except NbcontainError as error:
        refused: BaseException | None = error
        while refused is not None and not isinstance(refused, Unavailable):
            refused = refused.__cause__
        machines = [each for each in item.funcargs.values() if isinstance(each, Machine)]  # type: ignore[attr-defined]
        lacks = [each for each in machines if not (each.engine.profile.rung.mounts and each.engine.profile.rung.joins)]
        if refused is None or not lacks:
            raise
        pytest.skip(f"{refused.message}: {refused.why}")


@pytest.fixture(autouse=True)
def _of_mounts(request: pytest.FixtureRequest) -> None:
    """The end of a test that is of containers with mounts, where they have none."""
    if request.node.get_closest_marker("of_mounts") is not None:
        profile = request.getfixturevalue("_hostile_machine").engine.profile
        if not profile.rung.mounts:
            pytest.skip(f"containers here have no mounts: {profile.describe()}")


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
