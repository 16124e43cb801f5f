"""Sending with somebody else's address, and who hears the answers."""

from __future__ import annotations

from pathlib import Path

from machine import Machine
from nbcontain.network.model import Endpoint
from nbcontain.runtime.container import Container

POWERS = ("NET_RAW", "NET_ADMIN")
"""What it takes."""
WORLD, WORLD6 = "192.0.2.2", "fd99::2"


def places_on(machine: Machine, container: Container) -> tuple[Endpoint, ...]:
    """What a container has on its networks."""
    sandbox = machine.engine.networks.sandbox(container)
    assert sandbox is not None
    return sandbox.endpoints


def forging(endpoints: tuple[Endpoint, ...]) -> str:
    """A script that pings the other machine as who has these, and then as itself; it says whether that was answered."""
    tries = " & ".join(
        f"(ip addr add {address}/{bits} dev lo; ping -{version} -c 1 -W 1 -I {address} {world})"
        for each in endpoints
        for address, bits, version, world in ((each.address, 32, 4, WORLD), (each.address6, 128, 6, WORLD6))
    )
    return f"{tries} & wait; ping -c 1 -W 2 {WORLD} && ping -6 -c 1 -W 2 {WORLD6} && echo answered"


def replies(container: Container) -> int:
    """How many answers to pings it has heard."""
    net = Path(f"/proc/{container.pid}/net")
    names, numbers = (line.split() for line in (net / "snmp").read_text().splitlines() if line.startswith("Icmp: "))
    six = dict(line.split() for line in (net / "snmp6").read_text().splitlines())
    return int(numbers[names.index("InEchoReps")]) + int(six["Icmp6InEchoReplies"])
