"""What the kernel's packet filter is told: one table of our own, its rules fixed, what changes in its sets. Pure.

The rules, as nft(8) would list them:

    sources      iifname @bridges ip6 saddr :: accept                who looks whether an address is free
                 iifname @bridges fib saddr . iif oif missing drop   forged: another network's, or nobody's
    prerouting   iifname @bridges accept                             containers reach published ports by the forwarder
                 ip daddr . meta l4proto . th dport  →  dnat @at4    published at one address
                 fib daddr type local … th dport     →  dnat @any4   published at all of the machine's
    postrouting  ip saddr @masq4 oifname != @bridges masquerade
    forward      iifname . oifname @same accept                      within a network
                 iifname @internal drop; oifname @internal drop
                 ct state established,related accept
                 oifname @bridges ct status dnat accept              published
                 oifname @bridges drop                               from other networks, and from outside
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal

from nbcontain.network.model import Network, Sandbox, bridge_name
from nbcontain.values import dataclass

Register = int
"""As the kernel counts them: 8 is the first of four bytes each; 1 is the first of sixteen, at the same place."""
R1, R2 = 1, 2
_FIRST = 8

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17}
_ESTABLISHED_RELATED = 0x2 | 0x4
_DESTINATION_CHANGED = 1 << 5
_LOCAL = 2
_NAME_BYTES = 16
_IPV4, _IPV6 = 2, 10


# --- expressions: what a rule does, step by step ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meta:
    """Load something about the packet."""

    key: Literal["iifname", "oifname", "nfproto", "l4proto"]
    register: Register = R1


@dataclass(frozen=True, slots=True)
class Payload:
    """Load bytes of the packet."""

    base: Literal["network", "transport"]
    offset: int
    length: int
    register: Register = R1


@dataclass(frozen=True, slots=True)
class Conntrack:
    """Load what is known of the connection."""

    key: Literal["state", "status"]


@dataclass(frozen=True, slots=True)
class HasBits:
    """Go on if one of these bits is set in the first register."""

    mask: int


@dataclass(frozen=True, slots=True)
class Equals:
    """Go on if the first register holds this."""

    value: bytes


@dataclass(frozen=True, slots=True)
class DestinationType:
    """Load what the destination is to this machine (fib daddr type)."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """Load by which interface the source is reached, if it is the one that this came by (fib saddr . iif oif); or 0."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Go on if the registers from the first on are in a set; of a map, its value is put there."""

    set: str
    into: Register = 0
    is_inverted: bool = False


@dataclass(frozen=True, slots=True)
class ToDestination:
    """Send it to the address and port in the registers."""

    family: int
    port: Register


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Give it this machine's address."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of it, in this table."""

    accepts: bool


Expression = (
    Meta
    | Payload
    | Conntrack
    | HasBits
    | Equals
    | DestinationType
    | WayBack
    | Lookup
    | ToDestination
    | Masquerade
    | Verdict
)


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules at a place where packets come by."""

    name: str
    kind: Literal["nat", "filter"]
    hook: int
    """NF_INET_PRE_ROUTING 0, FORWARD 2, POST_ROUTING 4."""
    priority: int
    rules: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class Set:
    """A set or map of the table."""

    name: str
    key_types: tuple[int, ...]
    """nft's numbers of what the key is made of, for whoever lists it."""
    key_bytes: int
    data_types: tuple[int, ...] = ()
    data_bytes: int = 0
    is_interval: bool = False


_IP, _IP6, _PROTOCOL, _PORT, NAME = 7, 8, 12, 13, 41
SETS = (
    Set("bridges", (NAME,), _NAME_BYTES),
    Set("internal", (NAME,), _NAME_BYTES),
    Set("same", (NAME, NAME), 2 * _NAME_BYTES),
    Set("masq4", (_IP,), 4, is_interval=True),
    Set("masq6", (_IP6,), 16, is_interval=True),
    Set("any4", (_PROTOCOL, _PORT), 8, (_IP, _PORT), 8),
    Set("any6", (_PROTOCOL, _PORT), 8, (_IP6, _PORT), 20),
    Set("at4", (_IP, _PROTOCOL, _PORT), 12, (_IP, _PORT), 8),
    Set("at6", (_IP6, _PROTOCOL, _PORT), 24, (_IP6, _PORT), 20),
)
_ACCEPT, _DROP = Verdict(True), Verdict(False)
_V4, _V6 = (Meta("nfproto"), Equals(bytes([_IPV4]))), (Meta("nfproto"), Equals(bytes([_IPV6])))
_IS_LOCAL = (DestinationType(), Equals(_LOCAL.to_bytes(4, sys.byteorder)))
_OUT = (Meta("oifname"), Lookup("bridges", is_inverted=True))
_FROM_BRIDGE, _TO_BRIDGE = (Meta("iifname"), Lookup("bridges")), (Meta("oifname"), Lookup("bridges"))


