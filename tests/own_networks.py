"""A store of an ordinary user's, with networks in namespaces of its own; nothing of it stays, whatever was killed."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import needs
import places
from machine import Machine, network_processes
from nbcontain.engine import Engine
from nbcontain.linux.starts import start_of
from nbcontain.network.records import place


@contextmanager
def own_machine(context: Path, **environ: str) -> Iterator[Machine]:
    """Of this directory's image; `environ` is said beside what this process has."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-own-", dir=needs.scratch()))
    with Engine(directory, environ={**os.environ, **environ}) as engine:
        machine = Machine(engine, context)
        try:
            yield machine
        finally:
            machine.clear()
            engine.volumes.prune(all=True)
            engine.networks.settle()
            # A worker that lives a moment longer replaces who was killed.
            while there := processes(machine):
                for process in there:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            engine.store.snapshots.remove_tree(engine.layout.snapshots)
    places.remove(directory)


def processes(machine: Machine) -> dict[int, str]:
    """The networks' processes of a machine's store, by pid; the program that leads out, too."""
    found = network_processes(machine.engine.layout.root)
    with suppress(OSError):
        record = json.loads(machine.engine.layout.network_process(place(), "uplink/uplink.json").read_bytes())
        if start_of(record["pid"]) == record["start"]:
            found[record["pid"]] = "uplink"
    return found
