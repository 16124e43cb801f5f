"""Networks as values: what there is, who is on it, and which ports of this machine lead where. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbcontain.errors import NetworkError
from nbcontain.oci.digest import sha256
from nbcontain.values import dataclass, field

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Address = IPv4Address | IPv6Address
    Block = IPv4Network | IPv6Network
else:
    # Who has no addresses does not wait for the module that knows them.
    Address = Block = object

DEFAULT = "bridge"
"""The network of who asks for none: outbound and published ports, and no names, as docker's."""
BUILT_IN = ("bridge", "host", "none")
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_LINK_BYTES = 15
"""What the kernel keeps of an interface's name (IFNAMSIZ less the zero)."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A block of addresses of a network."""

    block: Block
    gateway: Address
    """The bridge's own address in it."""
    range: Block | None = None
    """The part of it that addresses are given from; None is all of it."""

    @property
    def version(self) -> int:
        return self.block.version


@dataclass(frozen=True, slots=True)
class Network:
    """A network. The driver of those that have a bridge is "bridge"; `host` and `none` are drivers of their own."""

    name: str
    id: str
    created: str = ""
    """RFC 3339."""
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    """Of IPv4 first; of each kind one at most."""
    internal: bool = False
    """Nothing leads out of it."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """docker's driver options, as given."""

    @property
    def is_built_in(self) -> bool:
        return self.name in BUILT_IN

    @property
    def has_names(self) -> bool:
        """Whether containers find each other by name: on all but the default one, as with docker."""
        return self.driver == "bridge" and self.name != DEFAULT

    @property
    def mtu(self) -> int:
        """0 is the kernel's."""
        for name in ("com.docker.network.driver.mtu", "mtu"):
            if name in self.options:
                return int(self.options[name])
        return 0

    @property
    def masquerades(self) -> bool:
        """Whether what leaves it gets the machine's address."""
        return self.options.get("com.docker.network.bridge.enable_ip_masquerade", "true") != "false"

    def subnet(self, version: int) -> Subnet | None:
        return next((each for each in self.subnets if each.version == version), None)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a container wants of a network."""

    network: str
    """A name or an id, as given."""
    address: str = ""
    """IPv4, if it wants a certain one."""
    address6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()


def bracketed(address: str) -> str:
    """An address as it stands before a port (RFC 3986, 3.2.2)."""
    return f"[{address}]" if ":" in address else address


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of this machine that leads to one of a container."""

    container_port: int
    protocol: str = "tcp"
    host_address: str = "127.0.0.1"
    host_port: int = 0
    """0 is one that is free."""
    last_port: int = 0
    """Where any free one of several will do, the last of them; else 0."""

    @property
    def is_any(self) -> bool:
        return self.host_address in ("0.0.0.0", "::")

    @property
    def host(self) -> str:
        """The address as it stands in front of a colon and a port."""
        return bracketed(self.host_address)

    @property
    def url(self) -> str:
        """Where this machine's own browsers find it."""
        return f"http://{'127.0.0.1' if self.is_any else self.host}:{self.host_port}"

    def __str__(self) -> str:
        return f"{self.host}:{self.host_port}->{self.container_port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on a network: a veth, its addresses and its names."""

    network: str
    """The network's id."""
    network_name: str
    device: str
    """What the interface is called inside."""
    link: str
    """What its other end is called, on the bridge."""
    mac: str
    address: str = ""
    """IPv4, without its prefix length."""
    address6: str = ""
    prefix: int = 0
    prefix6: int = 0
    gateway: str = ""
    """"" where nothing leads out."""
    gateway6: str = ""
    aliases: tuple[str, ...] = ()

    def names(self, sandbox: Sandbox) -> tuple[str, ...]:
        """What it is called on its network."""
        return tuple(dict.fromkeys((sandbox.name, sandbox.container[:12], sandbox.hostname, *self.aliases)))


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container on networks, for one run: written before anything is made in the kernel.

    Void once the container's lock is free.
    """

    container: str
    name: str
    hostname: str
    pid: int = 0
    """Its first process, as this machine counts; 0 before there is one."""
    pid_start: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    place: str = ""
    """The network namespace that it was started from, whose worker alone sees to it (`network.process`)."""
    domainname: str = ""

    @property
    def called(self) -> str:
        """What stands behind its addresses in its /etc/hosts: the name with its domain first (hosts(5))."""
        full = f"{self.hostname}.{self.domainname}" if self.domainname else self.hostname
        short = full.partition(".")[0]
        return full if short == full else f"{full} {short}"

    @property
    def address(self) -> str:
        """Where its published ports lead: its first IPv4 address."""
        return next((each.address for each in self.endpoints if each.address), "")

    @property
    def address6(self) -> str:
        return next((each.address6 for each in self.endpoints if each.address6), "")

    def on(self, network_id: str) -> Endpoint | None:
        return next((each for each in self.endpoints if each.network == network_id), None)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a container was asked to have of networks, as `run` was told and `connect` changed it."""

    mode: str = "host"
    """host, none, container:ID, or the name of its first network."""
    attachments: tuple[Attachment, ...] = ()
    published: tuple[PortMapping, ...] = ()
    exposed: tuple[str, ...] = ()
    """As in 80/tcp."""
    servers: tuple[str, ...] = ()
    """--dns."""
    search: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    """--add-host, as (name, address)."""

    @property
    def is_networked(self) -> bool:
        """Whether it has places on networks."""
        return bool(self.attachments)


