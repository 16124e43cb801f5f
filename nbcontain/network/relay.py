"""What passes datagrams on where no tunnel can be had: UDP, and ping, as this user's own. Its own process.

It stands in this machine's network and holds the far end of a link of the user's networks, as a packet socket. What
comes there, whole or in parts, is sent on from a socket for each pair of ends; what these hear goes back. Connections
of TCP go another way (`runtime.connect_answers`): here they are told that there is none.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Collection
from contextlib import suppress

from nbcontain.channel import Message
from nbcontain.linux import routes
from nbcontain.linux.routes import Routes
from nbcontain.linux.swaps import is_far
from nbcontain.network import frames
from nbcontain.network.fragments import Assembly, Key, cut
from nbcontain.network.frames import Packet
from nbcontain.network.helper import Poll

_FLOWS = 512
"""At a time; more, and the one of whoever has the most goes that was quiet for longest."""
_QUIET_S = 120.0
_BATCH = 64
_FRAME_BYTES = 1 << 16
_WIDEST = {4: 65520, 6: 1280}
"""Of what goes back. The link takes as much; who passes it on cuts what is of IPv4, and of IPv6 nothing (RFC 8200)."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOLS = {frames.UDP: 0, frames.ICMP: socket.IPPROTO_ICMP, frames.ICMP6: socket.IPPROTO_ICMPV6}


class _Flow:
    """Between one end inside and one outside."""

    __slots__ = ("end", "key", "packet", "used_at")

    def __init__(self, end: socket.socket, key: Key, packet: Packet) -> None:
        self.end, self.key = end, key
        self.packet = packet
        """The last one that was sent on."""
        self.used_at = time.monotonic()


class Relay:
    """Passes on for all networks of a store."""

    def __init__(self, poll: Poll) -> None:
        self._poll = poll
        self._key = ""
        self._link: socket.socket | None = None
        self._macs = (b"", b"")
        self._flows: OrderedDict[Key, _Flow] = OrderedDict()
        self._routes = Routes(routes.asking())
        self._by_fd: dict[int, _Flow] = {}
        self._assembly = Assembly(one_too_many)
        self._number = 0

    # --- what the worker says ---

    def held(self) -> list[str]:
        return [self._key] if self._link is not None else []

    def hold(self, key: str, told: Message, fds: list[int]) -> None:
        """`told` has the MACs of the networks' end of the link and of ours; the socket is of ours."""
        self.drop(self._key)
        self._key, (fd,) = key, fds
        self._macs = bytes.fromhex(str(told["mac"])), bytes.fromhex(str(told["own_mac"]))
        self._link = socket.socket(fileno=fd)
        self._link.setblocking(False)
        self._poll.watch(fd, select.EPOLLIN)

    def drop(self, key: str) -> None:
        if self._link is not None and key == self._key:
            self._poll.forget(self._link.fileno())
            self._link.close()
            self._link = None
            self._assembly.forget()
            for flow in list(self._flows.values()):
                self._forget(flow)

    def learn(self, told: Message) -> None:
        """Nothing."""

    # --- the loop ---

    def tick(self) -> float | None:
        now = time.monotonic()
        while self._flows:
            first = next(iter(self._flows.values()))
            if now - first.used_at < _QUIET_S:
                return _QUIET_S
            self._forget(first)
        return None

    def serve(self, fd: int, events: int) -> None:
        if self._link is not None and fd == self._link.fileno():
            for _ in range(_BATCH):
                try:
                    frame = self._link.recv(_FRAME_BYTES)
                except OSError:
                    return
                whole = self._assembly.whole(frame, time.monotonic())
                packet = frames.read(whole) if whole is not None else None
                if packet is not None:
                    self._send_on(packet)
        elif fd in self._by_fd:
            self._bring_back(self._by_fd[fd])
        else:
            self._poll.forget(fd)

    def _send_on(self, packet: Packet) -> None:
        if not packet.passes or not is_far(packet.destination):
            self._refuse(packet, frames.FORBIDDEN)
            return
        key = (packet.protocol, packet.source, packet.source_port, packet.destination, packet.port)
        flow = self._flows.get(key)
        try:
            if flow is None:
                flow = self._begun(key, packet)
            flow.packet, flow.used_at = packet, time.monotonic()
            self._flows.move_to_end(key)
            flow.end.send(packet.payload)
        except BlockingIOError:
            return
        except OSError as error:
            # What the last one was answered with is told at the next one (udp(7)).
            self._refuse(packet, frames.PORT if error.errno == errno.ECONNREFUSED else frames.FORBIDDEN)

    def _begun(self, key: Key, packet: Packet) -> _Flow:
        """Raises OSError: there is no way, or users may not ping (ping_group_range)."""
        family = _FAMILIES[packet.version]
        if self._routes.interface(family, packet.destination) <= routes.LOOPBACK:
            # An address of this machine's that is for itself, as 127.0.0.1 is.
            raise OSError(errno.EHOSTUNREACH, "")
        if len(self._flows) >= _FLOWS:
            self._forget(self._flows[one_too_many(self._flows)])
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        end = socket.socket(family, kind, _PROTOCOLS[packet.protocol])
        try:
            end.connect((socket.inet_ntop(end.family, packet.destination), packet.port))
        except OSError:
            end.close()
            raise
        flow = self._flows[key] = self._by_fd[end.fileno()] = _Flow(end, key, packet)
        self._poll.watch(end.fileno(), select.EPOLLIN)
        return flow

    def _bring_back(self, flow: _Flow) -> None:
        for _ in range(_BATCH):
            try:
                payload = flow.end.recv(_FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    self._refuse(flow.packet, frames.PORT)
                return
            flow.used_at = time.monotonic()
            self._flows.move_to_end(flow.key)
            self._number += 1
            self._put(frames.reply(flow.packet, payload, self._number))

    def _refuse(self, packet: Packet, why: str) -> None:
        self._number += 1
        self._put(frames.unreachable(packet, why, self._number))

    def _put(self, packet: bytes) -> None:
        if self._link is not None:
            # A full queue is a full wire.
            with suppress(OSError):
                for part in cut(packet, _WIDEST[packet[0] >> 4], self._number):
                    self._link.send(frames.framed(part, *self._macs))

    def _forget(self, flow: _Flow) -> None:
        self._flows.pop(flow.key, None)
        self._by_fd.pop(flow.end.fileno(), None)
        self._poll.forget(flow.end.fileno())
        flow.end.close()


def one_too_many(keys: Collection[Key]) -> Key:
    """Which makes room, of these from the quietest on: the first of the source that has the most. Pure.

    Sources are counted within their network, as a container can take all addresses of its own: it is at the expense
    of its neighbours at most.
    """
    sources = Counter(key[1] for key in keys)
    wires: Counter[bytes] = Counter()
    for source, count in sources.items():
        wires[_wire(source)] += count
    return max(keys, key=lambda key: (wires[_wire(key[1])], sources[key[1]]))


def _wire(source: bytes) -> bytes:
    """What addresses of a network have in common, where it is as large as we make them: /24, /64."""
    return source[: 3 if len(source) == 4 else 8]


def far_end(interface: str) -> socket.socket:
    """Worker: the packet socket of the far end of the link."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        end.bind((interface, 0x0003))
    except OSError:
        end.close()
        raise
    return end
