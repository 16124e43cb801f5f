"""What an ordinary user's networks have instead of this machine's: made by the worker, and watched by it."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from functools import partial

from nbcontain.linux.idmap import IdMap
from nbcontain.network.outside import Outside
from nbcontain.network.records import Records
from nbcontain.network.space import Space, entered
from nbcontain.network.uplink import Uplink
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Own:
    """All of it."""

    space: Space
    """The namespaces that the worker has entered."""
    outside: Outside
    uplink: Uplink


def apart(layout: Layout, place: str, ids: IdMap) -> Own:
    """Worker: enter the user's own namespaces, and have a process stay outside. Raises NetworkError."""
    directory = partial(layout.network_process, place)
    outside = Outside(directory("outside"))
    living = [each.pid for each in Records(layout).living() if each.pid and each.place == place]
    space = entered(directory("space"), ids, living)
    return Own(space, outside, Uplink(directory("uplink"), outside))


class Vigil:
    """Worker: hears of the end of the holder, which is replaced, and of the process outside, which cannot be."""

    def __init__(self, epoll: select.epoll, own: Own | None) -> None:
        self._epoll = epoll
        self._space = own.space if own is not None else None
        self._holder = self._outside = -1
        if own is not None:
            self._outside = own.outside.channel.fileno()
            epoll.register(self._outside, select.EPOLLRDHUP)
            self.look()

    def look(self) -> None:
        """Have a holder that lives, if need be a new one, and hear of its end. Where that cannot be, look again."""
        if self._space is None or self._holder >= 0 and not _has_ended(self._holder):
            return
        if self._holder >= 0:
            self._epoll.unregister(self._holder)
            os.close(self._holder)
            self._holder = -1
        for again in (False, True, True):
            # Whoever kills one may kill the next one too.
            with suppress(OSError):
                if again:
                    self._space.keep()
                holder = os.pidfd_open(self._space.holder)
                if not _has_ended(holder):
                    self._holder = holder
                    self._epoll.register(holder, select.EPOLLIN)
                    return
                os.close(holder)

    def serves(self, fd: int) -> bool:
        """Whether it was for us to hear of this descriptor."""
        if fd == self._outside:
            # Nobody gets out of here again: the next worker has another one.
            os._exit(1)
        is_holder = fd == self._holder
        if is_holder:
            self.look()
        return is_holder


def _has_ended(pidfd: int) -> bool:
    """Also of one that its parent has not waited for."""
    return bool(select.select([pidfd], [], [], 0)[0])
