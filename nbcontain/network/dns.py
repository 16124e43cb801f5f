"""Names of containers as the domain name system answers them (RFC 1035): packets and what is in them. Pure.

What comes in is foreign bytes: it is read to be answered, passed on as it is, or dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from nbcontain.network.model import Network, Sandbox
from nbcontain.values import dataclass

A, PTR, AAAA, ANY = 1, 12, 28, 255
_INTERNET = 1
_HEADER = struct.Struct("!HHHHHH")
_ANSWER, _AUTHORITATIVE, _TRUNCATED, _DESIRED, _AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 1, 2, 3
_NAME_BYTES, _LABEL_BYTES = 255, 63
UDP_BYTES = 512
"""What an answer over UDP may have unless who asks says otherwise (RFC 1035 4.2.1)."""
_TTL_S = 0
"""A container that was started again may have another address at once."""
_QUERY_LIMIT = 4096


class BadQuery(ValueError):
    """Bytes that are no query."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    id: int
    flags: int
    name: tuple[bytes, ...]
    """Its labels, in lower case."""
    kind: int
    question: bytes
    """As it came, to be sent back."""
    room_bytes: int = UDP_BYTES
    """How long an answer over UDP may be."""

    @property
    def text(self) -> str:
        return ".".join(label.decode("ascii", "replace") for label in self.name)


def parse(data: bytes) -> Query:
    """A query with one question. Raises BadQuery."""
    if not _HEADER.size < len(data) <= _QUERY_LIMIT:
        raise BadQuery("too short or too long")
    number, flags, questions, answers, authorities, others = _HEADER.unpack_from(data)
    if flags & _ANSWER or flags & _OPCODE or questions != 1 or answers or authorities:
        raise BadQuery("no query")
    labels, place = _labels(data, _HEADER.size)
    if place + 4 > len(data):
        raise BadQuery("the question ends early")
    kind, group = struct.unpack_from("!HH", data, place)
    if group not in (_INTERNET, ANY):
        raise BadQuery("not of the internet")
    question = data[_HEADER.size : place + 4]
    # EDNS (RFC 6891): the root's name, 41, and in place of a class how long an answer may be.
    room = UDP_BYTES
    rest = data[place + 4 :]
    if others and rest[:3] == b"\0\0\x29" and len(rest) >= 11:
        room = max(UDP_BYTES, min(int.from_bytes(rest[3:5], "big"), _QUERY_LIMIT))
    return Query(number, flags, labels, kind, question, room)


def _labels(data: bytes, place: int) -> tuple[tuple[bytes, ...], int]:
    found: list[bytes] = []
    total = 0
    while True:
        if place >= len(data):
            raise BadQuery("a name ends early")
        length = data[place]
        place += 1
        if length == 0:
            return tuple(found), place
        if length > _LABEL_BYTES:
            # Pointers too: in a question there is nothing before it to point to.
            raise BadQuery("a label is too long")
        label = data[place : place + length]
        total += length + 1
        if len(label) < length or total >= _NAME_BYTES:
            raise BadQuery("a name ends early, or is too long")
        found.append(label.lower())
        place += length


def answer(query: Query, records: Sequence[tuple[int, bytes]], code: int = 0, *, over_tcp: bool = False) -> bytes:
    """Records of (type, data) to a question; cut, and marked so, where there is no room for all of them."""
    flags = _ANSWER | _AVAILABLE | (query.flags & _DESIRED) | code
    flags |= _AUTHORITATIVE if code in (0, NO_SUCH_NAME) else 0
    body = b""
    count = 0
    room = 0xFFFF if over_tcp else query.room_bytes
    for kind, data in records:
        # 0xc00c is the question's name, which begins behind the header.
        record = struct.pack("!HHHIH", 0xC00C, kind, _INTERNET, _TTL_S, len(data)) + data
        if _HEADER.size + len(query.question) + len(body) + len(record) > room:
            flags |= _TRUNCATED
            break
        body += record
        count += 1
    return _HEADER.pack(query.id, flags, 1, count, 0, 0) + query.question + body


def refusal(data: bytes, code: int) -> bytes:
    """To what cannot be read: its number, and why. b"" where there is not even a number, or it is an answer itself."""
    if len(data) < _HEADER.size or data[2] & 0x80:
        return b""
    (number,) = struct.unpack_from("!H", data)
    return _HEADER.pack(number, _ANSWER | _AVAILABLE | code, 0, 0, 0, 0)


