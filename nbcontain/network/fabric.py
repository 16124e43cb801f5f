"""What a store's networks are in the kernel: bridges, links, the packet filter, and the processes that serve them.

`settle` makes all of it what the records say, whoever died over what was before. Run by the worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from nbcontain.errors import NetworkError
from nbcontain.network import etc, ports
from nbcontain.network.links import Links
from nbcontain.network.model import (
    Endpoint,
    Network,
    PortMapping,
    Sandbox,
    bridge_name,
    network_to_json,
    sandbox_to_json,
    store_tag,
)
from nbcontain.network.nft import Filter
from nbcontain.network.records import Records
from nbcontain.network.ruleset import elements, table_name
from nbcontain.network.serving import Serving, Wanted

_RESOLV_CONF = Path("/etc/resolv.conf")


class Fabric:
    """The networks of a store as they are in the kernel's namespace that the worker stands in."""

    def __init__(self, records: Records, *, is_root: bool) -> None:
        from nbcontain.network.forwarder import Forwarder
        from nbcontain.network.names import Responder

        self.records = records
        self.tag = store_tag(str(records.layout.root))
        self.links = Links(self.tag)
        self.filter = Filter(table_name(self.tag))
        process = records.layout.network_process
        self.names = Serving(process("names"), Responder, is_root=is_root)
        self.forwarder = Serving(process("forwarder"), Forwarder, is_root=is_root)
        self.bound: dict[str, socket.socket] = {}
        """Sockets of ports on their way to the forwarder, by key."""
        self.servers: dict[str, tuple[str, ...]] = {}
        """Those of --dns, by container."""
        self._filter_refusal = ""

    # --- all of it ---

    def settle(self, sandboxes: Sequence[Sandbox], *, keep: Collection[str] = ()) -> None:
        """Have in the kernel what these containers need, and nothing else of ours. Raises NetworkError.

        `keep` are ids of networks whose bridges may stay although nobody is on them.
        """
        networks = {each.id: each for each in self.records.networks()}
        used = {each.network for sandbox in sandboxes for each in sandbox.endpoints}
        bridged = [networks[each] for each in {*used, *keep} if each in networks and networks[each].driver == "bridge"]
        known = {bridge_name(self.tag, each.id) for each in bridged}
        known |= {each.link for sandbox in sandboxes for each in sandbox.endpoints}
        for name in sorted(self.links.ours() - known):
            self.links.remove(name)
        self._filter(bridged, sandboxes)
        active = [each for each in bridged if each.id in used]
        for network in active:
            self.links.ensure_bridge(bridge_name(self.tag, network.id), network)
        knowledge = {
            "networks": list(map(network_to_json, active)), "sandboxes": list(map(sandbox_to_json, sandboxes)),
            "servers": self.servers,
        }  # fmt: skip
        ends = not keep
        self.names.sync(self._wanted_names(active), knowledge, ends=ends)
        self.forwarder.sync(self._wanted_ports(sandboxes), ends=ends)

    def _filter(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox]) -> None:
        try:
            self.filter.be(elements(self.tag, networks, sandboxes) if networks else None)
            self._filter_refusal = ""
        except OSError as error:
            # A kernel without nf_tables: then nothing leads out, and the forwarder alone leads in.
            self._filter_refusal = error.strerror or str(error)

    def notices(self, sandbox: Sandbox) -> list[str]:
        """What of a container's networks is not as it should be."""
        found = []
        if self._filter_refusal:
            found.append(
                f"this kernel has no packet filter for us ({self._filter_refusal}): nothing leads out of networks"
            )
        networks = {each.network for each in sandbox.endpoints}
        for key, why in self.names.refused.items():
            if key.partition(" ")[0] in networks:
                found.append(f"names are not answered at {key.partition(' ')[2]}: {why}")
        return found

    # --- names ---

    def needs_responder(self, network: Network) -> bool:
        """Whether somebody has to listen for questions on a network."""
        return network.has_names or any(map(etc.is_loopback, host_resolver().servers))

    def _wanted_names(self, networks: Sequence[Network]) -> Wanted:
        return {
            f"{network.id} {subnet.gateway}": ({"network": network.id}, partial(_listening, str(subnet.gateway)))
            for network in networks
            if self.needs_responder(network)
            for subnet in network.subnets
        }

    # --- ports ---

    def _wanted_ports(self, sandboxes: Sequence[Sandbox]) -> Wanted:
        wanted = {}
        for sandbox in sandboxes:
            for port in sandbox.ports:
                address = (
                    (sandbox.address6 if ":" in port.host_address else sandbox.address)
                    or sandbox.address
                    or sandbox.address6
                )
                if sandbox.pid and address:
                    key = f"{port_key(sandbox, port)} {address}"
                    wanted[key] = (
                        {"address": address, "port": port.container_port},
                        partial(self._socket, sandbox, port),
                    )
        return wanted

    def _socket(self, sandbox: Sandbox, port: PortMapping) -> list[socket.socket]:
        end = self.bound.pop(port_key(sandbox, port), None)
        # Anew where a forwarder was killed: what it held is free until now.
        return [end if end is not None else ports.bound(port, ())[1]]

    def let_go(self, sandbox: Sandbox) -> None:
        """Close what was bound for a container and never handed on."""
        for port in sandbox.ports:
            end = self.bound.pop(port_key(sandbox, port), None)
            if end is not None:
                end.close()

    # --- containers ---

    def attach(self, sandbox: Sandbox, netns: int) -> None:
        """Give a container its links, as far as it does not have them. Idempotent. Raises NetworkError."""
        networks = {each.id: each for each in self.records.networks()}
        found = []
        for endpoint in sandbox.endpoints:
            network = networks[endpoint.network]
            bridge = self.links.ensure_bridge(bridge_name(self.tag, network.id), network)
            found.append((endpoint, bridge, network.mtu))
        self.links.attach(netns, found, leading(sandbox.endpoints))

    def close(self) -> None:
        self.links.close()
        self.filter.close()


def leading(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that the default route goes by: the first that leads out."""
    return next((each for each in endpoints if each.gateway or each.gateway6), None)


def port_key(sandbox: Sandbox, port: PortMapping) -> str:
    """What a published port of a container is known by among helpers."""
    return f"{sandbox.container} {port.protocol} {port.host_address} {port.host_port} {port.container_port}"


def host_resolver() -> etc.Resolver:
    """What the machine's own resolv.conf says."""
    try:
        return etc.Resolver.parse(_RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        return etc.Resolver()


def _listening(address: str) -> list[socket.socket]:
    """Sockets for questions, of UDP and of TCP. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ends: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            end = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            ends.append(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            end.bind((address, 53))
            if kind == socket.SOCK_STREAM:
                end.listen(64)
    except OSError:
        for end in ends:
            end.close()
        raise
    return ends


@contextmanager
def netns_of(pid: int, pid_start: int) -> Iterator[int]:
    """The network namespace of a process, which must still be the one that was meant. Raises NetworkError."""
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(
            "the container ended before it had its network", why=os.strerror(error.errno or errno.ESRCH)
        ) from None
    try:
        if start_of(pid) != pid_start:
            raise NetworkError("the container ended before it had its network")
        yield fd
    finally:
        os.close(fd)


def start_of(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22); 0 for one that is not there."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as lines:
            return int(lines.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
