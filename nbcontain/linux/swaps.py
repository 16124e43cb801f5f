"""A socket that stands for another one of another network namespace: made like it, and locked to one interface.

Locked: what is sent goes by this interface, and an ordinary user cannot change that any more (socket(7),
SO_BINDTODEVICE). With one exception: bind(2) of a link-local address takes the interface from there, also where it then
fails. Who has a port that was asked for cannot bind again, so those of IPv6 have one. So nothing of the machine's
loopback is reached by it, whoever has it and wherever they connect it: that is the kernel's to see to, and no question
of what was asked when.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import struct
import sys
from contextlib import suppress
from functools import cache

from nbcontain.values import dataclass

_SO_BINDTOIFINDEX, _SO_BUF_LOCK = 62, 72
_TCP_INFO, _TCP_CLOSE = 11, 7
_MPTCP = 262
_MAPPED = b"\0" * 10 + b"\xff\xff"
_BYTES = 256
_USUAL_PORTS = 32768, 60999
_TRIES = 64
_OPTIONS = {
    # SO_KEEPALIVE, OOBINLINE, PRIORITY, LINGER, RCVLOWAT, RCVTIMEO, SNDTIMEO, TIMESTAMP, BUSY_POLL, ZEROCOPY.
    socket.SOL_SOCKET: (9, 10, 12, 13, 18, 20, 21, 29, 46, 60),
    # TCP_NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, WINDOW_CLAMP, CONGESTION, USER_TIMEOUT,
    # NOTSENT_LOWAT.
    socket.IPPROTO_TCP: (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 18, 25),
    # IP_TOS, TTL, MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS.
    socket.IPPROTO_IP: (1, 2, 10, 11, 12, 13),
    # IPV6_UNICAST_HOPS, MTU_DISCOVER, RECVERR, V6ONLY, RECVTCLASS, TCLASS.
    socket.IPPROTO_IPV6: (16, 23, 25, 26, 66, 67),
}
"""What programs set before they connect."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a program wants to connect to, as it said."""

    family: int
    """Of what it said, which is that of the socket."""
    packed: bytes
    """The address proper: four bytes also where IPv4's was said in IPv6's form."""
    port: int
    name: tuple[object, ...]
    """As a socket takes it."""

    @property
    def route_family(self) -> int:
        """Of the routes that lead there."""
        return socket.AF_INET if len(self.packed) == 4 else socket.AF_INET6


def is_of_internet(said: bytes) -> bool:
    """Whether a struct sockaddr is one of IPv4 or IPv6: AF_UNSPEC is how one disconnects."""
    return int.from_bytes(said[:2], sys.byteorder) in (socket.AF_INET, socket.AF_INET6)


def peer(said: bytes) -> Peer | None:
    """What is in a struct sockaddr, if it can be far away: neither this machine nor this wire, nor many at once."""
    family = int.from_bytes(said[:2], sys.byteorder)
    if family == socket.AF_INET and len(said) >= 16:
        port, packed = int.from_bytes(said[2:4], "big"), said[4:8]
        name: tuple[object, ...] = (socket.inet_ntop(socket.AF_INET, packed), port)
    elif family == socket.AF_INET6 and len(said) >= 24:
        port, packed = int.from_bytes(said[2:4], "big"), said[8:24]
        name = (socket.inet_ntop(socket.AF_INET6, packed), port, 0, 0)
        if packed.startswith(_MAPPED):
            packed = packed[12:]
    else:
        return None
    return Peer(family, packed, port, name) if is_far(packed) else None


_IS_LITTLE = struct.pack("=H", 1) == b"\1\0"


def is_far(packed: bytes) -> bool:
    """Whether an address can be another machine's, to which a way leads by a gateway."""
    if len(packed) == 4:
        # 0/8 and 127/8 are this machine's; from 224 on they are many.
        return packed[0] not in (0, 127) and packed[0] < 224
    # ::/16 has this machine's, fe80::/10 are on this wire, ff00::/8 are many.
    return packed[:2] != b"\0\0" and packed[0] != 0xFF and not (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80)


def can_be_swapped(end: socket.socket) -> bool:
    """Whether it is of TCP, and nobody has connected it yet or listens."""
    if end.type != socket.SOCK_STREAM or end.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if end.proto not in (socket.IPPROTO_TCP, _MPTCP):
        return False
    try:
        return end.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError:
        # Of MPTCP Linux < 5.16 does not tell it.
        if end.proto != _MPTCP:
            raise
    return not end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and not _has_peer(end)


def _has_peer(end: socket.socket) -> bool:
    try:
        end.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True


def connected_like(
    end: socket.socket, interface: int, to: Peer, ports: tuple[int, int]
) -> tuple[socket.socket, int]:  # fmt: skip
    """A socket in this process's network namespace, with what was set for `end`, locked to an interface, and what came
    of connecting it (errno). `ports` are the first and the last that it may have. Never waits. Raises OSError.
    """
    for left in reversed(range(_TRIES)):
        made = _new(end.family)
        try:
            _carry(end, made)
            made.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface)
            if end.family == socket.AF_INET6:
                _take_port(made, *ports)
            error = made.connect_ex(to.name)
        except BaseException:
            made.close()
            raise
        # Another one with this port leads there already.
        if error not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE) or end.family != socket.AF_INET6 or not left:
            break
        made.close()
    return made, error


def _take_port(made: socket.socket, first: int, last: int) -> None:
    """Give it a port as the kernel does in connect(2), but one that stays (SOCK_BINDPORT_LOCK). Raises OSError."""
    # Shared with others that lead elsewhere, or there would be no more of them than ports.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for left in reversed(range(_TRIES)):
        try:
            made.bind(("::", first + int.from_bytes(os.urandom(4), "big") % (last - first + 1)))
        except OSError as error:
            # Somebody listens there, or has it alone.
            if error.errno != errno.EADDRINUSE or not left:
                raise
        else:
            return


def ports_of_connections(proc: int) -> tuple[int, int]:
    """From which to which the kernel takes them (ip(7)), by the directory /proc; none that takes power."""
    try:
        fd = os.open("sys/net/ipv4/ip_local_port_range", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            first, last = map(int, os.read(fd, 64).split())
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return _USUAL_PORTS
    return (first, last) if 1024 <= first <= last < 1 << 16 else _USUAL_PORTS


def _new(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)


@cache
def _usual(family: int) -> dict[tuple[int, int], bytes]:
    """What a new socket has, of all that is carried over."""
    found = {}
    new = _new(family)
    for level, names in _OPTIONS.items():
        for name in names:
            with suppress(OSError):
                found[level, name] = new.getsockopt(level, name, _BYTES)
    new.close()
    return found


def _carry(end: socket.socket, made: socket.socket) -> None:
    for (level, name), usual in _usual(end.family).items():
        # What takes more power than we have is a wish.
        with suppress(OSError):
            if (wanted := end.getsockopt(level, name, _BYTES)) != usual:
                made.setsockopt(level, name, wanted)
    # Linux < 5.15 does not tell whether somebody chose the size of a buffer.
    with suppress(OSError):
        chosen = end.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
        for bit, name in ((1, socket.SO_SNDBUF), (2, socket.SO_RCVBUF)):
            if chosen & bit:
                # The kernel says twice what it was told.
                made.setsockopt(socket.SOL_SOCKET, name, end.getsockopt(socket.SOL_SOCKET, name) // 2)


def socket_of(fd: int) -> socket.socket:
    """The socket that this descriptor is, which is its own from here on. Raises OSError (ENOTSOCK) for what is none."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