def encoded_name(text: str) -> bytes:
    """A name as it stands in a packet."""
    labels = [label.encode("ascii", "replace")[:_LABEL_BYTES] for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


# --- what is known --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """What one container may know: the networks that it is on, and whether it may ask the world."""

    networks: tuple[str, ...]
    """Ids."""
    asks_world: bool
    servers: tuple[str, ...] = ()
    """Whom to ask of the world, where it was told with --dns."""


class Names:
    """Who is called what on which network. Made anew whenever that changes."""

    def __init__(
        self,
        networks: Sequence[Network],
        sandboxes: Sequence[Sandbox],
        servers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`servers` are those of --dns, by container."""
        self._networks = {each.id: each for each in networks}
        self._addresses: dict[tuple[str, str], list[str]] = {}
        """By network and name in lower case."""
        self._pointers: dict[tuple[str, str], str] = {}
        """By network and address."""
        self._views: dict[tuple[str, str], View] = {}
        for sandbox in sandboxes:
            on = [each for each in sandbox.endpoints if each.network in self._networks]
            view = View(
                tuple(each.network for each in on if self._networks[each.network].has_names),
                any(not self._networks[each.network].internal for each in on),
                tuple((servers or {}).get(sandbox.container, ())),
            )  # fmt: skip
            for each in on:
                named = self._networks[each.network].has_names
                for address in filter(None, (each.address, each.address6)):
                    self._views[each.network, address] = view
                    self._pointers[each.network, address] = f"{sandbox.name}.{each.network_name}"
                    for name in each.names(sandbox) if named else ():
                        for shown in (name, f"{name}.{each.network_name}"):
                            self._addresses.setdefault((each.network, shown.lower()), []).append(address)

    def view(self, network: str, source: str) -> View:
        """Of whoever asks from this address on this network; of a stranger, what everybody on it may know."""
        known = self._views.get((network, source))
        if known is not None:
            return known
        there = self._networks.get(network)
        return View((network,), there is not None and not there.internal)

    def ask(self, query: Query, view: View, turn: int = 0) -> tuple[Sequence[tuple[int, bytes]], int] | None:
        """Records and a response code; None for what is the world's. `turn` rotates the addresses of a shared name."""
        text = query.text
        if (address := pointed(query.name)) is not None:
            return self._pointer(query, view, address)
        found = list(dict.fromkeys(a for network in view.networks for a in self._addresses.get((network, text), ())))
        if found:
            found = found[turn % len(found) :] + found[: turn % len(found)]
            records = [(A if "." in each else AAAA, ip_address(each).packed) for each in found]
            return [each for each in records if query.kind in (each[0], ANY)], 0
        if any(
            text.endswith(f".{self._networks[each].name.lower()}") and text.count(".") == 1 for each in view.networks
        ):
            # NAME.NETWORK, and there is no such container.
            return [], NO_SUCH_NAME
        return None if view.asks_world else ([], NO_SUCH_NAME)

    def _pointer(self, query: Query, view: View, address: str) -> tuple[Sequence[tuple[int, bytes]], int] | None:
        for network in view.networks:
            name = self._pointers.get((network, address))
            if name is not None:
                return ([(PTR, encoded_name(name))] if query.kind in (PTR, ANY) else []), 0
            if any(ip_address(address) in subnet.block for subnet in self._networks[network].subnets):
                return [], NO_SUCH_NAME
        return None if view.asks_world else ([], NO_SUCH_NAME)


def pointed(labels: Sequence[bytes]) -> str | None:
    """The address that a name of in-addr.arpa or ip6.arpa stands for (RFC 1035 3.5, RFC 3596 2.5); None for others."""
    try:
        if labels[-2:] == (b"in-addr", b"arpa") and len(labels) == 6:
            return str(ip_address(".".join(label.decode("ascii") for label in labels[3::-1])))
        if labels[-2:] == (b"ip6", b"arpa") and len(labels) == 34:
            return str(ip_address(int(b"".join(labels[31::-1]).decode("ascii"), 16).to_bytes(16, "big")))
    except (ValueError, OverflowError):  # more than four bits to a label, or a sign
        return None
    return None
