"""Links, addresses and routes, with pyroute2. Run by the worker, which is single-threaded: it changes namespaces."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from nbcontain.errors import NetworkError
from nbcontain.linux import syscalls
from nbcontain.network.model import Block, Endpoint, Network, is_ours, mac_of

_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_NO_DUPLICATES = 0x02
"""IFA_F_NODAD: an address that nobody else can have need not be asked around for."""
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_CONF6 = Path("/proc/sys/net/ipv6/conf")


class Links:
    """The links of the network namespace that this process stood in when it made one of these."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._route = IPRoute()
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._made: set[str] = set()
        """Bridges that are known to be as they should."""

    def close(self) -> None:
        self._route.close()
        os.close(self._home)

    # --- what there is ---

    def ours(self) -> set[str]:
        """The names of the links that this store made."""
        return {name for _, name in socket.if_nameindex() if is_ours(self._tag, name)}

    def blocks(self) -> list[Block]:
        """What this machine has routes to, but for its default ones and those of our own bridges."""
        own = {socket.if_nametoindex(name) for name in self.ours()}
        found: list[Block] = []
        for family in (_IPV4, _IPV6):
            for route in self._route.get_routes(family=family, table=254):
                target, device = route.get_attr("RTA_DST"), route.get_attr("RTA_OIF")
                if target and route["dst_len"] and device not in own:
                    found.append(ip_network(f"{target}/{route['dst_len']}", strict=False))
        return found

    # --- bridges ---

    def ensure_bridge(self, name: str, network: Network) -> int:
        """A network's bridge, up, with the gateways' addresses; gives its index. Idempotent. Raises NetworkError."""
        with suppress(OSError):
            index = socket.if_nametoindex(name)
            if name in self._made:
                return index
        with _told(f"cannot make the bridge of {network.name}"):
            # With a MAC of its own: it would take the lowest of its ports', and change it whenever one comes or goes.
            with _if_not_there():
                self._route.link("add", ifname=name, kind="bridge", address=mac_of("", network.id))
            index = socket.if_nametoindex(name)
            self._route.link("set", index=index, state="up", **({"mtu": network.mtu} if network.mtu else {}))
            has_ipv6 = network.subnet(6) is not None
            _write(_CONF6 / name / "disable_ipv6", "0" if has_ipv6 else "1")
            _write(_CONF6 / name / "accept_ra", "0")
            for subnet in network.subnets:
                with _if_not_there():
                    self._address(self._route, index, str(subnet.gateway), subnet.block.prefixlen)
        if not network.internal:
            forward(has_ipv6=has_ipv6)
        self._made.add(name)
        return index

    def remove(self, name: str) -> None:
        """Remove a link of ours; a veth goes with its other end. Idempotent."""
        self._made.discard(name)
        try:
            index = socket.if_nametoindex(name)
            self._route.link("del", index=index)
        except (OSError, NetlinkError) as error:
            if _code(error) not in (errno.ENODEV, errno.ENXIO, errno.ENOENT):
                raise

    # --- containers ---

    def attach(self, netns: int, endpoint: Endpoint, bridge: int, mtu: int) -> None:
        """Give the container whose network namespace this is a link to a bridge, with its addresses. Idempotent.

        Raises NetworkError.
        """
        with _told(f"cannot connect to {endpoint.network_name}"):
            size = {"mtu": mtu} if mtu else {}
            with self._inside(netns):
                is_there = endpoint.device in {name for _, name in socket.if_nameindex()}
            if not is_there:
                self.remove(endpoint.link)
                self._route.link(
                    "add", ifname=endpoint.link, kind="veth", master=bridge, state="up", **size,
                    peer={"ifname": endpoint.device, "address": endpoint.mac, "net_ns_fd": netns, **size},
                )  # fmt: skip
                _write(_CONF6 / endpoint.link / "disable_ipv6", "1")
            with self._inside(netns), closing(IPRoute()) as route:
                index = socket.if_nametoindex(endpoint.device)
                # What says that it is a router is not believed: it could be another container (CVE-2020-13401).
                _write(_CONF6 / endpoint.device / "accept_ra", "0")
                _write(_CONF6 / endpoint.device / "disable_ipv6", "0" if endpoint.address6 else "1")
                route.link("set", index=index, state="up")
                for address, prefix in ((endpoint.address, endpoint.prefix), (endpoint.address6, endpoint.prefix6)):
                    if address:
                        with _if_not_there():
                            self._address(route, index, address, prefix)

    def lead_out(self, netns: int, endpoint: Endpoint | None) -> None:
        """Have a container's default routes go by this endpoint; None has none. Raises NetworkError."""
        with _told("cannot set the default route"), self._inside(netns), closing(IPRoute()) as route:
            for family, any_of in ((_IPV4, "0.0.0.0/0"), (_IPV6, "::/0")):
                gateway = "" if endpoint is None else endpoint.gateway if family == _IPV4 else endpoint.gateway6
                if gateway and endpoint is not None:
                    index = socket.if_nametoindex(endpoint.device)
                    route.route("replace", dst=any_of, gateway=gateway, oif=index, family=family)
                else:
                    with suppress(NetlinkError):
                        route.route("del", dst=any_of, family=family)

    @contextmanager
    def _inside(self, netns: int) -> Iterator[None]:
        """Be in another network namespace for a moment."""
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)

    def inside(self, netns: int) -> Any:
        return self._inside(netns)

    @staticmethod
    def _address(route: IPRoute, index: int, address: str, prefix: int) -> None:
        if ":" in address:
            route.addr("add", index=index, address=address, prefixlen=prefix, family=_IPV6, flags=_NO_DUPLICATES)
        else:
            broadcast = str(ip_network(f"{address}/{prefix}", strict=False).broadcast_address)
            route.addr("add", index=index, address=address, prefixlen=prefix, broadcast=broadcast)


def forward(*, has_ipv6: bool) -> None:
    """Have this machine pass packets on, as every container engine does, and nobody switches off again."""
    _write(_FORWARDING, "1")
    if has_ipv6 and _read(_CONF6 / "all" / "forwarding") == "0":
        # Who forwards listens to no router any more, unless told to: the machine would lose its own IPv6.
        for name in os.listdir(_CONF6) if _CONF6.is_dir() else ():
            if name not in ("all", "default") and _read(_CONF6 / name / "accept_ra") == "1":
                _write(_CONF6 / name / "accept_ra", "2")
        _write(_CONF6 / "all" / "forwarding", "1")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    """Set a knob of the kernel; without IPv6, or where /proc/sys is read-only, it stays as it is."""
    if _read(path) in (value, ""):
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, value.encode())
    except OSError:
        pass
    finally:
        os.close(fd)


@contextmanager
def _if_not_there() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _code(error: BaseException) -> int:
    return int(getattr(error, "code", 0) or getattr(error, "errno", 0) or 0)


@contextmanager
def _told(message: str) -> Iterator[None]:
    """The kernel's refusals, as NetworkError."""
    try:
        yield
    except (OSError, NetlinkError) as error:
        raise NetworkError(message, why=os.strerror(_code(error)) if _code(error) else str(error)) from error
