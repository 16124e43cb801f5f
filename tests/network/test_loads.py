"""Published servers under load, killed in the midst of it: through the packet filter, and through the forwarder."""

from __future__ import annotations

import subprocess

import loads
from lan import Lan
from machine import Machine, until


def test_a_server_that_is_killed_under_load_is_there_again_by_both_ways_in(machine: Machine, lan: Lan) -> None:
    victim = loads.server(machine, name="loaded", publish=("0.0.0.0:8080:80",))
    into = ("nsenter", "--target", str(lan.neighbour.pid), "--net")
    for address, prefix in (("192.0.2.1", into), ("127.0.0.1", ())):
        assert loads.killed_under_load(machine, victim, f"http://{address}:8080/", prefix) > 50
        fetch = [*prefix, "curl", "-sS", "--max-time", "2", f"http://{address}:8080/"]
        until(lambda: "loaded" in subprocess.run(fetch, capture_output=True, text=True, check=False).stdout)  # noqa: B023
