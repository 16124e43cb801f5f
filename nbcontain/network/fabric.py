"""What a store's networks are in the kernel: bridges, links, the packet filter, and the processes that serve them.

`settle` makes all of it what the records say, whoever died over what was before. Run by the worker.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from nbcontain.errors import NetworkError
from nbcontain.linux.starts import start_of
from nbcontain.network import etc, helper, ports, process
from nbcontain.network.links import Links
from nbcontain.network.model import (
    Block,
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
from nbcontain.network.own import Own
from nbcontain.network.records import Records
from nbcontain.network.ruleset import elements, table_name
from nbcontain.network.serving import Serving, Wanted
from nbcontain.network.tunnels import SWAP, not_forwarding

_SO_RCVBUFFORCE = 33
_QUESTIONS_BYTES = 1 << 20


class Fabric:
    """The networks of a store as they are in the kernel's namespace that the worker stands in."""

    def __init__(self, records: Records, place: str, own: Own | None) -> None:
        from nbcontain.network.forwarder import Forwarder
        from nbcontain.network.names import Responder

        self.records = records
        self.tag = store_tag(str(records.layout.root))
        self.links = Links(self.tag)
        self.filter = Filter(table_name(self.tag))
        self.own = own
        is_root = own is None
        directory = partial(records.layout.network_process, place)
        respond = own.outside.respond if own is not None else partial(_begin, Responder, is_root)
        self.names = Serving(directory("names"), respond)
        self.forwarder = Serving(directory("forwarder"), partial(_begin, Forwarder, is_root))
        if own is not None:
            self.links.bring_loopback_up()
            if own.space.is_new:
                # One that lives stands in namespaces where no container is any more.
                self.forwarder.sync({})
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
        indices = [self.links.ensure_bridge(bridge_name(self.tag, each.id), each) for each in active]
        knowledge = {
            "networks": list(map(network_to_json, active)), "sandboxes": list(map(sandbox_to_json, sandboxes)),
            "servers": self.servers,
        }  # fmt: skip
        if self.own is not None:
            # Once it is there it stays as long as the bridges do.
            self.own.uplink.be(self.own.space.holder, wanted=any(not each.internal for each in bridged))
        ends = not keep
        self.names.sync(self._wanted_names(dict(zip(indices, active, strict=True))), knowledge, ends=ends)
        self.forwarder.sync(self._wanted_ports(sandboxes), ends=ends)

    def _filter(self, networks: Sequence[Network], sandboxes: Sequence[Sandbox]) -> None:
        try:
            self.filter.be(elements(self.tag, networks, sandboxes) if networks else None)
            self._filter_refusal = ""
        except OSError as error:
            # A kernel without nf_tables: then nothing leads out, and the forwarder alone leads in.
            self._filter_refusal = error.strerror or str(error)

    def helpers(self) -> list[Serving]:
        """The processes of ours that serve these networks."""
        return [self.names, self.forwarder, *(self.own.uplink.helpers() if self.own is not None else ())]

    def lead_out(self, networks: Iterable[Network]) -> str:
        """Have something lead out of these networks, and give what does or would, as `Uplink.way` has it."""
        if self.own is None:
            return ""
        if not all(each.internal for each in networks):
            self.own.uplink.be(self.own.space.holder, wanted=True)
        return self.own.uplink.expected()

    def endings(self) -> list[int]:
        """Descriptors that tell of the end of a process that serves these networks."""
        helpers = [each.channel.fileno() for each in self.helpers() if each.channel is not None]
        uplink = self.own.uplink.ending if self.own is not None else -1
        return [*helpers, uplink] if uplink >= 0 else helpers

    def notices(self, sandbox: Sandbox) -> list[str]:
        """What of a container's networks is not as it should be."""
        found = []
        uplink = self.own.uplink if self.own is not None else None
        way = uplink.way if uplink is not None else ""
        refusal = uplink.refusal if uplink is not None else not_forwarding()
        if self._filter_refusal:
            what = "networks are not kept apart" if way == SWAP else "nothing leads out of networks"
            found.append(f"this kernel has no packet filter for us ({self._filter_refusal}): {what}")
        first = leading(sandbox.endpoints)
        if refusal and not way and first is not None:
            found.append(f"nothing leads out of networks here: {refusal}")
        elif uplink is not None and first is not None:
            if first.gateway6 and not uplink.has_ipv6:
                found.append("IPv6 stays among containers: this machine has no way out for it")
            if news := uplink.news():
                found.append(news)
        networks = {each.network for each in sandbox.endpoints}
        for key, why in self.names.refused.items():
            network, gateway, _ = key.split(" ")
            if network in networks:
                found.append(f"names are not answered at {gateway}: {why}")
        return found

    # --- names ---

    def needs_responder(self, network: Network) -> bool:
        """Whether somebody has to listen for questions on a network."""
        # An ordinary user's responder stands outside, where the machine's resolvers are, with or without an uplink.
        is_way_out = self.own is not None and not network.internal
        return network.has_names or is_way_out or any(map(etc.is_loopback, etc.of_machine().servers))

    def _wanted_names(self, networks: Mapping[int, Network]) -> Wanted:
        """`networks` by their bridges' indices: a bridge that was made again needs other sockets."""
        return {
            f"{network.id} {subnet.gateway} {index}": (
                {"network": network.id},
                partial(_listening, str(subnet.gateway), bridge_name(self.tag, network.id)),
            )
            for index, network in networks.items()
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
        return [end if end is not None else self.bind(port)[1]]

    def bind(self, port: PortMapping) -> tuple[PortMapping, socket.socket]:
        """As `ports.bound`, in the network of this machine."""
        return self.own.outside.bound(port) if self.own is not None else ports.bound(port)

    def blocks(self) -> list[Block]:
        """What no new network may have, since this machine has routes to it."""
        return [*self.links.blocks(), *(self.own.outside.blocks() if self.own is not None else ())]

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

    def attach_again(self, sandboxes: Sequence[Sandbox]) -> None:
        """Containers that live and have lost their links: somebody removed those, or all who held them were killed."""
        there = self.links.ours()
        for sandbox in sandboxes:
            if sandbox.pid and any(each.link not in there for each in sandbox.endpoints):
                with suppress(NetworkError), netns_of(sandbox.pid, sandbox.pid_start) as netns:
                    self.attach(sandbox, netns)

    def end(self) -> None:
        """Nobody needs networks any more: leave nothing."""
        self.settle(())
        self.filter.be(None)
        if self.own is not None:
            self.own.space.end()


def _begin(
    make: Callable[[helper.Poll], helper.Work], is_root: bool, directory: Path, listener: int, lock: int
) -> None:
    process.fork_off(directory, partial(helper.run, listener, lock, make, is_root=is_root), listener, lock)


def leading(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that the default route goes by: the first that leads out."""
    return next((each for each in endpoints if each.gateway or each.gateway6), None)


def port_key(sandbox: Sandbox, port: PortMapping) -> str:
    """What a published port of a container is known by among helpers."""
    return f"{sandbox.container} {port.protocol} {port.host_address} {port.host_port} {port.container_port}"


def _listening(address: str, bridge: str) -> list[socket.socket]:
    """Sockets for questions that come over this bridge, of UDP and of TCP. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ends: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            end = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            ends.append(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                # Questions wait while a busy machine lets the responder wait: the usual room is for two hundred.
                end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUESTIONS_BYTES)
            # A gateway is an address of this machine's, which other networks and other machines have a way to.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
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
