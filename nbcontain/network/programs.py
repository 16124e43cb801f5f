"""The first processes of containers on networks, by descriptors that tell of their end. Run by the worker."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from nbcontain.linux.starts import start_of
from nbcontain.network.model import Sandbox


class Programs:
    """Those that are watched."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._containers: dict[int, str] = {}
        """By pidfd."""

    def has(self, container: str) -> bool:
        return container in self._containers.values()

    def watch(self, sandbox: Sandbox) -> bool:
        """Hear of the end of a container's first process; False if it has ended."""
        try:
            fd = os.pidfd_open(sandbox.pid)
        except OSError:
            return False
        if start_of(sandbox.pid) != sandbox.pid_start:
            os.close(fd)
            return False
        self._containers[fd] = sandbox.container
        self._epoll.register(fd, select.EPOLLIN)
        return True

    def ended(self, fd: int) -> str:
        """The container whose first process this descriptor tells the end of; "" if it is none of these."""
        container = self._containers.get(fd, "")
        if container:
            self._close(fd)
        return container

    def forget(self, container: str) -> None:
        for fd in [fd for fd, each in self._containers.items() if each == container]:
            self._close(fd)

    def _close(self, fd: int) -> None:
        del self._containers[fd]
        with suppress(OSError):
            self._epoll.unregister(fd)
        os.close(fd)
