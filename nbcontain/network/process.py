"""How the networks' processes come to be: nobody's children, each with a lock and a control socket of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nbcontain.channel import Channel, Listener
from nbcontain.linux import syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.network import rooms
from nbcontain.network.records import place
from nbcontain.store import files
from nbcontain.store.layout import Layout

IDLE_S = 20.0
"""Without containers on networks, and without anybody who is connected, for so long: then the worker ends."""
LOOK_S = 15.0
"""How often whoever outlives a worker looks whether anybody can find it still."""


def main(root: str, ready: int, ids: str, idle_s: float = IDLE_S) -> None:
    """Become the worker of the store at `root`; a byte on `ready` says that it listens, its end that there is one.

    `ids` is an ordinary user's map of ids, as JSON; "" for root.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    # What somebody let this be born with would never be closed while networks are needed.
    syscalls.close_others((ready,))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.umask(0o077)
    layout, here = Layout(Path(root)), place()
    directory = layout.network_process(here, "worker")
    if rooms.taken(layout, here) is None:
        os._exit(0)
    _be_called(directory)
    files.unlink(directory / "control.sock")
    listener = Listener()
    listener.open(directory)
    # Only here: who finds that there is one already has not imported what makes networks.
    from nbcontain.network.own import apart
    from nbcontain.network.worker import Worker

    own = apart(layout, here, IdMap.from_numbers(json.loads(ids))) if ids else None
    Worker(layout, here, listener, idle_s, own).serve(ready)


def fork_off(directory: Path, body: Callable[[], None], *kept: int) -> None:
    """Worker: have a process run `body` that has these descriptors and no others, and is nobody's child.

    It is called by `directory`, which is where its lock is, if it has one.
    """
    if child := os.fork():
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _be_called(directory)
            syscalls.close_others(kept)
            body()
    finally:
        os._exit(1)


def fork_beside(directory: Path, body: Callable[[Channel], None]) -> Channel:
    """Worker: have a process run `body`, whose end of a channel is all that it has; gives the other end."""
    ours, theirs = Channel.pair()
    fork_off(directory, lambda: body(theirs), theirs.fileno())
    theirs.close()
    return ours


def is_forgotten(lock: int) -> bool:
    """Holder, helper: whether its store was removed. Its lock is by no name any more, and no worker comes to end it."""
    return os.fstat(lock).st_nlink == 0


def _be_called(directory: Path) -> None:
    """For whoever looks at the machine's processes."""
    syscalls.overwrite_words(os.fsencode(f"nbcontain-network {directory}"))
