"""The forwarder: what comes to a published port of this machine goes to a container's, and back. Its own process.

Used on loopback, where the packet filter does not reach, between containers, for ordinary users, and wherever there is
no packet filter. Bytes go from socket to socket through pipes, and never through this process's memory (splice(2)).
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable

from nbcontain.channel import Message
from nbcontain.network.helper import Poll

_PIPE_BYTES = 1 << 20
_SPLICE = 0x1 | 0x2
"""SPLICE_F_MOVE, SPLICE_F_NONBLOCK (splice(2))."""
_CLIENTS = 1024
"""Of UDP, for each port."""
_SILENT_S = 90.0
"""After which a client of UDP is forgotten."""
_PACKET_BYTES = 65535
_ACCEPTS = 32
_PAIR_FDS = 6
"""What one connection takes: two sockets, and two pipes."""
_ROUNDS = 16
"""How often one direction may go on before others have their turn."""
_READ, _WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR


class _Direction:
    """From one end to the other, by a pipe."""

    __slots__ = ("full", "has_ended", "is_closed", "reading", "source", "target", "writing")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            # An ordinary user may have no more of such memory: then it is 64 KiB.
            pass
        self.full = 0
        self.has_ended = self.is_closed = False

    def move(self) -> bool:
        """As much as goes without waiting, within reason: True if there may be more. Raises OSError if it is broken."""
        for _ in range(_ROUNDS):
            progressed = False
            if not self.has_ended and self.full < _PIPE_BYTES:
                try:
                    came = os.splice(self.source.fileno(), self.writing, _PIPE_BYTES - self.full, flags=_SPLICE)
                    self.has_ended = came == 0
                    self.full += came
                    progressed = came > 0
                except BlockingIOError:
                    pass
            if self.full:
                try:
                    went = os.splice(self.reading, self.target.fileno(), self.full, flags=_SPLICE)
                    self.full -= went
                    progressed = progressed or went > 0
                except BlockingIOError:
                    pass
            if self.has_ended and not self.full and not self.is_closed:
                self.is_closed = True
                self.target.shutdown(socket.SHUT_WR)
            if not progressed:
                return False
        return True

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class _Pair:
    """A client, and the container's end of its connection."""

    __slots__ = ("back", "client", "forth", "inside", "is_connected", "port")

    def __init__(self, port: _Port, client: socket.socket, inside: socket.socket) -> None:
        self.port, self.client, self.inside = port, client, inside
        self.forth = _Direction(client, inside)
        try:
            self.back = _Direction(inside, client)
        except OSError:
            self.forth.close()
            raise
        self.is_connected = False

    @property
    def is_over(self) -> bool:
        return self.forth.is_closed and self.back.is_closed

    def close(self) -> None:
        for each in (self.client, self.inside):
            each.close()
        self.forth.close()
        self.back.close()


class _Port:
    """A published port: the listening socket, and where it leads."""

    __slots__ = ("clients", "listener", "pairs", "target")

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.listener, self.target = listener, target
        self.pairs = 0
        """So many connections there are."""
        self.clients: OrderedDict[tuple[str, int], tuple[socket.socket, float]] = OrderedDict()
        """Of UDP: by the client's address, its socket to the container and when it was last used."""


