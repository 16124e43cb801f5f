"""Where the networks' processes have their locks and sockets: a directory for each network namespace. Run by workers.

A namespace goes without a word, and its number may be another's one day: nobody can tell from outside whether there is
one still. So a directory goes when nobody holds a lock in it. Whoever takes a worker's lock holds that of all
directories shared meanwhile, and whoever removes one holds it alone: no lock is removed that somebody is about to take.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from nbcontain.channel import connect
from nbcontain.errors import NbcontainError
from nbcontain.linux import starts
from nbcontain.network.records import Records
from nbcontain.store import files, removal
from nbcontain.store.layout import Layout

_WORKER = "worker"
_ENDING_S = 1.0
"""How long a worker waits for the end of those that it has told to end."""


def taken(layout: Layout, place: str) -> int | None:
    """The lock of the worker of a network namespace, by its descriptor; None if there is a worker."""
    files.make_directory(layout.network_places, durable=False)
    with files.lock(layout.network_places / "lock", exclusive=False):
        directory = layout.network_process(place, _WORKER)
        files.make_directory(directory, durable=False)
        return files.try_lock(directory / "lock")


def forget_others(records: Records, here: str) -> None:
    """What is written of containers that have ended, and that another namespace's worker should have forgotten."""
    lived_in = set()
    for each in records.sandboxes():
        if records.is_alive(each.container):
            lived_in.add(each.place)
        elif each.place != here:
            records.remove_sandbox(each.container)
    clear(records.layout, here, lived_in)


def clear(layout: Layout, here: str, lived_in: Collection[str]) -> None:
    """Remove what other namespaces' processes left. Those of which no worker is there any more are ended, too.

    `lived_in` are the namespaces of living containers: these have their names and ports until the next worker.
    """
    others = {name for name in files.names(layout.network_places) if name.isdecimal()} - {here, *lived_in}
    lock = files.try_lock(layout.network_places / "lock") if others else None
    if lock is None:
        return
    try:
        for name in others:
            place = layout.network_places / name
            if _is_free(place / _WORKER) and not [each for each in _directories(place) if not _is_over(each)]:
                removal.remove_tree(place)
    finally:
        os.close(lock)


def leave(layout: Layout, here: str) -> None:
    """A worker's last deed, which holds its own lock: remove its own directory. Nobody is let in until it has ended."""
    place = layout.network_places / here
    others = [each for each in _directories(place) if each.name != _WORKER]
    until = time.monotonic() + _ENDING_S
    while not all(map(_is_free, others)) and time.monotonic() < until:
        time.sleep(0.005)
    # It is held from here to this process's end.
    if files.try_lock(layout.network_places / "lock") is not None and all(map(_is_free, others)):
        removal.remove_tree(place)


def _directories(place: Path) -> list[Path]:
    return [place / name for name in files.names(place)]


def _is_free(directory: Path) -> bool:
    """Whether nobody holds a process's lock."""
    if not (directory / "lock").exists():
        return True
    lock = files.try_lock(directory / "lock")
    if lock is not None:
        os.close(lock)
    return lock is not None


def _is_over(directory: Path) -> bool:
    """Whether a process has ended; one that has not is told to, and is gone by the next time somebody looks."""
    for name in ("holder.json", "uplink.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, NbcontainError):
            record = json.loads(files.read(directory / name, 1 << 10))
            starts.kill(int(record["pid"]), int(record["start"]))
    if _is_free(directory):
        return True
    with suppress(OSError):
        channel = connect(directory)
        channel.tell({"do": "end"})
        channel.close()
    return False
