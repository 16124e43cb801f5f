"""Asking the worker of a store's networks, and starting one where there is none. Run by whoever wants something."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.channel import Channel, Message, connect, error_of, is_readable
from nbcontain.errors import NetworkError, Unavailable
from nbcontain.linux.idmap import IdMap
from nbcontain.network.records import place
from nbcontain.store.layout import Layout

_ANSWER_S = 60.0
_READY_S = 30.0
_PAUSES_S = (0.0, 0.0, 0.02, 0.05, 0.1, 0.2)
"""A worker that ends takes apart what there was, and keeps another one from beginning until then."""
_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAM = (
    "import sys; sys.path.extend(sys.argv[4:]); from nbcontain.network.process import main; "
    "main(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class Client:
    """One connection to the worker of a store. Any thread may use it."""

    def __init__(self, layout: Layout, ids: IdMap) -> None:
        """`ids` is how containers' users are numbered: an ordinary user's networks are in a namespace of theirs."""
        self._layout = layout
        self._ids = ids
        self._lock = threading.Lock()
        self._channel: Channel | None = None

    def ask(self, message: Message, fds: Sequence[int] = ()) -> Message:
        """What the worker answers; `fds` are sent along. Raises what it raised, typed."""
        with self._lock:
            for pause_s in _PAUSES_S:
                channel = self._connected()
                try:
                    channel.send(message, fds)
                    return _answer(channel)
                except (BrokenPipeError, ConnectionResetError):
                    # It ended because nobody wanted anything of it, or somebody killed it.
                    self._close()
                    time.sleep(pause_s)
                except BaseException as error:
                    if not isinstance(error, NetworkError):
                        # What is still to come would be taken for the next one's answer.
                        self._close()
                    raise
        raise NetworkError("the networks' worker ends at once")

    def warm(self) -> None:
        """Have a worker started. Whatever is wrong is told when it matters."""
        with self._lock, suppress(NetworkError, Unavailable, OSError):
            self._connected()

    def close(self) -> None:
        """Hang up; the worker goes on as long as somebody needs it."""
        with self._lock:
            self._close()

    def is_there(self) -> bool:
        """Whether one runs already."""
        return (self._directory() / "control.sock").exists()

    def _directory(self) -> Path:
        return self._layout.network_process(place(), "worker")

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> Channel:
        if self._channel is None:
            for pause_s in _PAUSES_S:
                with suppress(OSError):
                    self._channel = connect(self._directory())
                    break
                time.sleep(pause_s)
                _start(self._layout, self._ids)
            else:
                raise NetworkError("the networks' worker cannot be reached")
        return self._channel


def _answer(channel: Channel) -> Message:
    """Raises what the worker raised, typed; BrokenPipeError if it is gone: what is asked for can be asked for again."""
    if not is_readable(channel, _ANSWER_S):
        raise NetworkError(f"the networks' worker has no answer after {_ANSWER_S:.0f} s")
    message, fds = channel.receive()
    for fd in fds:
        os.close(fd)
    if message is None:
        raise BrokenPipeError
    if "error" in message:
        raise error_of(message)
    return message


def _start(layout: Layout, ids: IdMap) -> None:
    """Execute one, and wait until it listens, or ends because there is another. Raises NetworkError, Unavailable."""
    found = importlib.util.find_spec("pyroute2")
    if found is None or found.origin is None:
        raise Unavailable(
            "there are no networks here", why="the package pyroute2 is not installed", hint="pip install pyroute2"
        )
    ready, told = os.pipe2(os.O_CLOEXEC)
    complaints, complaining = os.pipe2(os.O_CLOEXEC)
    paths = dict.fromkeys((str(_PACKAGE), str(Path(found.origin).parents[1])))
    executable = os.path.realpath(sys.executable)
    words = [
        executable,
        "-I",
        "-S",
        *(["-B"] if sys.dont_write_bytecode else []),
        "-c",
        _PROGRAM,
        str(layout.root),
        "3",
        "" if ids.is_identity else json.dumps(ids.numbers()),
        *paths,
    ]
    quiet = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1)]
    # A descriptor that is duplicated onto itself would stay close-on-exec.
    high = os.dup(told)
    try:
        pid = os.posix_spawn(
            executable, words, _ENVIRONMENT,
            file_actions=[*quiet, (os.POSIX_SPAWN_DUP2, complaining, 2), (os.POSIX_SPAWN_DUP2, high, 3)],
        )  # fmt: skip
    except BaseException:
        os.close(ready)
        os.close(complaints)
        raise
    finally:
        for fd in (told, complaining, high):
            os.close(fd)
    try:
        with suppress(ChildProcessError):
            # It forks at once, so that what follows is nobody's child.
            os.waitpid(pid, 0)
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        if not poll.poll(_READY_S * 1000):
            raise NetworkError(f"the networks' worker is not ready after {_READY_S:.0f} s")
        if os.read(ready, 1):
            return
        os.set_blocking(complaints, False)
        with suppress(BlockingIOError):
            if text := os.read(complaints, 1 << 16).decode(errors="replace").strip():
                raise NetworkError("the networks' worker did not start", why=text.splitlines()[-1][-500:])
    finally:
        os.close(ready)
        os.close(complaints)
