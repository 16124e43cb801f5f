"""Where a network namespace's routes lead (rtnetlink(7)), and whose namespace a socket is of. Run by the answerer.

Asked of the kernel, over a socket that was made in there: what it says is what it would do itself.
"""

from __future__ import annotations

import _socket as socket
import errno
import fcntl
import os
import struct
import sys
import time

from nbcontain.values import dataclass

NETLINK_ROUTE = 0
_GET_ROUTE, _NEW_ROUTE, _ERROR = 26, 24, 2
_REQUEST, _FIB_MATCH = 1, 0x2000
_UNICAST, _LOCAL = 1, 2
_DESTINATION, _INTERFACE, _GATEWAY = 1, 4, 5
LOOPBACK = 1
"""The index of every namespace's loopback interface."""
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NAMESPACE_OF_SOCKET = 0x894C
"""SIOCGSKNS."""
_BYTES = 8192
_KNOWN, _TRUE_S = 256, 0.5


def asking() -> socket.socket:
    """A socket to ask over, in the namespace that this process stands in."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)


def namespace_of(fd: int) -> int:
    """The number of the network namespace that a socket is of; 0 for one that is not ours to ask about."""
    try:
        namespace = fcntl.ioctl(fd, _NAMESPACE_OF_SOCKET)
    except PermissionError:
        return 0
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)


@dataclass(frozen=True, slots=True)
class Route:
    """One of them."""

    kind: int
    """RTN_UNICAST, or RTN_LOCAL."""
    bits: int
    """How much of an address it says; 0 for a default route."""
    gateway: bytes
    interface: int


class Routes:
    """The routes of one namespace."""

    def __init__(self, end: socket.socket) -> None:
        """`end` is what `asking` gave."""
        end.setblocking(False)
        self._end = end
        self._number = 0
        self._known: dict[tuple[bytes, int], tuple[float, Route]] = {}
        self.namespace = namespace_of(end.fileno())

    def to(self, family: int, address: bytes) -> Route:
        """The route that leads to an address, as it is written. Raises OSError, as connect(2) does, if none does."""
        return self._asked(family, address, _FIB_MATCH)

    def interface(self, family: int, address: bytes) -> int:
        """The interface by which this address is reached; one of this machine's, the one that it belongs to."""
        found = self._asked(family, address, 0)
        # What is this machine's own is reached by loopback.
        return (self.to(family, address) if found.kind == _LOCAL else found).interface

    def _asked(self, family: int, address: bytes, flags: int) -> Route:
        """The kernel has one lock for all such questions: what was asked a moment ago is not asked again."""
        until, found = self._known.get((address, flags), (0.0, None))
        now = time.monotonic()
        if found is None or now > until:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._told(family, address, flags)
            self._known[address, flags] = now + _TRUE_S, found
        return found

    def _told(self, family: int, address: bytes, flags: int) -> Route:
        self._number += 1
        told = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, flags)
        told += _ATTRIBUTE.pack(4 + len(address), _DESTINATION) + address
        self._end.send(_HEADER.pack(_HEADER.size + len(told), _GET_ROUTE, _REQUEST, self._number, 0) + told)
        while True:
            # The kernel has answered when it was asked; what is left there is of somebody who gave up.
            data = self._end.recv(_BYTES)
            _, kind, _, number, _ = _HEADER.unpack_from(data)
            if number == self._number:
                return read(data)


def read(data: bytes) -> Route:
    """What the kernel answers. Raises OSError, as it says. Pure."""
    length, message, *_ = _HEADER.unpack_from(data)
    if message != _NEW_ROUTE:
        (code,) = struct.unpack_from("=i", data, _HEADER.size) if message == _ERROR else (-errno.EPROTO,)
        raise OSError(-code, os.strerror(-code))
    _, bits, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(data, _HEADER.size)
    if kind not in (_UNICAST, _LOCAL):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    said: dict[int, bytes] = {}
    place = _HEADER.size + _ROUTE.size
    while place + _ATTRIBUTE.size <= length:
        size, name = _ATTRIBUTE.unpack_from(data, place)
        said[name] = data[place + _ATTRIBUTE.size : place + size]
        place += max(size + 3 & ~3, _ATTRIBUTE.size)
    return Route(kind, bits, said.get(_GATEWAY, b""), int.from_bytes(said.get(_INTERFACE, b""), sys.byteorder))
