"""What serves the networks, in this process: turn by turn, so that nothing waits for anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from nbcontain.network.forwarder import Forwarder
from nbcontain.network.helper import Poll
from nbcontain.network.names import Responder

H = TypeVar("H", Forwarder, Responder)
LOCAL = "127.0.0.1"


class Turns(Generic[H]):
    """One of them, which serves what has come when it is told to."""

    def __init__(self, make: Callable[[Poll], H]) -> None:
        self.poll = Poll()
        self.serving: H = make(self.poll)

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            for fd, events in self.poll.epoll.poll(0.05):
                self.serving.serve(fd, events)

    def close(self) -> None:
        for key in self.serving.held():
            self.serving.drop(key)
        self.poll.epoll.close()
