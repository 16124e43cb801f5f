"""Datagrams as they are on a wire: read and written, for the relay (RFC 768, 791, 792, 4443, 8200). Pure.

Only what a relay passes on is read: UDP, and questions of ping. All else is answered with why it goes nowhere.
"""

from __future__ import annotations

import struct

from nbcontain.values import dataclass

ETHERNET = 14
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
_FRAGMENTED = 0x3FFF
_ECHO = {ICMP: 8, ICMP6: 128}
_REPLY = {ICMP: 0, ICMP6: 129}
_HOPS = 64
PORT, FORBIDDEN = "port", "forbidden"
_UNREACHABLE = {(4, PORT): (3, 3), (4, FORBIDDEN): (3, 13), (6, PORT): (1, 4), (6, FORBIDDEN): (1, 1)}
"""Type and code by IP's version and the reason."""
_QUOTED_BYTES = 8
"""Of what is in a packet that goes nowhere, in the answer, behind its header."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One that came."""

    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    """Of ping, its number."""
    port: int
    """0 for ping."""
    payload: bytes
    """Of ping, all of its question."""
    head: bytes
    """What is quoted where it cannot go on."""
    passes: bool = True
    """Whether it is of a kind that is passed on."""

    @property
    def version(self) -> int:
        return 4 if len(self.source) == 4 else 6


def read(frame: bytes) -> Packet | None:
    """What is in a frame; None for what needs no answer."""
    kind, at = frame[12:14], ETHERNET
    if kind == IPV4 and len(frame) >= at + 28:
        begin = at + (frame[at] & 0xF) * 4
        protocol, source, destination = frame[at + 9], frame[at + 12 : at + 16], frame[at + 16 : at + 20]
        is_part = bool(int.from_bytes(frame[at + 6 : at + 8], "big") & _FRAGMENTED)
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
    elif kind == IPV6 and len(frame) >= at + 48:
        begin, is_part = at + 40, False
        protocol, source, destination = frame[at + 6], frame[at + 8 : at + 24], frame[at + 24 : at + 40]
        end = begin + int.from_bytes(frame[at + 4 : at + 6], "big")
    else:
        return None
    if destination[0] == 0xFF or len(destination) == 4 and destination[0] >= 224 or len(frame) < begin + 8:
        return None
    head = frame[at : begin + _QUOTED_BYTES]
    first, second = struct.unpack_from("!HH", frame, begin)
    if not is_part and protocol == UDP:
        size_bytes = int.from_bytes(frame[begin + 4 : begin + 6], "big")
        payload = frame[begin + 8 : begin + max(size_bytes, 8)]
        return Packet(protocol, source, destination, first, second, payload, head)
    if not is_part and protocol in _ECHO and frame[begin] == _ECHO[protocol]:
        (number,) = struct.unpack_from("!H", frame, begin + 4)
        return Packet(protocol, source, destination, number, 0, frame[begin:end], head)
    if protocol in (ICMP, ICMP6):
        # Of what is wrong nothing is told, or there would be no end.
        return None
    return Packet(protocol, source, destination, first, second, b"", head, passes=False)


def reply(packet: Packet, payload: bytes, number: int) -> bytes:
    """The IP packet that brings back what `packet` was answered. `number` is its own."""
    if packet.protocol == UDP:
        body = struct.pack("!HHHH", packet.port, packet.source_port, 8 + len(payload), 0) + payload
        # IPv4 can do without.
        total = 0 if packet.version == 4 else summed(_pseudo(packet, len(body)) + body) or 0xFFFF
        body = body[:6] + total.to_bytes(2, "big") + body[8:]
    else:
        body = _control(packet, _REPLY[packet.protocol], 0, packet.source_port.to_bytes(2, "big") + payload[6:])
    return _ip(packet, packet.protocol, body, number)


def unreachable(packet: Packet, why: str, number: int) -> bytes:
    """The IP packet that says why `packet` goes nowhere."""
    kind, code = _UNREACHABLE[packet.version, why]
    body = _control(packet, kind, code, bytes(4) + packet.head)
    return _ip(packet, ICMP if packet.version == 4 else ICMP6, body, number)


def framed(packet: bytes, to: bytes, sender: bytes) -> bytes:
    """An IP packet between these two MACs."""
    return to + sender + (IPV4 if packet[0] >> 4 == 4 else IPV6) + packet


def _control(packet: Packet, kind: int, code: int, rest: bytes) -> bytes:
    body = bytes((kind, code, 0, 0)) + rest
    pseudo = b"" if packet.version == 4 else _pseudo(packet, len(body), ICMP6)
    return body[:2] + summed(pseudo + body).to_bytes(2, "big") + body[4:]


def _pseudo(packet: Packet, size_bytes: int, protocol: int = UDP) -> bytes:
    return packet.destination + packet.source + struct.pack("!II", size_bytes, protocol)


def _ip(packet: Packet, protocol: int, body: bytes, number: int) -> bytes:
    """Back from where it was sent to."""
    if packet.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, _HOPS)
        return head + packet.destination + packet.source + body
    # Not said to be left in one piece: the networks' links may be narrower.
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, _HOPS, protocol, 0)
    head += packet.destination + packet.source
    return head[:10] + summed(head).to_bytes(2, "big") + head[12:] + body


def summed(data: bytes) -> int:
    """The Internet's (RFC 1071): a sum of 16-bit numbers in ones' complement is what is left of a division."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