class Forwarder:
    """Forwards for all containers of a store."""

    def __init__(self, poll: Poll) -> None:
        self._poll = poll
        self._ports: dict[str, _Port] = {}
        self._serves: dict[int, Callable[[int], None]] = {}
        self._pairs: dict[int, _Pair] = {}
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _PAIR_FDS
        """For so many connections there are descriptors."""

    # --- what the worker says ---

    def held(self) -> list[str]:
        return sorted(self._ports)

    def hold(self, key: str, told: Message, fds: list[int]) -> None:
        """`told` has the container's address and port; the socket is bound, and of TCP listens."""
        self.drop(key)
        (fd,) = fds
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        port = self._ports[key] = _Port(listener, (str(told["address"]), int(told["port"])))
        if listener.type == socket.SOCK_STREAM:
            self._watch(fd, select.EPOLLIN, lambda events: self._accept(port))
        else:
            self._watch(fd, select.EPOLLIN, lambda events: self._hear(port))

    def drop(self, key: str) -> None:
        port = self._ports.pop(key, None)
        if port is None:
            return
        # A container that is gone, and its link with it, says no more of its connections: who came would wait for long.
        for pair in {each for each in self._pairs.values() if each.port is port}:
            self._cut(pair)
        self._unwatch(port.listener)
        port.listener.close()
        for end, _ in port.clients.values():
            self._unwatch(end)
            end.close()

    def learn(self, told: Message) -> None:
        """Nothing."""

    # --- the loop ---

    def tick(self) -> float | None:
        now = time.monotonic()
        soonest: float | None = None
        for port in self._ports.values():
            while port.clients:
                client, (end, used) = next(iter(port.clients.items()))
                if now - used < _SILENT_S:
                    soonest = 5.0
                    break
                self._unwatch(end)
                end.close()
                del port.clients[client]
        return soonest

    def serve(self, fd: int, events: int) -> None:
        served = self._serves.get(fd)
        if served is not None:
            served(events)
        elif fd in self._pairs:
            self._attend(self._pairs[fd], fd, events)
        else:
            self._poll.forget(fd)

    def _watch(self, fd: int, events: int, served: Callable[[int], None]) -> None:
        self._serves[fd] = served
        self._poll.watch(fd, events)

    def _unwatch(self, end: socket.socket) -> None:
        self._serves.pop(end.fileno(), None)
        self._poll.forget(end.fileno())

    # --- TCP ---

    def _accept(self, port: _Port) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, _ = port.listener.accept()
            except OSError:
                return
            client.setblocking(False)
            if port.pairs > self._room - len(self._pairs) // 2:
                # As many as it has must be free for others, however many come to it.
                _reset(client)
                client.close()
                continue
            try:
                inside = _socket(port.target[0], socket.SOCK_STREAM)
            except OSError:
                # No descriptor is left: whoever came is hung up on, and the others go on.
                client.close()
                return
            inside.connect_ex(port.target)
            for each in (client, inside):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                pair = _Pair(port, client, inside)
            except OSError:
                client.close()
                inside.close()
                return
            self._pairs[client.fileno()] = self._pairs[inside.fileno()] = pair
            port.pairs += 1
            # Edges alone: a direction that is full must not wake anybody.
            edge = select.EPOLLET
            self._poll.watch(inside.fileno(), _READ | _WRITE | edge)
            self._poll.watch(client.fileno(), _READ | _WRITE | edge)

    def _attend(self, pair: _Pair, fd: int, events: int) -> None:
        if not pair.is_connected:
            if fd != pair.inside.fileno():
                if events & _GONE:
                    self._end(pair)
                return
            if pair.inside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                # Nobody listens inside: whoever came is told as the kernel would tell, by a reset.
                _reset(pair.client)
                self._end(pair)
                return
            if not events & _WRITE:
                return
            pair.is_connected = True
        try:
            has_more = [pair.forth.move(), pair.back.move()]
        except OSError:
            # A reset from one end is one for the other too.
            self._cut(pair)
            return
        if pair.is_over:
            self._end(pair)
        elif any(has_more):
            # No edge will tell of what is there already: once around, so that others have their turn.
            self._poll.watch(pair.client.fileno(), _READ | _WRITE | select.EPOLLET)

    def _cut(self, pair: _Pair) -> None:
        _reset(pair.client)
        _reset(pair.inside)
        self._end(pair)

    def _end(self, pair: _Pair) -> None:
        pair.port.pairs -= 1
        for end in (pair.client, pair.inside):
            self._pairs.pop(end.fileno(), None)
            self._poll.forget(end.fileno())
        pair.close()

    # --- UDP ---

    def _hear(self, port: _Port) -> None:
        for _ in range(_ACCEPTS):
            try:
                data, client = port.listener.recvfrom(_PACKET_BYTES)
            except OSError:
                return
            known = port.clients.pop(client, None)
            end = known[0] if known else self._begin(port, client)
            if end is None:
                continue
            port.clients[client] = end, time.monotonic()
            try:
                end.send(data)
            except OSError:
                # Nobody listens inside: UDP loses what it loses.
                pass

    def _begin(self, port: _Port, client: tuple[str, int]) -> socket.socket | None:
        while len(port.clients) >= _CLIENTS:
            _, (oldest, _) = port.clients.popitem(last=False)
            self._unwatch(oldest)
            oldest.close()
        try:
            end = _socket(port.target[0], socket.SOCK_DGRAM)
            end.connect(port.target)
        except OSError:
            return None
        self._watch(end.fileno(), select.EPOLLIN, lambda events: self._say(port, end, client))
        return end

    def _say(self, port: _Port, end: socket.socket, client: tuple[str, int]) -> None:
        for _ in range(_ACCEPTS):
            try:
                port.listener.sendto(end.recv(_PACKET_BYTES), client)
            except OSError:
                return


def _socket(address: str, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


def _reset(end: socket.socket) -> None:
    """Have its close be a reset (tcp(7), SO_LINGER)."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    except OSError:
        pass
