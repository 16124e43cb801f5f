"""Netlink as bytes: attributes, messages, and asking for several things at once (netlink(7)).

pyroute2 does what is asked for now and then. What every start waits for is written out here and goes to the kernel in
one piece: a link and its addresses in well under a millisecond.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

ROUTE, NETFILTER = 0, 12
REQUEST, ACK, EXCLUSIVE, REPLACE, CREATE, APPEND = 0x1, 0x4, 0x200, 0x100, 0x400, 0x800
_ERROR = 2
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ANSWER_BYTES = 1 << 18
_SEND_BYTES = 1 << 20
_TIMEOUT_S = 5

Attribute = tuple[int, "bytes | int | str | Sequence[Attribute]"]
"""A number, and bytes, a 32-bit number in network order, a text, or further attributes."""


def encoded(attributes: Sequence[Attribute]) -> bytes:
    """Attributes as the kernel reads them: length, type, value, and zeros up to the next multiple of four."""
    parts = []
    for kind, value in attributes:
        match value:
            case bytes():
                data = value
            case int():
                data = struct.pack("!I", value & 0xFFFF_FFFF)
            case str():
                data = value.encode() + b"\0"
            case _:
                data, kind = encoded(value), kind | _NESTED
        parts.append(struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4))
    return b"".join(parts)


def packet(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    """One message."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST, sequence, 0) + body


def answers(data: bytes) -> Iterator[tuple[int, int]]:
    """(sequence number, errno or 0) of each acknowledgement in what was received."""
    place = 0
    while place + _HEADER.size + 4 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size:
            return
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", data, place + _HEADER.size)
            yield sequence, -code
        place += (length + 3) & ~3


class Netlink:
    """A socket in the network namespace that this process was in when it made one of these."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.sequence = 0

    def close(self) -> None:
        self._socket.close()

    def number(self) -> int:
        self.sequence += 1
        return self.sequence

    def ask(self, orders: Iterable[tuple[int, int, bytes]], tolerated: Sequence[int] = ()) -> None:
        """Have the kernel do each of these, and hear of all. Raises OSError for the first that it refuses.

        An order is a message's type, its flags, and its body. What is refused for a `tolerated` reason counts as done.
        """
        packets = [packet(kind, flags | ACK, body, self.number()) for kind, flags, body in orders]
        if packets:
            first = self.sequence - len(packets) + 1
            self.send(b"".join(packets))
            self.hear(set(range(first, self.sequence + 1)), tolerated)

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def hear(self, awaited: set[int], tolerated: Sequence[int] = (), *, stops: bool = False) -> None:
        """Until all of these were answered; or one was refused, if nothing else comes after that."""
        refused: OSError | None = None
        while awaited:
            try:
                data = self._socket.recv(_ANSWER_BYTES)
            except TimeoutError:
                raise refused or TimeoutError(errno.ETIMEDOUT, "the kernel does not answer") from None
            for number, code in answers(data):
                awaited.discard(number)
                if code and code not in tolerated and refused is None:
                    refused = OSError(code, os.strerror(code), "netlink")
            if refused is not None and stops:
                self._drain()
                break
        if refused is not None:
            raise refused

    def _drain(self) -> None:
        self._socket.setblocking(False)
        try:
            while self._socket.recv(_ANSWER_BYTES):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(_TIMEOUT_S)
