"""A new network, and a container's place on one: decided against all that there is already. Pure but for random ids."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from nbcontain.errors import AddressTaken, NetworkError, Unavailable
from nbcontain.network import addresses, words
from nbcontain.network.model import (
    BUILT_IN,
    Attachment,
    Block,
    Endpoint,
    Network,
    Sandbox,
    Subnet,
    checked_name,
    link_name,
    mac_of,
)
from nbcontain.oci.image import timestamp
from nbcontain.values import replace


def founded(said: Mapping[str, Any], known: Sequence[Network], taken: Sequence[Block], *, has_ipv6: bool) -> Network:
    """The network that was asked for: {name, internal, ipv6, labels, options, subnets: [[subnet, gateway, range]]}.

    `taken` is what networks have and what this machine has routes to. Raises NetworkError and its kin, Unavailable.
    """
    name = checked_name(str(said["name"]))
    if name in BUILT_IN:
        raise NetworkError(f"operation is not permitted on predefined {name} network")
    if any(each.name == name for each in known):
        raise NetworkError(f"network with name {name} already exists", hint=f"%network inspect {name}, or another name")
    network = Network(
        name, os.urandom(32).hex(), timestamp(), internal=bool(said["internal"]), labels=said["labels"],
        options=said["options"],
    )  # fmt: skip
    subnets = [addresses.subnet_of(*each) for each in said["subnets"]]
    for subnet in subnets:
        over = [each for each in taken if each.version == subnet.version and each.overlaps(subnet.block)]
        if over:
            whose = next((each.name for each in known for its in each.subnets if its.block == over[0]), "")
            raise AddressTaken(
                f"the subnet {subnet.block} overlaps {over[0]}",
                why=f"the network {whose} has that" if whose else "this machine has a route to that",
            )  # fmt: skip
    if not any(each.version == 4 for each in subnets):
        block = addresses.free_block(taken)
        subnets.append(Subnet(block, block[1]))
    if said["ipv6"] and not any(each.version == 6 for each in subnets):
        own = addresses.own_block(network.id)
        subnets.append(Subnet(own, own[1]))
    network = replace(network, subnets=tuple(sorted(subnets, key=lambda each: each.version)))
    if network.subnet(6) is not None and not has_ipv6:
        raise Unavailable("no network with IPv6 can be made", why="this kernel has IPv6 switched off")
    return network


def placed(
    tag: str, sandbox: Sandbox, network: Network, asked: Attachment, others: Sequence[Sandbox],
    last: MutableMapping[str, str],
) -> Endpoint:  # fmt: skip
    """A place on a network that none of the `others` has. `last` keeps what was given last, by network.

    Raises AddressTaken, AddressesExhausted, NetworkError.
    """
    if network.driver != "bridge":
        raise NetworkError(f"{network.name} is no network that containers are put on beside others")
    if network.name == "bridge" and (asked.address or asked.address6):
        raise NetworkError("user specified IP address is supported on user defined networks only")
    there = [place for other in others if (place := other.on(network.id)) is not None]
    taken = {address for place in there for address in (place.address, place.address6) if address}
    given: dict[int, str] = {}
    for version, wanted in ((4, asked.address), (6, asked.address6)):
        subnet = network.subnet(version)
        if wanted:
            given[version] = addresses.wanted(network, wanted, taken)
        elif subnet is not None:
            key = f"{network.id} {version}"
            given[version] = last[key] = addresses.given(network, subnet, taken, last.get(key, ""))
    used = {each.device for each in sandbox.endpoints}
    device = next(name for name in (f"eth{number}" for number in range(1000)) if name not in used)
    four, six = network.subnet(4), network.subnet(6)
    address, address6 = given.get(4, ""), given.get(6, "")
    leads = not network.internal
    mac = asked.mac or mac_of(address, sandbox.container)
    if any(place.mac == mac for place in there):
        raise AddressTaken(f"the MAC {mac} is taken", why=f"another container on {network.name} has it")
    return Endpoint(
        network.id, network.name, device, link_name(tag, sandbox.container, network.id), mac, address, address6,
        four.block.prefixlen if four else 0, six.block.prefixlen if six else 0,
        str(four.gateway) if four and leads else "", str(six.gateway) if six and leads else "",
        tuple(map(words.checked_alias, asked.aliases)),
    )  # fmt: skip
