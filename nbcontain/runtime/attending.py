"""Listening to a further program in a container until it ends. Everything here runs in the kernel."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from typing import Literal

from nbcontain.errors import NotRunning
from nbcontain.runtime.messages import Channel, Message, error_of

Stream = Literal["stdout", "stderr"]
_READ_BYTES = 1 << 16


def ask(channel: Channel, name: str, order: Message, fds: Sequence[int] = ()) -> None:
    """Say what is wanted of this container. Raises NotRunning where it has ended since its supervisor was reached."""
    try:
        channel.send(order, fds)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise NotRunning(f"{name} has ended") from error


def attend(
    poll: select.poll,
    channel: Channel,
    streams: dict[int, Stream],
    end: int,
    on_output: Callable[[Stream, bytes], None],
) -> int:
    """Pass on what a further program writes, by `streams`, to its end; gives its exit code.

    Raises what `channel` tells. It is killed if `end`, of whoever wants it, comes to its own end.
    """
    code: int | None = None
    while code is None or streams:
        # A grandchild may keep the pipes open after the end: what is there now is all that is waited for.
        ready = poll.poll(None if code is None else 200)
        if not ready and code is not None:
            break
        for fd, _ in ready:
            if fd in streams:
                try:
                    data = os.read(fd, _READ_BYTES)
                except BlockingIOError:
                    continue
                if data:
                    on_output(streams[fd], data)
                else:
                    poll.unregister(fd)
                    os.close(fd)
                    del streams[fd]
            elif fd == end:
                return 128 + signal.SIGKILL
            else:
                message, _ = channel.receive()
                if message is None:
                    poll.unregister(channel)
                    code = 128 + signal.SIGKILL if code is None else code
                elif "error" in message:
                    raise error_of(message)
                elif "exit_code" in message:
                    poll.unregister(channel)
                    code = int(message["exit_code"])
    return code
