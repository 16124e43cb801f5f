"""The responder for names: asks nobody about containers, and the host's resolvers about the world. Its own process.

It listens where the worker has it listen: on the gateway of each network, in that network's namespace. What it passes
on goes out from where the process itself stands, which is the machine's network.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import Counter, OrderedDict
from ipaddress import ip_address

from nbcontain.channel import Message
from nbcontain.network import dns
from nbcontain.network.etc import RESOLV_CONF, of_machine
from nbcontain.network.helper import Poll
from nbcontain.network.model import network_from_json, sandbox_from_json

_PENDING = 512
"""Questions to the world at a time; more, and the oldest is given up of the network that has the most."""
_SECOND_TRY_S, _GIVE_UP_S = 1.5, 6.0
_CONNECTIONS = 128
_IDLE_S = 10.0
_PACKET_BYTES = 65535
_BATCH = 64
_BACKLOG_BYTES = 1 << 16
"""What may wait to be sent over TCP; who asks for more, and takes nothing, is hung up on."""
_PORT = 53


class _Question:
    """One that was passed on over UDP."""

    __slots__ = ("again_at", "client", "client_id", "data", "fd", "given_up_at", "id", "listener", "servers", "socket")

    def __init__(
        self, data: bytes, client: tuple[str, int], listener: socket.socket, servers: tuple[str, ...], now: float
    ) -> None:
        self.data, self.client, self.listener, self.servers = data, client, listener, servers
        self.id = os.urandom(2)
        self.client_id = data[:2]
        self.given_up_at = now + _GIVE_UP_S
        self.again_at = now
        self.socket: socket.socket | None = None
        self.fd = -1


class _Connection:
    """One client over TCP; and the server that its question was passed on to."""

    __slots__ = ("closes_at", "inbox", "network", "outbox", "peer", "server", "socket")

    def __init__(self, end: socket.socket, network: str, now: float, server: _Connection | None = None) -> None:
        self.socket, self.network = end, network
        self.inbox, self.outbox = b"", b""
        self.closes_at = now + _IDLE_S
        self.server = server
        self.peer: _Connection | None = None


class Responder:
    """Answers for all networks of a store."""

    def __init__(self, poll: Poll) -> None:
        self._poll = poll
        self._keys: dict[str, list[socket.socket]] = {}
        self._udp: dict[int, tuple[socket.socket, str]] = {}
        self._tcp: dict[int, tuple[socket.socket, str]] = {}
        self._names = dns.Names((), ())
        self._pending: OrderedDict[int, _Question] = OrderedDict()
        self._asking: Counter[socket.socket] = Counter()
        """How many of them are whose, by where they came to."""
        self._connections: OrderedDict[int, _Connection] = OrderedDict()
        self._turn = 0
        self._upstream: tuple[tuple[int, int], tuple[str, ...]] = ((0, 0), ())

    # --- what the worker says ---

    def held(self) -> list[str]:
        return sorted(self._keys)

    def hold(self, key: str, told: Message, fds: list[int]) -> None:
        """`told` has the network's id; the sockets are one of UDP and one that listens for TCP."""
        self.drop(key)
        network = str(told["network"])
        self._keys[key] = []
        for fd in fds:
            end = socket.socket(fileno=fd)
            end.setblocking(False)
            self._keys[key].append(end)
            place = self._udp if end.type == socket.SOCK_DGRAM else self._tcp
            place[fd] = end, network
            self._poll.watch(fd, select.EPOLLIN)

    def drop(self, key: str) -> None:
        for end in self._keys.pop(key, ()):
            self._poll.forget(end.fileno())
            self._udp.pop(end.fileno(), None)
            self._tcp.pop(end.fileno(), None)
            end.close()

    def learn(self, told: Message) -> None:
        self._names = dns.Names(
            [network_from_json(each) for each in told["networks"]],
            [sandbox_from_json(each) for each in told["sandboxes"]],
            told["servers"],
        )

    # --- the loop ---

    def tick(self) -> float | None:
        now = time.monotonic()
        for fd, question in list(self._pending.items()):
            if now >= question.given_up_at:
                self._send(question.listener, self._failed(question.data), question.client)
                self._forget(fd)
            elif question.servers and now >= question.again_at + _SECOND_TRY_S:
                self._forget(fd)
                self._pass_on(question, now)
        for connection in list(self._connections.values()):
            if now < connection.closes_at:
                break
            self._hang_up(connection)
        return 0.5 if self._pending or self._connections else None

    def serve(self, fd: int, events: int) -> None:
        if fd in self._udp:
            self._hear(*self._udp[fd])
        elif fd in self._pending:
            self._hear_world(fd)
        elif fd in self._tcp:
            self._accept(*self._tcp[fd])
        elif fd in self._connections:
            self._attend(self._connections[fd], events)
        else:
            self._poll.forget(fd)

    # --- UDP ---

    def _hear(self, listener: socket.socket, network: str) -> None:
        for _ in range(_BATCH):
            try:
                data, client = listener.recvfrom(_PACKET_BYTES)
            except OSError:
                return
            said = self._answer(data, network, client[0], over_tcp=False)
            if isinstance(said, bytes):
                self._send(listener, said, client)
            else:
                now = time.monotonic()
                self._pass_on(_Question(data, client, listener, said, now), now)

    def _answer(self, data: bytes, network: str, source: str, *, over_tcp: bool) -> bytes | tuple[str, ...]:
        """What to say; or whom to ask."""
        try:
            query = dns.parse(data)
        except dns.BadQuery:
            return dns.refusal(data, dns.FORMAT_ERROR)
        self._turn += 1
        view = self._names.view(network, source)
        found = self._names.ask(query, view, self._turn)
        if found is not None:
            return dns.answer(query, *found, over_tcp=over_tcp)
        servers = view.servers or self._servers()
        return servers or dns.answer(query, (), dns.SERVER_FAILURE)

    def _servers(self) -> tuple[str, ...]:
        """The host's resolvers, as its file says now."""
        try:
            status = os.stat(RESOLV_CONF)
            seen = status.st_mtime_ns, status.st_ino
            if seen != self._upstream[0]:
                self._upstream = seen, of_machine().servers[:3]
        except OSError:
            return ()
        return self._upstream[1]

    def _pass_on(self, question: _Question, now: float) -> None:
        """Ask the next server, from a port and under a number that nobody can guess."""
        while question.servers:
            server, *rest = question.servers
            question.servers = tuple(rest)
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            try:
                end = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            except OSError:
                break
            try:
                end.connect((server, _PORT))
                end.send(question.id + question.data[2:])
            except OSError:
                end.close()
                continue
            if len(self._pending) >= _PENDING:
                self._forget(self._oldest_of_most())
            question.socket, question.fd, question.again_at = end, end.fileno(), now
            self._pending[question.fd] = question
            self._asking[question.listener] += 1
            self._poll.watch(question.fd, select.EPOLLIN)
            return
        self._send(question.listener, self._failed(question.data), question.client)

    def _oldest_of_most(self) -> int:
        """A question of the network that has the most, so that none ends those of another."""
        most = max(self._asking, key=self._asking.__getitem__)
        return next(fd for fd, each in self._pending.items() if each.listener is most)

    def _hear_world(self, fd: int) -> None:
        question = self._pending[fd]
        assert question.socket is not None
        try:
            data = question.socket.recv(_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # Nobody listens there.
            self._forget(fd)
            self._pass_on(question, time.monotonic())
            return
        if len(data) < 12 or data[:2] != question.id or not data[2] & 0x80:
            return
        self._send(question.listener, question.client_id + data[2:], question.client)
        self._forget(fd)

    def _forget(self, fd: int) -> None:
        question = self._pending.pop(fd)
        self._asking[question.listener] -= 1
        if not self._asking[question.listener]:
            del self._asking[question.listener]
        self._poll.forget(fd)
        if question.socket is not None:
            question.socket.close()

    def _failed(self, data: bytes) -> bytes:
        try:
            return dns.answer(dns.parse(data), (), dns.SERVER_FAILURE)
        except dns.BadQuery:
            return dns.refusal(data, dns.SERVER_FAILURE)

    def _send(self, listener: socket.socket, data: bytes, client: tuple[str, int]) -> None:
        if data and client[1]:
            try:
                listener.sendto(data, client)
            except OSError:
                # Gone, or its network is; who does not hear asks again.
                pass

    # --- TCP ---

    def _accept(self, listener: socket.socket, network: str) -> None:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        end.setblocking(False)
        while len(self._connections) >= _CONNECTIONS:
            self._hang_up(next(iter(self._connections.values())))
        self._join(_Connection(end, network, time.monotonic()), select.EPOLLIN)

    def _join(self, connection: _Connection, events: int) -> None:
        self._connections[connection.socket.fileno()] = connection
        self._poll.watch(connection.socket.fileno(), events)

    def _hang_up(self, connection: _Connection) -> None:
        for each in (connection, connection.server, connection.peer):
            if each is not None and self._connections.pop(each.socket.fileno(), None) is not None:
                self._poll.forget(each.socket.fileno())
                each.socket.close()

    def _attend(self, connection: _Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._write(connection)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                # No more than one message, so that the others have their turn however many there are.
                data = connection.socket.recv(_missing(connection.inbox))
                if not data:
                    self._hang_up(connection)
                    return
                connection.inbox += data
                self._read(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(connection)

    def _read(self, connection: _Connection) -> None:
        """The message that came, if it is whole: two bytes of length, and so many more (RFC 1035 4.2.2)."""
        if _missing(connection.inbox):
            return
        data, connection.inbox = connection.inbox[2:], b""
        if connection.peer is not None:
            # A server's answer: its client's.
            self._add(connection.peer, data)
            return
        source = connection.socket.getpeername()[0]
        said = self._answer(data, connection.network, source, over_tcp=True)
        if isinstance(said, bytes):
            self._add(connection, said)
        elif connection.server is None:
            self._ask_over_tcp(connection, data, said[0])
        else:
            self._add(connection.server, data)

    def _add(self, connection: _Connection, data: bytes) -> None:
        """Send it this message, behind those that wait. Raises OSError where too much waits."""
        if len(connection.outbox) > _BACKLOG_BYTES:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        connection.outbox += struct.pack("!H", len(data)) + data
        self._write(connection)

    def _ask_over_tcp(self, connection: _Connection, data: bytes, server: str) -> None:
        family = socket.AF_INET6 if ip_address(server.partition("%")[0]).version == 6 else socket.AF_INET
        end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        end.connect_ex((server, _PORT))
        other = _Connection(end, connection.network, time.monotonic())
        other.peer, connection.server = connection, other
        other.outbox = struct.pack("!H", len(data)) + data
        self._join(other, select.EPOLLIN | select.EPOLLOUT)

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.outbox) if connection.outbox else 0
            connection.outbox = connection.outbox[sent:]
        except BlockingIOError:
            pass
        wanted = select.EPOLLIN | (select.EPOLLOUT if connection.outbox else 0)
        self._poll.watch(connection.socket.fileno(), wanted)


def _missing(inbox: bytes) -> int:
    """How many bytes the message that has begun to come, or its length, still lacks."""
    return (2 if len(inbox) < 2 else 2 + int.from_bytes(inbox[:2], "big")) - len(inbox)
