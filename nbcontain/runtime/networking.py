"""What `run` can be told of networks: the flags. What they mean is the engine's `networks`. Pure."""

from __future__ import annotations

from nbcontain.options import option, with_defaults
from nbcontain.values import dataclass

JOINED = "container:"
"""The network of another container begins with it."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class NetworkOptions:
    """docker's flags for networks, names and ports."""

    heading = "network"

    publish: tuple[str, ...] = option(
        "-p",
        "--publish",
        help="[ADDRESS:][HOST_PORT:]PORT[/udp]; on 127.0.0.1 unless an address is named",
        metavar="PORTS",
    )
    publish_all: bool = option("-P", "--publish-all", help="every exposed port, each at a free one")
    network: tuple[str, ...] | str = option(
        "--network", "--net", help="NAME, bridge, host, none, container:NAME, or name=…,ip=…,alias=…,mac-address=…",
        default=(), metavar="NETWORK",
    )  # fmt: skip
    network_alias: tuple[str, ...] = option(
        "--network-alias", "--net-alias", help="a further name on its network", metavar="NAME"
    )
    ip: str = option("--ip", help="a certain IPv4 address", metavar="ADDRESS")
    ip6: str = option("--ip6", help="a certain IPv6 address", metavar="ADDRESS")
    mac_address: str = option("--mac-address", help="a certain MAC", metavar="MAC")
    expose: tuple[str, ...] = option("--expose", help="a port, or a range, for -P", metavar="PORT")
    dns: tuple[str, ...] = option("--dns", help="whom to ask for names", metavar="ADDRESS")
    dns_search: tuple[str, ...] = option("--dns-search", help="what to put behind short names", metavar="DOMAIN")
    dns_option: tuple[str, ...] = option(
        "--dns-option", "--dns-opt", help="of resolv.conf, as in ndots:2", metavar="OPTION"
    )
    add_hosts: tuple[str, ...] = option("--add-host", help="a line for its /etc/hosts", metavar="NAME:IP")


def mode_of(network: tuple[str, ...] | str) -> str:
    """The network mode that was decided on: host, none, container:ID, or the name of its first network."""
    return network if isinstance(network, str) else network[0] if network else "host"


def is_own(mode: str) -> bool:
    """Whether a container has a network namespace of its own."""
    return mode != "host" and not mode.startswith(JOINED)
