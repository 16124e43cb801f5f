"""The worker's side of a helper: finding the one that runs, starting one, telling it what to hold."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.channel import Channel, Listener, Message, connect, is_readable
from nbcontain.errors import NetworkError
from nbcontain.store import files

_ANSWER_S = 5.0
_PAUSES_S = (0, 0, 0.02, 0.1, 0.5)
Wanted = Mapping[str, tuple[Message, Callable[[], Sequence[socket.socket]]]]
"""What a helper is to hold: what it is told of each, and how its sockets are made."""


class Serving:
    """One helper, from the worker's side: found, started, told."""

    def __init__(self, directory: Path, begin: Callable[[Path, int, int], None]) -> None:
        """`begin` has a process, called by the directory, serve a listener and hold a lock: their descriptors."""
        self._directory = directory
        self._begin = begin
        self.channel: Channel | None = None
        self._holds: set[str] | None = None
        """What the one at the channel's other end has from us; None until it was asked."""
        self.refused: dict[str, str] = {}
        """What could not be had, and why."""

    def sync(self, wanted: Wanted, knowledge: Message | None = None, *, ends: bool = True) -> None:
        """Have it hold exactly this, and know this. Without anything to hold it `ends`, or there is none."""
        if not wanted and (ends or self.channel is None):
            if self.channel is not None or (self._directory / "control.sock").exists():
                with suppress(OSError):
                    self._reach().send({"do": "end"})
                self.forget()
                files.unlink(self._directory / "control.sock")
            return
        self.refused = {key: why for key, why in self.refused.items() if key in wanted}
        for pause_s in _PAUSES_S:
            if pause_s:
                # A pause of nothing would be one all the same: it lets others have the processor.
                time.sleep(pause_s)
            try:
                channel = self._connected()
                held = self._held(channel) if self._holds is None else self._holds
                for key in held - wanted.keys():
                    channel.send({"do": "drop", "key": key})
                if held - wanted.keys():
                    # Until it has let go, nobody else can have them.
                    held = self._held(channel)
                self._holds = held
                if knowledge is not None:
                    channel.send({"do": "learn", **knowledge})
                for key in wanted.keys() - held:
                    self._hold(channel, key, *wanted[key])
                    if key not in self.refused:
                        held.add(key)
                return
            except (BrokenPipeError, ConnectionResetError):
                # Somebody killed it; for as long as it is dying, its socket still takes connections.
                self.forget()
        raise NetworkError(f"the networks' process `{self._directory.name}` ends at once")

    def _hold(self, channel: Channel, key: str, told: Message, make: Callable[[], Sequence[socket.socket]]) -> None:
        try:
            ends = make()
        except (OSError, NetworkError) as error:
            self.refused[key] = str(error)
            return
        self.refused.pop(key, None)
        try:
            channel.send({"do": "hold", "key": key, **told}, [end.fileno() for end in ends])
        finally:
            for end in ends:
                end.close()

    def _held(self, channel: Channel) -> set[str]:
        channel.send({"do": "held"})
        if not is_readable(channel, _ANSWER_S):
            raise BrokenPipeError
        answer, _ = channel.receive()
        if answer is None:
            raise BrokenPipeError
        return set(answer["held"])

    def forget(self) -> None:
        self._holds = None
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def _reach(self) -> Channel:
        if self.channel is None:
            self.channel = connect(self._directory)
        return self.channel

    def _connected(self) -> Channel:
        """A channel to the one that runs, or to a new one."""
        try:
            return self._reach()
        except OSError:
            pass
        files.make_directory(self._directory, durable=False)
        lock = files.try_lock(self._directory / "lock")
        if lock is None:
            # One that lives and cannot be reached: it was ended a moment ago.
            with files.lock(self._directory / "lock", exclusive=True):
                pass
            return self._connected()
        files.unlink(self._directory / "control.sock")
        listener = Listener()
        try:
            listener.open(self._directory)
            self._begin(self._directory, listener.fileno(), lock)
        finally:
            listener.close()
            os.close(lock)
        return self._reach()
