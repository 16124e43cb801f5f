"""Networks, and who is on them, on disk: the worker alone writes, everybody reads."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbcontain.errors import NetworkNotFound, StoreError, did_you_mean
from nbcontain.network.model import (
    BUILT_IN,
    Network,
    Sandbox,
    built_in_id,
    network_from_json,
    network_to_json,
    sandbox_from_json,
    sandbox_to_json,
)
from nbcontain.store import files, holds
from nbcontain.store.layout import Layout

_LIMIT_BYTES = 4 << 20
_BROKEN = (OSError, ValueError, TypeError, KeyError, StoreError, RecursionError)


class Records:
    """The networks of one store."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    # --- networks ---

    def networks(self) -> list[Network]:
        """All there are, in the order of their names; those that are always there too."""
        found = {each.name: each for each in map(_without_bridge, BUILT_IN)}
        for name in files.names(self.layout.networks):
            if name.endswith(".json"):
                with suppress(*_BROKEN):
                    network = network_from_json(_document(self.layout.networks / name))
                    found[network.name] = network
        return sorted(found.values(), key=lambda each: each.name)

    def find(self, name: str) -> Network:
        """A network by name, id or the beginning of its id. Raises NetworkNotFound."""
        known = self.networks()
        for each in known:
            if name in (each.name, each.id):
                return each
        matching = [each for each in known if name and each.id.startswith(name)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise NetworkNotFound(f"{name} is the beginning of {len(matching)} networks' ids", hint="give more of it")
        otherwise = f"%network create {name} makes one; %network ls lists all there are"
        hint = did_you_mean(name, (each.name for each in known), otherwise)
        raise NetworkNotFound(f"network {name} not found", hint=hint)

    def write(self, network: Network) -> None:
        files.make_directory(self.layout.networks)
        files.replace(self.layout.network(network.id), _bytes(network_to_json(network)))

    def remove(self, network: Network) -> None:
        files.unlink(self.layout.network(network.id))

    # --- who is on them ---

    def sandboxes(self) -> list[Sandbox]:
        """All that were written down, also of containers that have ended meanwhile."""
        found = []
        for name in files.names(self.layout.network_sandboxes):
            with suppress(*_BROKEN):
                found.append(sandbox_from_json(_document(self.layout.network_sandboxes / name)))
        return found

    def living(self) -> list[Sandbox]:
        """Those of containers that are alive."""
        return [each for each in self.sandboxes() if self.is_alive(each.container)]

    def sandbox(self, container_id: str) -> Sandbox | None:
        try:
            return sandbox_from_json(_document(self.layout.network_sandbox(container_id)))
        except _BROKEN:
            return None

    def is_alive(self, container_id: str) -> bool:
        """Whether somebody holds the container's lock."""
        return holds.is_held_at(self.layout.container(container_id) / "lock")

    def process_of(self, container_id: str) -> tuple[int, int]:
        """A container's first process as its supervisor last wrote it, and when that began; zeros for none."""
        try:
            state = _document(self.layout.container(container_id) / "state.json")
            return int(state["pid"]), int(state["pid_start"])
        except _BROKEN:
            return 0, 0

    def write_sandbox(self, sandbox: Sandbox) -> None:
        """Not synced: after a power cut nothing of it is left in the kernel either."""
        files.make_directory(self.layout.network_sandboxes, durable=False)
        files.replace(self.layout.network_sandbox(sandbox.container), _bytes(sandbox_to_json(sandbox)), durable=False)

    def remove_sandbox(self, container_id: str) -> None:
        files.unlink(self.layout.network_sandbox(container_id))

    def sweep(self) -> None:
        """Remove what a worker that was killed was about to write."""
        for directory in (self.layout.networks, self.layout.network_sandboxes):
            for path in files.sweep(directory):
                files.unlink(path)


def place() -> str:
    """Whoever is in this thread's network namespace has the same worker of a store; who is in another, another one."""
    return str(os.stat("/proc/thread-self/ns/net").st_ino)


def _without_bridge(name: str) -> Network:
    """One that is always there; the default network has a bridge once somebody was on it."""
    driver = "null" if name == "none" else name
    return Network(name, built_in_id(name), driver=driver)


def _document(path: Path) -> Any:
    return json.loads(files.read(path, _LIMIT_BYTES))


def _bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
