"""nf_tables over netlink: a table of our own as messages, and sending them (linux/netfilter/nf_tables.h).

pyroute2 has classes for parts of this; what is needed here is small, and written out. No program is run.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence

from nbcontain.network import ruleset
from nbcontain.network.netlink import ACK, APPEND, CREATE, NETFILTER, Attribute, Netlink, encoded, packet
from nbcontain.network.ruleset import Element, Expression

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
(
    _NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENT, _DELETE_ELEMENT,
) = (0, 1, 2, 3, 6, 9, 12, 14)  # fmt: skip
_INET = 1
_GENERIC = struct.Struct("=BBH")
_PER_MESSAGE = 200
"""How many elements: an attribute's length is sixteen bits."""
_INTERVAL, _MAP = 0x4, 0x8
_INTERVAL_END = 0x1
_META = {"iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16}
_CONNTRACK = {"state": 0, "status": 2}
_BASES = {"network": 1, "transport": 2}


def message(kind: int, flags: int, attributes: Sequence[Attribute], sequence: int) -> bytes:
    """One order to nf_tables, in the family inet."""
    body = _GENERIC.pack(_INET, 0, 0) + encoded(attributes)
    return packet((_SUBSYSTEM << 8) | kind, flags, body, sequence)


# --- expressions ----------------------------------------------------------------------------------


def _host(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def expression(each: Expression) -> list[Attribute]:
    """One expression of a rule, as its name and what it is told."""
    name, told = _told(each)
    return [(1, name), (2, told)]


def _told(each: Expression) -> tuple[str, list[Attribute]]:
    match each:
        case ruleset.Meta(key, register):
            return "meta", [(2, _META[key]), (1, register)]
        case ruleset.Payload(base, offset, length, register):
            return "payload", [(1, register), (2, _BASES[base]), (3, offset), (4, length)]
        case ruleset.Conntrack(key):
            return "ct", [(2, _CONNTRACK[key]), (1, 1)]
        case ruleset.HasBits(mask):
            return "bitwise", [(1, 1), (2, 1), (3, 4), (4, [(1, _host(mask))]), (5, [(1, bytes(4))])]
        case ruleset.Equals(value):
            return "cmp", [(1, 1), (2, 0), (3, [(1, value)])]
        case ruleset.DestinationType():
            return "fib", [(1, 1), (2, 3), (3, 2)]
        case ruleset.WayBack():
            return "fib", [(1, 1), (2, 1), (3, 0x1 | 0x8)]
        case ruleset.Lookup(name, into, is_inverted):
            told: list[Attribute] = [(1, name), (2, 1)]
            told += [(3, into)] if into else []
            return "lookup", [*told, *([(5, 1)] if is_inverted else [])]
        case ruleset.ToDestination(family, port):
            return "nat", [(1, 1), (2, family), (3, 1), (5, port), (7, 3)]
        case ruleset.Masquerade():
            return "masq", []
        case ruleset.Verdict(accepts):
            return "immediate", [(1, 0), (2, [(2, [(1, int(accepts))])])]


def _rule(expressions: Sequence[Expression]) -> list[Attribute]:
    """With what is between a masked register and its meaning: it must not be zero."""
    steps: list[list[Attribute]] = []
    for each in expressions:
        steps.append(expression(each))
        if isinstance(each, ruleset.HasBits):
            steps.append([(1, "cmp"), (2, [(1, 1), (2, 1), (3, [(1, bytes(4))])])])
    return [(1, step) for step in steps]


# --- a table ----------------------------------------------------------------------------------------


def anew(table: str, elements: Iterable[Element]) -> list[tuple[int, int, list[Attribute]]]:
    """The whole table, in place of one that may be there: as one transaction."""
    orders: list[tuple[int, int, list[Attribute]]] = [
        # Made first, so that there is one to delete.
        (_NEW_TABLE, CREATE, [(1, table), (2, 0)]),
        (_DELETE_TABLE, 0, [(1, table)]),
        (_NEW_TABLE, CREATE, [(1, table), (2, 0)]),
    ]
    for number, each in enumerate(ruleset.SETS):
        flags = (_INTERVAL if each.is_interval else 0) | (_MAP if each.data_bytes else 0)
        told: list[Attribute] = [
            (1, table), (2, each.name), (3, flags), (4, _type(each.key_types)), (5, each.key_bytes), (10, number + 1),
        ]  # fmt: skip
        if each.key_types == (ruleset.NAME,):
            # For nft(8), which would show names the other way round: its note that keys are in this machine's order.
            told.append((13, bytes([0, 4]) + _host(1)))
        if each.data_bytes:
            told += [(6, _type(each.data_types)), (7, each.data_bytes)]
        orders.append((_NEW_SET, CREATE, told))
    for chain in ruleset.CHAINS:
        orders.append((_NEW_CHAIN, CREATE, [
            (1, table), (3, chain.name), (4, [(1, chain.hook), (2, chain.priority)]), (5, 1), (7, chain.kind),
        ]))  # fmt: skip
        orders += [
            (_NEW_RULE, CREATE | APPEND, [(1, table), (2, chain.name), (4, _rule(rule))]) for rule in chain.rules
        ]
    return orders + changed(table, elements, ())


def changed(table: str, added: Iterable[Element], removed: Iterable[Element]) -> list[tuple[int, int, list[Attribute]]]:
    """The table with more elements, and without some."""
    orders: list[tuple[int, int, list[Attribute]]] = []
    for kind, flags, found in ((_DELETE_ELEMENT, 0, removed), (_NEW_ELEMENT, CREATE, added)):
        by_set: dict[str, list[Element]] = {}
        for each in sorted(found, key=lambda each: (each.set, each.key)):
            by_set.setdefault(each.set, []).append(each)
        for name, members in by_set.items():
            for start in range(0, len(members), _PER_MESSAGE):
                inside = [(1, keys) for each in members[start : start + _PER_MESSAGE] for keys in _keys(each)]
                orders.append((kind, flags, [(1, table), (2, name), (3, inside)]))
    return orders


def deleted(table: str) -> list[tuple[int, int, list[Attribute]]]:
    """No table any more, whether there was one or not."""
    return [(_NEW_TABLE, CREATE, [(1, table), (2, 0)]), (_DELETE_TABLE, 0, [(1, table)])]


def _keys(each: Element) -> Iterator[list[Attribute]]:
    is_interval = next(found for found in ruleset.SETS if found.name == each.set).is_interval
    told: list[Attribute] = [(1, [(1, each.key)])]
    if each.data:
        told.append((2, [(1, each.data)]))
    yield told
    if is_interval and each.end:
        yield [(1, [(1, each.end)]), (3, _INTERVAL_END)]


def _type(numbers: Sequence[int]) -> int:
    """nft's number of a type that is made of several, six bits each."""
    found = 0
    for each in numbers:
        found = found << 6 | each
    return found


# --- speaking ---------------------------------------------------------------------------------------


class Filter:
    """The packet filter of the network namespace that this process was in when it made one of these."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._netlink = Netlink(NETFILTER)
        self._known: frozenset[Element] | None = None
        """What is in the kernel; None where that is not known, or no table is there."""

    def be(self, elements: frozenset[Element] | None) -> None:
        """Have exactly these in the sets, and the rules; None takes the table away. Raises OSError."""
        if elements is None:
            if self._known is not None or self.is_there():
                self._transaction(deleted(self.table))
            self._known = None
            return
        # Somebody may have flushed it: docker, firewalld, or an administrator.
        is_there = self._known is not None and self.is_there()
        if is_there and self._known == elements:
            return
        if is_there and self._known is not None:
            try:
                self._transaction(changed(self.table, elements - self._known, self._known - elements))
                self._known = elements
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EEXIST):
                    raise
        self._known = None
        self._transaction(anew(self.table, elements))
        self._known = elements

    def is_there(self) -> bool:
        """Whether the table is still in the kernel."""
        number = self._netlink.number()
        self._netlink.send(message(_GET_TABLE, ACK, [(1, self.table)], number))
        try:
            self._netlink.hear({number})
        except FileNotFoundError:
            return False
        return True

    def _transaction(self, orders: Sequence[tuple[int, int, list[Attribute]]]) -> None:
        """All of it, or nothing."""
        if not orders:
            return
        generic = _GENERIC.pack(0, 0, socket.htons(_SUBSYSTEM))
        parts = [packet(_BATCH_BEGIN, 0, generic, self._netlink.number())]
        for kind, flags, attributes in orders[:-1]:
            parts.append(message(kind, flags, attributes, self._netlink.number()))
        # Who asks of the last one only hears of it once all went well; what fails answers in any case.
        kind, flags, attributes = orders[-1]
        last = self._netlink.number()
        parts.append(message(kind, flags | ACK, attributes, last))
        parts.append(packet(_BATCH_END, 0, generic, self._netlink.number()))
        self._netlink.send(b"".join(parts))
        self._netlink.hear({last}, stops=True)
