"""Fixtures of the networks' tests: a namespace made for the test, in which the engine takes itself for the host."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places
from lan import HOME, Lan, picture
from machine import Machine
from nbcontain.engine import Engine
from nbcontain.linux import syscalls
from nbcontain.outcomes import RunResult
from nbcontain.runtime.container import Container


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """This thread, and all that it starts, in a network namespace of its own."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        needs.program(program, package)
    if os.geteuid():
        pytest.skip("only root can make this machine's bridges")
    home = os.open(HOME, os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    made = Lan()
    yield made
    made.close()
    syscalls.setns(home, syscalls.CLONE_NEWNET)
    os.close(home)


class Pinging(Machine):
    """Its containers may ping: the tests' busybox knows no other way than raw sockets."""

    def run(self, *command: str, image: str = "box", **options: object) -> RunResult:
        return super().run(*command, image=image, **{"cap_add": ("NET_RAW",), **options})

    def start(self, script: str, *, image: str = "box", **options: object) -> Container:
        return super().start(script, image=image, **{"cap_add": ("NET_RAW",), **options})


@pytest.fixture(scope="module")
def shared(lan: Lan, busybox_context: Path) -> Iterator[Machine]:
    """One store for all tests of a module: what is tested is networks."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-net-", dir=needs.scratch()))
    with Engine(directory, environ={**os.environ, "NBCONTAIN_NETWORK": ""}) as engine:
        machine = Pinging(engine, busybox_context)
        engine.networks.warm()
        yield machine
        machine.clear()
        engine.networks.settle()
    places.remove(directory)


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """A machine without containers and networks; afterwards nothing of them is left in the kernel."""
    shared.engine.networks.settle()
    before = picture()
    yield shared
    shared.clear()
    for name in shared.engine.networks.prune():
        assert name
    shared.engine.networks.settle()
    assert picture() == before
