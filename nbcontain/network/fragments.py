"""Datagrams that come in parts are put together, and those that are too large for a wire are cut (RFC 791, 8200).

Of what comes from containers the relay reads whole datagrams only (`frames`). Parts may come in any order, twice, or
never all of them; what overlaps is thrown away whole, as it is never meant well (RFC 5722).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator

from nbcontain.network.frames import ETHERNET, IPV4, IPV6, summed
from nbcontain.values import dataclass

_ASSEMBLED = 64
"""At a time."""
_PARTS = 256
"""Of one: the largest has 45 on a wire of 1500 bytes, 119 on one of 576. Each costs a look at all before it."""
_PATIENCE_S = 30.0
_LARGEST = 65535
_FRAGMENT = 44
"""The header that says so in IPv6, which follows the fixed one at once."""
_HEAD6 = 40
Key = tuple[int, bytes, int, bytes, int]
"""What parts of one datagram have in common: protocol, source, its number, destination; and 0."""


@dataclass(frozen=True, slots=True)
class _Part:
    key: Key
    offset: int
    is_last: bool
    head: bytes
    """All that goes before what was cut, as the whole datagram has it but for its size."""
    body: bytes


class _Whole:
    """One that is put together."""

    __slots__ = ("begun_at", "bodies", "head", "size_bytes")

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.bodies: dict[int, bytes] = {}
        self.head = b""
        """Of the first part."""
        self.size_bytes = -1
        """Without its head; -1 until the last part came."""

    def takes(self, part: _Part) -> bool:
        """Whether this can be a part of it, too."""
        end = part.offset + len(part.body)
        if any(offset < end and part.offset < offset + len(body) for offset, body in self.bodies.items()):
            return self.bodies.get(part.offset) == part.body
        if len(self.bodies) >= _PARTS:
            return False
        if part.is_last and (self.size_bytes >= 0 or any(offset > part.offset for offset in self.bodies)):
            return False
        if self.size_bytes >= 0 and end > self.size_bytes:
            return False
        self.bodies[part.offset] = part.body
        if part.is_last:
            self.size_bytes = end
        if part.offset == 0:
            self.head = part.head
        return True

    def body(self) -> bytes | None:
        """What was cut; None while something of it is missing."""
        if self.size_bytes < 0 or not self.head or sum(map(len, self.bodies.values())) < self.size_bytes:
            return None
        return b"".join(body for _, body in sorted(self.bodies.items()))


class Assembly:
    """Puts together what comes, of some datagrams at a time."""

    def __init__(self, one_too_many: Callable[[Collection[Key]], Key]) -> None:
        """`one_too_many` says which of those that are begun makes room."""
        self._one_too_many = one_too_many
        self._begun: OrderedDict[Key, _Whole] = OrderedDict()

    def whole(self, frame: bytes, now: float) -> bytes | None:
        """A frame that is none of a part, or the one whose last missing part this is; else None."""
        part = _read(frame)
        if part is None:
            return frame
        while self._begun and now - next(iter(self._begun.values())).begun_at > _PATIENCE_S:
            self._begun.popitem(last=False)
        found = self._begun.get(part.key)
        if found is None:
            if len(self._begun) >= _ASSEMBLED:
                del self._begun[self._one_too_many(self._begun)]
            found = self._begun[part.key] = _Whole(now)
        is_sound = part.is_last or len(part.body) % 8 == 0
        if not part.body or not is_sound or part.offset + len(part.body) > _LARGEST or not found.takes(part):
            del self._begun[part.key]
            return None
        body = found.body()
        if body is None:
            return None
        del self._begun[part.key]
        return _put_together(found.head, body)

    def forget(self) -> None:
        """All that was begun."""
        self._begun.clear()


def _read(frame: bytes) -> _Part | None:
    """What a frame is a part of; None for one that is whole, or nothing of ours."""
    kind, at = frame[12:14], ETHERNET
    if kind == IPV4 and len(frame) >= at + 20:
        begin = at + (frame[at] & 0xF) * 4
        size_bytes, number, cut = struct.unpack_from("!HHH", frame, at + 2)
        if not cut & 0x3FFF or begin < at + 20:
            return None
        key = (frame[at + 9], frame[at + 12 : at + 16], number, frame[at + 16 : at + 20], 0)
        body = frame[begin : at + size_bytes]
        return _Part(key, (cut & 0x1FFF) * 8, not cut & 0x2000, frame[:begin], body)
    if kind == IPV6 and len(frame) >= at + _HEAD6 + 8 and frame[at + 6] == _FRAGMENT:
        begin = at + _HEAD6 + 8
        (size_bytes,) = struct.unpack_from("!H", frame, at + 4)
        protocol, _, cut, number = struct.unpack_from("!BBHI", frame, at + _HEAD6)
        key = (_FRAGMENT, frame[at + 8 : at + 24], number, frame[at + 24 : at + 40], 0)
        head = frame[: at + 6] + bytes((protocol,)) + frame[at + 7 : at + _HEAD6]
        return _Part(key, cut & 0xFFF8, not cut & 1, head, frame[begin : at + _HEAD6 + size_bytes])
    return None


def _put_together(head: bytes, body: bytes) -> bytes | None:
    """A whole frame; None if it is larger than any can be."""
    at = ETHERNET
    is_four = head[12:14] == IPV4
    size_bytes = len(body) + (len(head) - at if is_four else 0)
    if size_bytes > _LARGEST:
        return None
    size = size_bytes.to_bytes(2, "big")
    if not is_four:
        return head[: at + 4] + size + head[at + 6 :] + body
    # Nobody looks at its sum any more.
    return head[: at + 2] + size + head[at + 4 : at + 6] + bytes(2) + head[at + 8 :] + body


def cut(packet: bytes, widest: int, number: int) -> Iterator[bytes]:
    """An IP packet of ours, in parts that are no larger than this; `number` is its own."""
    if len(packet) <= widest:
        yield packet
        return
    is_four = packet[0] >> 4 == 4
    head, body = (packet[:20], packet[20:]) if is_four else (packet[:_HEAD6], packet[_HEAD6:])
    step = (widest - len(head) - (0 if is_four else 8)) // 8 * 8
    for offset in range(0, len(body), step):
        part, has_more = body[offset : offset + step], offset + step < len(body)
        if is_four:
            where = offset // 8 | has_more << 13
            new = head[:2] + struct.pack("!HHH", 20 + len(part), number & 0xFFFF, where) + head[8:10] + bytes(2)
            new += head[12:]
            yield new[:10] + summed(new).to_bytes(2, "big") + new[12:] + part
        else:
            new = head[:4] + struct.pack("!HB", 8 + len(part), _FRAGMENT) + head[7:]
            yield new + struct.pack("!BBHI", head[6], 0, offset | has_more, number & 0xFFFFFFFF) + part
