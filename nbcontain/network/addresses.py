"""Which subnet a new network gets, and which address a container: allocation as values. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from nbcontain.errors import AddressesExhausted, AddressTaken, NetworkError
from nbcontain.network.model import Address, Block, Network, Subnet

_FIRST = IPv4Network("10.210.0.0/16")
"""The default network's, if nothing else is there."""
_POOLS = (IPv4Network("10.211.0.0/16"), IPv4Network("10.212.0.0/14"), IPv4Network("172.28.0.0/14"))
_PREFIX = 24
_SMALLEST = 30
"""A gateway and a container."""


def free_block(taken: Collection[Block], *, large: bool = False) -> IPv4Network:
    """A subnet that overlaps nothing of `taken`: networks that were made, and routes of this machine.

    `large` is for the default network. Raises AddressesExhausted.
    """
    used = [each for each in taken if isinstance(each, IPv4Network) and each.prefixlen > 0]
    if large and not any(_FIRST.overlaps(each) for each in used):
        return _FIRST
    for block in (each for pool in _POOLS for each in pool.subnets(new_prefix=_PREFIX)):
        if not any(block.overlaps(each) for each in used):
            return block
    raise AddressesExhausted(
        "there is no free subnet left", why=f"all of {', '.join(map(str, _POOLS))} is taken",
        hint="%network prune removes what nobody is on, or name one: --subnet 192.168.50.0/24",
    )  # fmt: skip


def own_block(network_id: str) -> IPv6Network:
    """A unique local /64 (RFC 4193) of a network's own, the same each time it is asked for."""
    digest = hashlib.sha256(f"nbcontain ipv6 {network_id}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))


def subnet_of(block: str, gateway: str = "", ip_range: str = "") -> Subnet:
    """A subnet as it was asked for. Raises NetworkError for what makes no sense."""
    try:
        found = ip_network(block)
    except ValueError as error:
        try:
            meant = ip_network(block, strict=False)
        except ValueError:
            raise NetworkError(f"invalid subnet {block}", why=str(error), hint="--subnet 10.5.0.0/24") from None
        raise NetworkError(
            f"invalid subnet {block}", why="bits are set behind its prefix", hint=f"did you mean {meant}?"
        ) from None
    if found.version == 4 and found.prefixlen > _SMALLEST:
        raise NetworkError(
            f"{block} is too small", why="a network needs a gateway and a container", hint=f"--subnet …/{_SMALLEST}"
        )
    if found.version == 6 and found.prefixlen > 126:
        raise NetworkError(f"{block} is too small", why="a network needs a gateway and a container")
    first = _parsed(gateway, "gateway") if gateway else found[1]
    if first not in found or first in _reserved(found):
        raise NetworkError(f"no matching subnet for gateway {gateway}", why=f"the subnet is {block}")
    part = None
    if ip_range:
        try:
            part = ip_network(ip_range)
        except ValueError as error:
            raise NetworkError(f"invalid ip-range {ip_range}", why=str(error)) from None
        if part.version != found.version or not part.subnet_of(found):  # type: ignore[arg-type]
            raise NetworkError(f"no matching subnet for range {ip_range}", why=f"the subnet is {block}")
    return Subnet(found, first, part)


def _parsed(text: str, what: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise NetworkError(f"invalid {what} {text}", why="that is no address") from None


def _reserved(block: Block) -> tuple[Address, ...]:
    """The addresses that nobody can have: the network's own, and of IPv4 its broadcast address."""
    first = block.network_address
    return (first, block.broadcast_address) if block.version == 4 else (first,)


def given(network: Network, subnet: Subnet, taken: Collection[str], after: str = "") -> str:
    """The next free address of a subnet behind `after`, so that one is not given again at once.

    `taken` are the addresses that containers have. Raises AddressesExhausted.
    """
    pool = subnet.range or subnet.block
    never = {*map(str, _reserved(subnet.block)), str(subnet.gateway), *taken}
    for address in _from(pool, after):
        if address not in never:
            return address
    what = f"the range {subnet.range} of " if subnet.range else ""
    raise AddressesExhausted(
        f"no address is left in {what}{subnet.block}, the network {network.name}",
        why=f"{len(taken)} are taken", hint="remove containers, or make a network with a larger --subnet",
    )  # fmt: skip


def _from(pool: Block, after: str) -> Iterable[str]:
    """All addresses of a block, beginning behind one of them."""
    start, size = int(pool.network_address), pool.num_addresses
    kind = type(pool.network_address)
    begin = int(ip_address(after)) - start + 1 if after and ip_address(after) in pool else 0
    # Of IPv6 nobody waits for all.
    limit = min(size, 1 << 20)
    for offset in range(limit):
        yield str(kind(start + (begin + offset) % size))


def wanted(network: Network, address: str, taken: Collection[str]) -> str:
    """A certain address, if it can be had. Raises AddressTaken, NetworkError."""
    found = _parsed(address, "address")
    subnet = network.subnet(found.version)
    if subnet is None or found not in subnet.block or found in _reserved(subnet.block):
        blocks = ", ".join(str(each.block) for each in network.subnets)
        raise NetworkError(
            f"{address} is no address of the network {network.name}", why=f"its subnet is {blocks}",
        )  # fmt: skip
    if found == subnet.gateway:
        raise AddressTaken(f"{address} is taken", why=f"it is the gateway of {network.name}")
    if str(found) in taken:
        raise AddressTaken(f"{address} is taken", why=f"another container on {network.name} has it")
    return str(found)