# --- names of kernel objects --------------------------------------------------------------------


def checked_name(name: str) -> str:
    """A network's name. Raises NetworkError."""
    if re.fullmatch(_NAME, name) is None:
        raise NetworkError(
            f"{name!r} is no name for a network",
            why="letters, digits, _ . and - are, and it begins with one of the first two",
        )
    return name


@cache
def built_in_id(name: str) -> str:
    """Networks that are always there have the same id everywhere."""
    return sha256(f"nbcontain network {name}".encode()).hexdigest()


def store_tag(root: str) -> str:
    """What the kernel objects of a store have in their names, so that two stores do not take each other's."""
    return sha256(os.fsencode(root)).hexdigest()[:5]


def bridge_name(tag: str, network_id: str) -> str:
    """What a network's bridge is called."""
    return f"nb{tag}b{network_id[:7]}"[:_LINK_BYTES]


def link_name(tag: str, container_id: str, network_id: str) -> str:
    """A veth's end on the bridge."""
    return f"nb{tag}v{sha256(f'{container_id} {network_id}'.encode()).hexdigest()[:7]}"[:_LINK_BYTES]


def is_ours(tag: str, link: str) -> bool:
    """Whether a link of that name is one that the store with this tag made."""
    return re.fullmatch(rf"nb{tag}[bv][0-9a-f]{{7}}", link) is not None


