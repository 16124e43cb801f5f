"""A container with every power that an ordinary user can give it, against the user's networks and who keeps them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places
import profile_runs
from machine import Machine, network_processes
from nbcontain.engine import Engine
from nbcontain.networks import NetworkRequest
from nbcontain.runtime.container import Container

pytestmark = pytest.mark.of_users
POWERS = {"cap_add": ("ALL",), "security_opt": ("seccomp=unconfined",)}
WAIT = "echo ready; while :; do sleep 0.1; done"
WORLD = "192.0.2.2"


@pytest.fixture(scope="module")
def own(busybox_context: Path) -> Iterator[Machine]:
    if profile_runs.here() == "root":
        pytest.skip(f"these are ordinary users' networks, and none can be made here: {profile_runs.why_alone()}")
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-own-", dir=needs.scratch()))
    with Engine(directory) as engine:
        made = Machine(engine, busybox_context)
        for name in ("one", "shut"):
            block = {"one": "10.99.1.0/24", "shut": "10.99.2.0/24"}[name]
            engine.networks.create(NetworkRequest(name=name, subnets=(block,), internal=name == "shut"))
        yield made
        made.clear()
        engine.networks.prune()
        engine.networks.settle()
        for pid in network_processes(engine.layout.root):
            os.kill(pid, signal.SIGKILL)
        engine.store.snapshots.remove_tree(engine.layout.snapshots)
    places.remove(directory)


@pytest.fixture
def machine(own: Machine, profile: str) -> Iterator[Machine]:
    yield own
    own.clear()


def keepers(machine: Machine) -> dict[str, int]:
    """The networks' processes, by what they do."""
    return {role: pid for pid, role in network_processes(machine.engine.layout.root).items()}


def attacker(machine: Machine, **options: object) -> Container:
    return machine.start(WAIT, name="attacker", **{"network": "one", **POWERS, **options})


def test_an_internal_network_stays_shut_for_who_lays_a_way_out(machine: Machine, profile: str) -> None:
    open_one = machine.start(WAIT, name="open", network="one")
    hostile = attacker(machine, network="shut")
    sandbox = machine.engine.networks.sandbox(open_one)
    assert sandbox is not None
    tries = "; ".join(
        f"ping -c 1 -W 1 {each} >/dev/null && echo REACHES {each}" for each in (WORLD, sandbox.address, "10.99.2.1")
    )
    script = f"ip route add default via 10.99.2.1; {tries}; timeout 1 nslookup -type=a open.one 10.99.1.1"
    said = machine.execute(hostile, "sh", "-c", f"({script}; :) 2>/dev/null")[1]
    assert [line for line in said.splitlines() if "REACHES" in line] == ["REACHES 10.99.2.1"]
    assert sandbox.address not in said


def test_a_container_in_a_namespace_of_its_own_making_is_not_where_networks_are_had_again(
    machine: Machine, profile: str
) -> None:
    """Whoever held the user's namespaces is killed: they are found by containers', and one container lies."""
    machine.start(f"exec unshare -Ur sh -c '{WAIT}'", name="attacker", network="one", **POWERS)
    before = keepers(machine)
    space = os.readlink(f"/proc/{before['space']}/ns/user")
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    machine.engine.networks.settle()
    assert os.readlink(f"/proc/{keepers(machine)['space']}/ns/user") == space
