"""Fixtures for all tests: a fresh store, an engine on it, a small image, and the profiles (profile_runs.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import needs
import places
from images import BUSYBOX

if TYPE_CHECKING:
    from lab import Desk, Lab, OpenLab
    from machine import Machine
    from nbcontain.engine import Engine

pytest_plugins = ["profile_runs"]

# How long an example takes is the machine's affair: a busy one is no reason to fail.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


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
        others = (needs.PROOT / "bin", needs.FAKECHROOT / "root" / "usr" / "bin")
        patch.setenv("PATH", ":".join((os.environ["PATH"], *map(str, others))))
        yield


@pytest.fixture
def root() -> Iterator[Path]:
    """A fresh directory for a store, where overlays work; its containers are ended and it is removed afterwards."""
    with places.store_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def preload_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on the rung that is taken by who asks for it alone."""
    from machine import preloaded

    with preloaded(tmp_path_factory.mktemp("preloaded")) as machine:
        yield machine


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

    if not engine.profile.runs:
        needs.missing("nobody may make a container on this machine")
    engine.build(BUSYBOX, BuildOptions(tags=("busybox",), context=busybox_context)).result()
    return "busybox"


@pytest.fixture(scope="session")
def desk(busybox_context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One JupyterLab server and one browser for all browser tests, on a store in which the image `box` is (lab.py)."""
    import lab
    from nbcontain.build.plan import BuildOptions
    from nbcontain.engine import Engine

    needs.chromium()
    with places.store_directory() as root:
        with Engine(root) as engine:
            engine.build(BUSYBOX, BuildOptions(tags=("box",), context=busybox_context)).result()
        with lab.desk(tmp_path_factory.mktemp("notebooks"), root=root) as opened:
            yield opened


@pytest.fixture
def desk_engine(desk: Desk) -> Iterator[Engine]:
    """An engine on the store of the browser tests."""
    from nbcontain.engine import Engine

    with Engine(desk.root) as engine:
        yield engine


@pytest.fixture
def open_lab(desk: Desk, desk_engine: Engine) -> Iterator[OpenLab]:
    """Open a notebook of some cells; what its page complains about fails the test, its containers are removed."""
    labs: list[Lab] = []
    with contextlib.ExitStack() as stack:

        def open_(*cells: str, width: int = 1100) -> Lab:
            labs.append(stack.enter_context(desk.open(cells, width=width, name=f"test{len(labs)}.ipynb")))
            return labs[-1]

        yield open_
        complaints = [complaint for lab in labs for complaint in lab.complaints]
        print(*complaints, sep="\n")  # for a test that failed before
    for container in desk_engine.containers():
        desk_engine.remove_container(container, force=True)
    assert complaints == []


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest) -> Path:
    """Where tests leave what they saw, for whoever wants to look."""
    return request.config.rootpath / ".cache" / "pictures"