def mac_of(address: str, seed: str = "") -> str:
    """A locally administered MAC: of the IPv4 address, so that who gets an address again is found by old neighbours."""
    if address and "." in address:
        from ipaddress import ip_address

        parts = ip_address(address).packed
        return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *parts))
    digest = sha256(f"{seed} {address}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x62, *digest[:4]))


# --- as JSON --------------------------------------------------------------------------------------


def network_to_json(network: Network) -> dict[str, Any]:
    """As it is kept on disk, and told to helpers."""
    return {
        "name": network.name, "id": network.id, "created": network.created, "driver": network.driver,
        "internal": network.internal, "labels": dict(network.labels), "options": dict(network.options),
        "subnets": [
            {"subnet": str(each.block), "gateway": str(each.gateway), "range": str(each.range or "")}
            for each in network.subnets
        ],
    }  # fmt: skip


def network_from_json(document: Mapping[str, Any]) -> Network:
    """Raises ValueError, TypeError or KeyError for what is none."""
    from ipaddress import ip_address, ip_network

    return Network(
        name=str(document["name"]), id=str(document["id"]), created=str(document["created"]),
        driver=str(document["driver"]), internal=bool(document["internal"]),
        labels=_texts(document["labels"]), options=_texts(document["options"]),
        subnets=tuple(
            Subnet(
                ip_network(each["subnet"]), ip_address(each["gateway"]),
                ip_network(each["range"]) if each["range"] else None,
            )
            for each in document["subnets"]
        ),
    )  # fmt: skip


def port_to_json(port: PortMapping) -> dict[str, Any]:
    """As it is kept on disk."""
    return {
        "container_port": port.container_port, "protocol": port.protocol,
        "host_address": port.host_address, "host_port": port.host_port, "last_port": port.last_port,
    }  # fmt: skip


def port_from_json(document: Mapping[str, Any]) -> PortMapping:
    """Raises ValueError, TypeError or KeyError for what is none."""
    return PortMapping(
        int(document["container_port"]), str(document["protocol"]), str(document["host_address"]),
        int(document["host_port"]), int(document.get("last_port", 0)),
    )  # fmt: skip


def attachment_to_json(attachment: Attachment) -> dict[str, Any]:
    """As it is kept on disk."""
    return {
        "network": attachment.network, "address": attachment.address, "address6": attachment.address6,
        "mac": attachment.mac, "aliases": list(attachment.aliases),
    }  # fmt: skip


def attachment_from_json(document: Mapping[str, Any]) -> Attachment:
    """Raises ValueError, TypeError or KeyError for what is none."""
    return Attachment(
        str(document["network"]), str(document["address"]), str(document["address6"]), str(document["mac"]),
        tuple(map(str, document["aliases"])),
    )  # fmt: skip


def wish_to_json(wish: Wish) -> dict[str, Any]:
    """As it is kept on disk."""
    return {
        "mode": wish.mode,
        "attachments": list(map(attachment_to_json, wish.attachments)),
        "published": list(map(port_to_json, wish.published)),
        "exposed": list(wish.exposed), "servers": list(wish.servers), "search": list(wish.search),
        "resolver_options": list(wish.resolver_options), "hosts": list(map(list, wish.hosts)),
    }  # fmt: skip


def wish_from_json(document: Mapping[str, Any]) -> Wish:
    """Raises ValueError, TypeError or KeyError for what is none."""
    return Wish(
        mode=str(document["mode"]),
        attachments=tuple(map(attachment_from_json, document["attachments"])),
        published=tuple(map(port_from_json, document["published"])),
        exposed=tuple(map(str, document["exposed"])), servers=tuple(map(str, document["servers"])),
        search=tuple(map(str, document["search"])), resolver_options=tuple(map(str, document["resolver_options"])),
        hosts=tuple((str(name), str(address)) for name, address in document["hosts"]),
    )  # fmt: skip


_SANDBOX_TEXTS = ("container", "name", "hostname", "domainname")
_ENDPOINT_TEXTS = (
    "network", "network_name", "device", "link", "mac", "address", "address6", "gateway", "gateway6",
)  # fmt: skip


def sandbox_to_json(sandbox: Sandbox) -> dict[str, Any]:
    """As it is kept on disk, and told to helpers."""
    return {
        "container": sandbox.container, "name": sandbox.name, "hostname": sandbox.hostname, "pid": sandbox.pid,
        "pid_start": sandbox.pid_start,
        "endpoints": [
            {name: getattr(each, name) for name in _ENDPOINT_TEXTS}
            | {"prefix": each.prefix, "prefix6": each.prefix6, "aliases": list(each.aliases)}
            for each in sandbox.endpoints
        ],
        "ports": list(map(port_to_json, sandbox.ports)), "place": sandbox.place, "domainname": sandbox.domainname,
    }  # fmt: skip


def sandbox_asked(message: Mapping[str, Any], place: str) -> Sandbox:
    """Of a container that is on no network yet."""
    container, name, hostname, domainname = (str(message.get(each, "")) for each in _SANDBOX_TEXTS)
    return Sandbox(container, name, hostname, place=place, domainname=domainname)


def sandbox_from_json(document: Mapping[str, Any]) -> Sandbox:
    """Raises ValueError, TypeError or KeyError for what is none."""
    return Sandbox(
        str(document["container"]), str(document["name"]), str(document["hostname"]), int(document["pid"]),
        int(document["pid_start"]),
        tuple(
            Endpoint(
                **{name: str(each[name]) for name in _ENDPOINT_TEXTS},
                prefix=int(each["prefix"]), prefix6=int(each["prefix6"]), aliases=tuple(map(str, each["aliases"])),
            )
            for each in document["endpoints"]
        ),
        tuple(map(port_from_json, document["ports"])), str(document["place"]), str(document.get("domainname", "")),
    )  # fmt: skip


def _texts(found: Any) -> Mapping[str, str]:
    return MappingProxyType({str(name): str(value) for name, value in dict(found).items()})
