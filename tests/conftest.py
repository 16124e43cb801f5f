"""Fixtures for all tests: a fresh store, an engine on it, a small image, and the profiles (profile_runs.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import needs
from images import BUSYBOX

if TYPE_CHECKING:
    from nbcontain.engine import Engine

pytest_plugins = ["profile_runs"]


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """No test touches the user's store, credentials or display settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NBCONTAIN_ROOT", raising=False)
        patch.delenv("NBCONTAIN_DISPLAY", raising=False)
        # A name that is not here is not looked for elsewhere: tests of registries say whom they ask.
        patch.setenv("NBCONTAIN_PULL", "never")
        patch.setenv("PYTHONUTF8", "1")
        # Nor this machine's network: tests of networks make namespaces of their own, and say which network they mean.
        patch.setenv("NBCONTAIN_NETWORK", "host")
        yield


@pytest.fixture
def root() -> Iterator[Path]:
    """A fresh directory for a store, where overlays work; its containers are ended and it is removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    yield directory
    with contextlib.suppress(ImportError):
        from nbcontain.engine import Engine

        with Engine(directory) as engine:
            for container in engine.containers():
                engine.remove_container(container, force=True)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def engine(root: Path) -> Iterator[Engine]:
    """An engine on a fresh store, with this process's environment."""
    from nbcontain.engine import Engine

    with Engine(root) as engine:
        yield engine


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A statically linked busybox."""
    path = Path(needs.program("busybox", "busybox-static"))
    if b"/ld-linux" in path.read_bytes():
        needs.missing("busybox is dynamically linked (Debian package busybox-static)")
    return path


@pytest.fixture(scope="session")
def busybox_context(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build context that holds busybox."""
    context = tmp_path_factory.mktemp("context")
    shutil.copy2(busybox, context / "busybox")
    os.chmod(context / "busybox", 0o755)
    return context


@pytest.fixture
def busybox_image(engine: Engine, busybox_context: Path) -> str:
    """The name of an image with nothing but busybox, in the store of `engine`."""
    from nbcontain.build.plan import BuildOptions

    engine.build(BUSYBOX, BuildOptions(tags=("busybox",), context=busybox_context)).result()
    return "busybox"
