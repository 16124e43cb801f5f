"""A process of the networks' own that holds sockets: the responder for names, and the forwarder of ports.

It is told what to hold by the worker, over a channel, and goes on when that is gone: the next worker finds it by its
control socket, and asks what it has. Alive means *holds the lock*. It gives up all powers before it hears of anything.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Protocol

from nbcontain.channel import Channel, Listener, Message
from nbcontain.linux import syscalls
from nbcontain.network.process import LOOK_S, is_forgotten

_NOBODY = 65534


class Work(Protocol):
    """What a helper does."""

    def held(self) -> list[str]:
        """The keys of what it holds."""

    def hold(self, key: str, told: Message, fds: list[int]) -> None:
        """Serve these sockets from now on."""

    def drop(self, key: str) -> None:
        """No longer; idempotent."""

    def learn(self, told: Message) -> None:
        """What it has to know has changed."""

    def serve(self, fd: int, events: int) -> None:
        """Something happened to a descriptor that it registered."""

    def tick(self) -> float | None:
        """Time has passed. Gives the seconds after which it wants to hear again; None for no hurry."""


class Poll:
    """epoll(7), and who wants to hear of which descriptor."""

    def __init__(self) -> None:
        self.epoll = select.epoll()

    def watch(self, fd: int, events: int) -> None:
        try:
            self.epoll.register(fd, events)
        except FileExistsError:
            self.epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        try:
            self.epoll.unregister(fd)
        except (FileNotFoundError, ValueError, OSError):
            pass


def run(listener_fd: int, lock: int, make: Callable[[Poll], Work], *, is_root: bool) -> None:
    """The helper's whole life, which holds its lock."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    silence()
    _give_up_powers(is_root=is_root)
    listener = Listener(listener_fd)
    poll = Poll()
    work = make(poll)
    clients: dict[int, Channel] = {}
    poll.watch(listener.fileno(), select.EPOLLIN)
    gc.freeze()
    looked_at = time.monotonic()
    while True:
        if time.monotonic() - looked_at >= LOOK_S:
            looked_at = time.monotonic()
            if is_forgotten(lock):
                os._exit(0)
        wait_s = work.tick()
        for fd, events in poll.epoll.poll(LOOK_S if wait_s is None else min(wait_s, LOOK_S)):
            if fd == listener.fileno():
                client = listener.accept()
                clients[client.fileno()] = client
                poll.watch(client.fileno(), select.EPOLLIN)
            elif fd in clients:
                if not _obeyed(clients[fd], work):
                    poll.forget(fd)
                    clients.pop(fd).close()
            else:
                work.serve(fd, events)


def silence() -> None:
    """Have 0, 1 and 2 be nothing: whose pipes they were would wait for their end."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _obeyed(client: Channel, work: Work) -> bool:
    """Do what a worker says; False if it is gone."""
    try:
        message, fds = client.receive()
    except (ValueError, OSError):
        return False
    if message is None:
        return False
    match message.get("do"):
        case "held":
            client.tell({"held": work.held()})
        case "hold":
            work.hold(str(message["key"]), message, fds)
            fds = []
        case "drop":
            work.drop(str(message["key"]))
        case "learn":
            work.learn(message)
        case "end":
            os._exit(0)
    for fd in fds:
        os.close(fd)
    return True


def _give_up_powers(*, is_root: bool) -> None:
    """Be nobody who may do nothing: what comes over the network is not worth more."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if is_root:
        os.setgroups(())
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    else:
        # An ordinary user is root in namespaces of their own.
        syscalls.capset(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
