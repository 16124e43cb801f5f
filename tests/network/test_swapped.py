"""The way out of ordinary users' networks where there is no tunnel: connections answered for, datagrams relayed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import needs
import places
from machine import Machine, network_processes, said, until
from nbcontain.engine import Engine
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.container import Container

pytestmark = pytest.mark.of_users(tunnel=False)
WORLD, PORT = "192.0.2.2", 8000
GET = f"(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.3) | timeout 3 nc -w 3 {WORLD} {PORT}"
WAIT = "trap exit TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def shared(busybox_context: Path) -> Iterator[Machine]:
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-swap-", dir=needs.scratch()))
    with Engine(directory, environ={**os.environ, "NBCONTAIN_NETWORK": ""}) as engine:
        machine = Machine(engine, busybox_context)
        yield machine
        machine.clear()
        engine.networks.settle()
        for process in network_processes(directory):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        engine.store.snapshots.remove_tree(engine.layout.snapshots)
    places.remove(directory)


@pytest.fixture
def machine(shared: Machine, profile: str) -> Iterator[Machine]:
    yield shared
    for container in shared.engine.containers():
        if container.name != "program":
            shared.engine.remove_container(container, force=True)
    shared.engine.networks.prune()
