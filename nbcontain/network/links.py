"""Links, addresses and routes, with pyroute2. Run by the worker, which is single-threaded: it changes namespaces."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from nbcontain.errors import NetworkError
from nbcontain.linux import syscalls
from nbcontain.network.model import Block, Endpoint, Network, is_ours, mac_of
from nbcontain.network.netlink import CREATE, EXCLUSIVE, REPLACE, ROUTE, Attribute, Netlink, encoded

_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_NO_DUPLICATES = 0x02
"""IFA_F_NODAD: an address that nobody else can have need not be asked around for."""
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE = 16, 17, 20, 24, 25
_UP = 1
_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg."""
_ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg."""
_ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg."""
Order = tuple[int, int, bytes]
_GONE = (errno.ESRCH, errno.ENOENT, errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""What a route that is not there is answered with."""
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_LARGEST = 65520
_NOBODY = "02:6e:62:00:00:ff"
_CONF6 = Path("/proc/sys/net/ipv6/conf")


class Links:
    """The links of the network namespace that this process stood in when it made one of these."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._route = IPRoute()
        self._netlink = Netlink(ROUTE)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._made: set[str] = set()
        """Bridges that are known to be as they should."""

    # --- what there is ---

    def ours(self) -> set[str]:
        """The names of the links that this store made."""
        return {name for _, name in socket.if_nameindex() if is_ours(self._tag, name)}

    def blocks(self) -> list[Block]:
        """What this machine has routes to, but for its default ones and those of our own bridges."""
        return routed(self._route, {socket.if_nametoindex(name) for name in self.ours()})

    def bring_loopback_up(self) -> None:
        """In a namespace that was made here, what is this machine's own is out of reach until then."""
        self._route.link("set", index=1, state="up")

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
                gateway = subnet.gateway
                flags = {"flags": _NO_DUPLICATES} if gateway.version == 6 else {}
                with _if_not_there():
                    self._route.addr(
                        "add", index=index, address=str(gateway), prefixlen=subnet.block.prefixlen, **flags
                    )
        if not network.internal:
            forward(has_ipv6=has_ipv6)
        self._made.add(name)
        return index

    def remove(self, name: str) -> None:
        """Remove a link of ours; a veth goes with its other end. Idempotent."""
        self._made.discard(name)
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return
        try:
            self._route.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise

    # --- the way out ---

    def has(self, name: str) -> bool:
        """Whether there is a link of that name."""
        return any(name == each for _, each in socket.if_nameindex())

    def lay_out(
        self, near: tuple[str, str], far: tuple[str, str], addresses: Sequence[tuple[str, int, str]]
    ) -> None:
        """A pair of links, each a name and a MAC, that default routes lead to. Idempotent. Raises NetworkError.

        `addresses` are of the near end, with their prefix and the gateway; where it cannot have IPv6, those of IPv4
        are laid out alone. The gateway's MAC is written down, and is not that of the far end: whoever reads there has
        what is sent to it, and the kernel does not.
        """
        with _told("cannot make a link that leads out"):
            if not self.has(far[0]):
                peer = {"ifname": far[0], "address": far[1]}
                self._route.link("add", ifname=near[0], address=near[1], kind="veth", peer=peer, mtu=_LARGEST)
            for name in (far[0], near[0]):
                _write(_CONF6 / name / "disable_ipv6", "1" if name == far[0] else "0")
                # Each datagram by itself, as who reads there wants it.
                self._route.link("set", index=socket.if_nametoindex(name), state="up", mtu=_LARGEST, gso_max_segs=1)
            families = (_IPV4, _IPV6) if _read(_CONF6 / near[0] / "disable_ipv6") == "0" else (_IPV4,)
            index = socket.if_nametoindex(near[0])
            for address, prefix, gateway in addresses:
                family = _IPV6 if ":" in address else _IPV4
                if family not in families:
                    continue
                flags = {"flags": _NO_DUPLICATES} if family == _IPV6 else {}
                with _if_not_there():
                    self._route.addr("add", index=index, address=address, prefixlen=prefix, **flags)
                known = {"family": family, "dst": gateway, "lladdr": _NOBODY, "ifindex": index}
                self._route.neigh("replace", state="permanent", **known)
                self._route.route("replace", family=family, dst="default", gateway=gateway, oif=index)

    # --- containers ---

    def attach(self, netns: int, endpoints: Sequence[tuple[Endpoint, int, int]], leading: Endpoint | None) -> None:
        """Give the container whose network namespace this is its links, addresses and default route. Idempotent.

        `endpoints` come with the index of their bridge and an MTU, 0 being the kernel's; `leading` is the one that
        leads out. Raises NetworkError.
        """
        with _told("cannot connect the container to its networks"):
            with self.inside(netns):
                there = {name: index for index, name in socket.if_nameindex()}
                inside = Netlink(ROUTE)
            with closing(inside):
                ours = self.ours() if any(endpoint.device in there for endpoint, _, _ in endpoints) else ()
                for endpoint, bridge, mtu in endpoints:
                    index = there.get(endpoint.device)
                    if index is not None and endpoint.link in ours:
                        continue
                    if index is not None:
                        # Its other end was in a namespace that is gone: the kernel takes it away too, but later.
                        inside.ask([(_DELETE_LINK, 0, _LINK.pack(0, 0, index, 0, 0))], (errno.ENODEV,))
                    self.remove(endpoint.link)
                    self._netlink.ask([_new_veth(endpoint, bridge, mtu, netns)])
                    _write(_CONF6 / endpoint.link / "disable_ipv6", "1")
                with self.inside(netns):
                    orders: list[Order] = []
                    led = 0
                    for endpoint, _, _ in endpoints:
                        # What says that it is a router is not believed: it could be another container (CVE-2020-13401).
                        _write(_CONF6 / endpoint.device / "accept_ra", "0")
                        _write(_CONF6 / endpoint.device / "disable_ipv6", "0" if endpoint.address6 else "1")
                        index = socket.if_nametoindex(endpoint.device)
                        orders += _configured(endpoint, index)
                        led = index if endpoint == leading else led
                    inside.ask([*orders, *_led(leading, led)], (errno.EEXIST,))
                    if len(there) > 1:
                        # Not in a new namespace: there may be routes of before.
                        inside.ask(_not_led(leading), _GONE)

    def lead_out(self, netns: int, leading: Endpoint | None) -> None:
        """Have a container's default routes go by this endpoint; None has none. Raises NetworkError."""
        with _told("cannot set the default route"), self.inside(netns), closing(Netlink(ROUTE)) as inside:
            inside.ask(_led(leading, socket.if_nametoindex(leading.device) if leading is not None else 0))
            inside.ask(_not_led(leading), _GONE)

    @contextmanager
    def inside(self, netns: int) -> Iterator[None]:
        """Be in another network namespace for a moment."""
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)


