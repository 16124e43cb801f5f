"""Stores to be hurt: a template, made once, and copies of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import needs
from reliability import deeds


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-reliability-", dir=needs.scratch()))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def inputs(place: Path, busybox: Path) -> Iterator[Path]:
    """The build context, a small tree to import, an archive to load, and a registry to pull from."""
    try:
        registry = deeds.inputs_of(place / "inputs", busybox)
    except AssertionError as error:
        needs.missing(f"no containers here: {str(error)[-500:]}")
    yield place / "inputs"
    registry.close()


@pytest.fixture(scope="package")
def template(place: Path, inputs: Path) -> Iterator[Path]:
    """A store like a user's; tests copy it. Its snapshots' paths are relative to nothing, so a copy is whole."""
    ended = deeds.elsewhere(lambda: deeds.template(place / "template", inputs))
    if ended.status:
        needs.missing(f"no containers here: {ended.words[-500:]}")
    tried = deeds.elsewhere(lambda: deeds.tried(deeds.copied(place / "template", place / "tried"), inputs))
    # Whoever is forked from here has them, and there are thousands.
    for module in tried.words.split():
        import_module(module)
    # Of the tests of this package only: others' engines are to be as they are.
    with deeds.one_zygote(place / "tried"):
        yield place / "template"
