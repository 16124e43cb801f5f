"""Fixtures of the tests of `nbcontain-runtime`: bundles, and the runtimes that they are run with.

By itself the suite asks ours alone. With NBCONTAIN_SOAK every check is put to crun and runc as well, so that what is
said to be a MUST is one that a peer passes, or is explained.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

import needs
from bundles import OURS, Bundle, Runtime
from rounds import SOAK

PEERS = ("crun", "runc")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAK:
        return
    here = Path(__file__).parent
    left_out = [item for item in items if here in item.path.parents and item.name in IN_SOAK]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


IN_SOAK = ("test_podman_has_a_life_of_a_container", "test_a_program_sees_the_same[user]",
           "test_a_program_sees_the_same[readonly]")  # fmt: skip
"""What takes longer than it tells besides the others."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime" in metafunc.fixturenames:
        names = (OURS, *PEERS) if SOAK else (OURS,)
        metafunc.parametrize("runtime", names, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that is in its module's `DEVIATIONS` has to fail as is said there. What its fixtures do is not excused."""
    deviation = getattr(pyfuncitem.module, "DEVIATIONS", {}).get(pyfuncitem.name)
    if deviation is None:
        return (yield)
    assert pyfuncitem.funcargs["runtime"].name in PEERS
    with deviation.expected():
        yield
    return True


@pytest.fixture
def directory() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("containers of whole machines need root")
    path = Path(tempfile.mkdtemp(prefix="nbcontain-oci-", dir=needs.scratch()))
    # Root of a user namespace is somebody else, who has to get there.
    path.chmod(0o755)
    yield path
    subprocess.run(["rm", "-rf", path], check=False)


@pytest.fixture
def runtime(request: pytest.FixtureRequest, directory: Path) -> Iterator[Runtime]:
    made = Runtime(request.param, directory)
    yield made
    made.clear()


@pytest.fixture
def ours(directory: Path) -> Iterator[Runtime]:
    made = Runtime(OURS, directory)
    yield made
    made.clear()


@pytest.fixture
def runtimes(directory: Path) -> Iterator[list[Runtime]]:
    """Ours and those of its peers that are installed."""
    made = [Runtime(name, directory) for name in (OURS, *PEERS)]
    yield made
    for each in made:
        each.clear()


@pytest.fixture
def make(directory: Path, busybox: Path) -> Callable[[], Bundle]:
    count = iter(range(1000))
    return lambda: Bundle(directory / f"bundle{next(count)}", busybox)


@pytest.fixture
def bundle(make: Callable[[], Bundle]) -> Bundle:
    return make()


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that makes calls of the kernel, and says how each went."""
    compiler = needs.program("cc", "gcc")
    path = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run([compiler, "-static", "-O1", "-o", path, source], check=True)
    return path