def _port_at(first: Register) -> tuple[Expression, ...]:
    return (Meta("l4proto", first), Payload("transport", 2, 2, first + 1))


CHAINS = (
    # Before connections are looked up (-200): what is forged is of none, and begins none.
    Chain("sources", "filter", 0, -300, (
        (*_FROM_BRIDGE, *_V6, Payload("network", 8, 16), Equals(bytes(16)), _ACCEPT),
        (*_FROM_BRIDGE, WayBack(), Equals(bytes(4)), _DROP),
    )),
    Chain("prerouting", "nat", 0, -100, (
        (*_FROM_BRIDGE, _ACCEPT),
        (*_V4, Payload("network", 16, 4), *_port_at(_FIRST + 1), Lookup("at4", R1), ToDestination(_IPV4, _FIRST + 1)),
        (*_V4, *_IS_LOCAL, *_port_at(_FIRST), Lookup("any4", R1), ToDestination(_IPV4, _FIRST + 1)),
        (*_V6, Payload("network", 24, 16), *_port_at(_FIRST + 4), Lookup("at6", R1), ToDestination(_IPV6, _FIRST + 4)),
        (*_V6, *_IS_LOCAL, *_port_at(_FIRST), Lookup("any6", R1), ToDestination(_IPV6, _FIRST + 4)),
    )),
    Chain("postrouting", "nat", 4, 100, (
        (*_V4, Payload("network", 12, 4), Lookup("masq4"), *_OUT, Masquerade()),
        (*_V6, Payload("network", 8, 16), Lookup("masq6"), *_OUT, Masquerade()),
    )),
    Chain("forward", "filter", 2, 0, (
        (Meta("iifname", R1), Meta("oifname", R2), Lookup("same"), _ACCEPT),
        (Meta("iifname"), Lookup("internal"), _DROP),
        (Meta("oifname"), Lookup("internal"), _DROP),
        (Conntrack("state"), HasBits(_ESTABLISHED_RELATED), _ACCEPT),
        (*_TO_BRIDGE, Conntrack("status"), HasBits(_DESTINATION_CHANGED), _ACCEPT),
        (*_TO_BRIDGE, _DROP),
    )),
)  # fmt: skip


# --- what is in the sets ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Element:
    """Something in a set: a key, a range of keys, or a key and where it leads."""

    set: str
    key: bytes
    end: bytes = b""
    """Of a range, the first that is not in it any more; b"" for all that follow."""
    data: bytes = b""


def table_name(tag: str) -> str:
    """What the table of a store is called."""
    return f"nbcontain_{tag}"


def elements(tag: str, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> frozenset[Element]:
    """What is to be in the sets while these networks have bridges, and these containers are on them."""
    found: set[Element] = set()
    routed: set[str] = set()
    for network in networks:
        name = _padded(bridge_name(tag, network.id))
        found |= {Element("bridges", name), Element("same", name + name)}
        if network.internal:
            found.add(Element("internal", name))
            continue
        routed.add(network.id)
        if network.masquerades:
            for subnet in network.subnets:
                start, end = int(subnet.block.network_address), int(subnet.block.broadcast_address) + 1
                size = subnet.block.max_prefixlen // 8
                last = end.to_bytes(size, "big") if end < 1 << (8 * size) else b""
                found.add(Element(f"masq{subnet.version}", start.to_bytes(size, "big"), last))
    for sandbox in sandboxes:
        for version, address in ((4, _leading(sandbox, routed, 4)), (6, _leading(sandbox, routed, 6))):
            if not address:
                continue
            for port in sandbox.ports:
                at = ip_address(port.host_address)
                if at.version != version or at.is_loopback:
                    # What is published on loopback is the forwarder's: nobody else may get there.
                    continue
                service = _word(PROTOCOL_NUMBERS[port.protocol].to_bytes(1, "big")) + _service(port.host_port)
                key = service if port.is_any else at.packed + service
                data = ip_address(address).packed + _service(port.container_port)
                found.add(Element(f"{'any' if port.is_any else 'at'}{version}", key, data=data))
    return frozenset(found)


def _leading(sandbox: Sandbox, routed: set[str], version: int) -> str:
    """The address that published ports lead to: of its first network that leads out."""
    for each in sandbox.endpoints:
        if each.network in routed and (address := each.address if version == 4 else each.address6):
            return address
    return ""


def _padded(name: str) -> bytes:
    return name.encode().ljust(_NAME_BYTES, b"\0")


def _word(data: bytes) -> bytes:
    return data.ljust(4, b"\0")


def _service(port: int) -> bytes:
    return _word(port.to_bytes(2, "big"))