def routed(route: IPRoute, own: Collection[int]) -> list[Block]:
    """What there are routes to, but for default ones and those by the interfaces with these indices."""
    found: list[Block] = []
    for family in (_IPV4, _IPV6):
        for each in route.get_routes(family=family, table=254):
            target, device = each.get_attr("RTA_DST"), each.get_attr("RTA_OIF")
            if target and each["dst_len"] and device not in own:
                found.append(ip_network(f"{target}/{each['dst_len']}", strict=False))
    return found


# --- messages (rtnetlink(7), linux/if_link.h) -------------------------------------------------------


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


def _new_veth(endpoint: Endpoint, bridge: int, mtu: int, netns: int) -> Order:
    """A pair of links: one end up on the bridge, the other inside."""
    size: list[Attribute] = [(4, _number(mtu))] if mtu else []
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    peer = _LINK.pack(0, 0, 0, 0, 0) + encoded([(3, endpoint.device), (1, mac), (28, _number(netns)), *size])
    info: list[Attribute] = [(1, b"veth"), (2, [(1, peer)])]
    body = _LINK.pack(0, 0, 0, _UP, _UP) + encoded([(3, endpoint.link), (10, _number(bridge)), (18, info), *size])
    return _NEW_LINK, CREATE | EXCLUSIVE, body


def _configured(endpoint: Endpoint, index: int) -> list[Order]:
    """A link inside: up, and with its addresses."""
    orders: list[Order] = [(_NEW_LINK, 0, _LINK.pack(0, 0, index, _UP, _UP))]
    for text, prefix in ((endpoint.address, endpoint.prefix), (endpoint.address6, endpoint.prefix6)):
        if text:
            address = ip_address(text)
            told: list[Attribute] = [(1, address.packed), (2, address.packed)]
            if address.version == 4:
                told.append((4, ip_network(f"{text}/{prefix}", strict=False).broadcast_address.packed))
            else:
                told.append((8, _number(_NO_DUPLICATES)))
            family = _IPV4 if address.version == 4 else _IPV6
            orders.append(
                (_NEW_ADDRESS, CREATE | EXCLUSIVE, _ADDRESS.pack(family, prefix, 0, 0, index) + encoded(told))
            )
    return orders


def _led(leading: Endpoint | None, index: int) -> list[Order]:
    """The default routes by this endpoint, whose link has this index."""
    return [
        _default_route(_NEW_ROUTE, CREATE | REPLACE, family, gateway, index)
        for family, gateway in _gateways(leading)
        if gateway
    ]


def _not_led(leading: Endpoint | None) -> list[Order]:
    """No default route of a family that this endpoint does not lead out."""
    return [
        _default_route(_DELETE_ROUTE, 0, family, "", 0) for family, gateway in _gateways(leading) if not gateway
    ]


def _gateways(leading: Endpoint | None) -> tuple[tuple[int, str], tuple[int, str]]:
    return (_IPV4, leading.gateway if leading else ""), (_IPV6, leading.gateway6 if leading else "")


def _default_route(kind: int, flags: int, family: int, gateway: str, index: int) -> Order:
    """Of the main table (254), as an administrator's (4), for single destinations (1)."""
    told: list[Attribute] = [(5, ip_address(gateway).packed), (4, _number(index))] if gateway else []
    return (
        kind,
        flags,
        _ROUTE.pack(family, 0, 0, 0, 254, 4 if gateway else 0, 0, 1 if gateway else 0, 0) + encoded(told),
    )


# --- knobs ------------------------------------------------------------------------------------------


def forward(*, has_ipv6: bool) -> None:
    """Have this machine pass packets on, as every container engine does, and nobody switches off again."""
    _write(_FORWARDING, "1")
    if has_ipv6 and _read(_CONF6 / "all" / "forwarding") == "0":
        # Who forwards listens to no router any more, unless told to: the machine would lose its own IPv6.
        for name in os.listdir(_CONF6) if _CONF6.is_dir() else ():
            if name not in ("all", "default") and _read(_CONF6 / name / "accept_ra") == "1":
                _write(_CONF6 / name / "accept_ra", "2")
        _write(_CONF6 / "all" / "forwarding", "1")


def believe_routers() -> None:
    """Have links that are made from now on believe who says that it is a router, although we pass packets on."""
    _write(_CONF6 / "default" / "accept_ra", "2")


def _read(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode().strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


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
