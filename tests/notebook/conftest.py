"""Fixtures of the notebook tests: kernels of the matrix, each on a fresh store with a small image in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernels import BUSYBOX_CELL, RELEASES, Kernel, started


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Each ipykernel of the matrix in turn."""
    return str(request.param)


@pytest.fixture
def start_kernel(root: Path, busybox_context: Path) -> Iterator[Callable[..., Kernel]]:
    """Start kernels of a release on one store; they are ended afterwards."""
    with ExitStack() as stack:

        def start(release: str = "here", **environ: str) -> Kernel:
            kernel = stack.enter_context(started(release, root=root, cwd=busybox_context, environ=environ))
            kernel.check("%load_ext nbcontain")
            return kernel

        yield start


@pytest.fixture
def kernel(start_kernel: Callable[..., Kernel], release: str) -> Kernel:
    """A kernel of each release in turn, with the extension loaded and the image `box` built."""
    kernel = start_kernel(release)
    kernel.check(BUSYBOX_CELL)
    return kernel
