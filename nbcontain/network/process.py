"""How the networks' processes come to be: nobody's children, each with a lock and a control socket of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from nbcontain.channel import Listener
from nbcontain.linux import syscalls
from nbcontain.store import files
from nbcontain.store.layout import Layout

IDLE_S = 20.0
"""Without containers on networks, and without anybody who is connected, for so long: then the worker ends."""


def main(root: str, ready: int, idle_s: float = IDLE_S) -> None:
    """Become the worker of the store at `root`; a byte on `ready` says that it listens, its end that there is one."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Helpers are nobody's children; what they leave is reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.chdir("/")
    os.umask(0o077)
    layout = Layout(Path(root))
    directory = layout.network_process("worker")
    files.make_directory(directory, durable=False)
    if files.try_lock(directory / "lock") is None:
        os._exit(0)
    files.unlink(directory / "control.sock")
    listener = Listener()
    listener.open(directory)
    # Only here: who finds that there is one already has not imported what makes networks.
    from nbcontain.network.worker import Worker

    Worker(layout, listener, idle_s).serve(ready)


def fork_off(body: Callable[[], None], *kept: int) -> None:
    """Worker: have a process run `body` that has these descriptors and no others, and is nobody's child."""
    if os.fork():
        return
    try:
        os.setsid()
        if os.fork() == 0:
            syscalls.close_others(kept)
            body()
    finally:
        os._exit(1)
