"""Networks, and a container's place on them, as docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nbcontain.network.model import Endpoint, Network, PortMapping, Sandbox, Wish
from nbcontain.oci.digest import sha256


def network_document(network: Network, sandboxes: Sequence[Sandbox], way_out: str = "") -> dict[str, Any]:
    """What `network inspect` tells; `sandboxes` are those of the running containers on it.

    `way_out` is what leads out of bridges, in words: ours, docker has nothing of the kind.
    """
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": network.subnet(6) is not None,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": str(each.block), **({"IPRange": str(each.range)} if each.range else {}),
                    "Gateway": str(each.gateway),
                }
                for each in network.subnets
            ],
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            each.container: {
                "Name": each.name, "EndpointID": endpoint_id(each, there), "MacAddress": there.mac,
                "IPv4Address": f"{there.address}/{there.prefix}" if there.address else "",
                "IPv6Address": f"{there.address6}/{there.prefix6}" if there.address6 else "",
            }
            for each in sandboxes
            if (there := each.on(network.id)) is not None
        },
        "Options": dict(network.options),
        "Labels": dict(network.labels),
        **({"WayOut": way_out} if way_out and network.driver == "bridge" and not network.internal else {}),
    }  # fmt: skip


def endpoint_id(sandbox: Sandbox, endpoint: Endpoint) -> str:
    """docker's id of a container's place on a network: the same each time it is asked for."""
    return sha256(f"{sandbox.container} {endpoint.network}".encode()).hexdigest()


def settings(wish: Wish, sandbox: Sandbox | None) -> dict[str, Any]:
    """NetworkSettings of `container inspect`; `sandbox` is None while it does not run."""
    endpoints = sandbox.endpoints if sandbox is not None else ()
    first = endpoints[0] if endpoints else None
    networks = {each.network_name: _endpoint(wish, sandbox, each) for each in endpoints} if sandbox else {}
    if not networks:
        names = [each.network for each in wish.attachments] or [wish.mode]
        networks = {name: _endpoint(wish, None, None, name) for name in names if not name.startswith("container:")}
    return {
        "SandboxID": sha256(sandbox.container.encode()).hexdigest() if sandbox is not None else "",
        "SandboxKey": f"/proc/{sandbox.pid}/ns/net" if sandbox is not None and sandbox.pid else "",
        "Bridge": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint_id(sandbox, first) if sandbox is not None and first else "",
        "Ports": port_document(wish.exposed, sandbox.ports if sandbox is not None else ()),
        "IPAddress": first.address if first else "",
        "IPPrefixLen": first.prefix if first else 0,
        "Gateway": first.gateway if first else "",
        "MacAddress": first.mac if first else "",
        "GlobalIPv6Address": first.address6 if first else "",
        "GlobalIPv6PrefixLen": first.prefix6 if first and first.address6 else 0,
        "IPv6Gateway": first.gateway6 if first else "",
        "Networks": networks,
    }


def _endpoint(wish: Wish, sandbox: Sandbox | None, endpoint: Endpoint | None, name: str = "") -> dict[str, Any]:
    name = endpoint.network_name if endpoint is not None else name
    asked = next(
        (each for each in wish.attachments if each.network in (name, endpoint.network if endpoint else "")), None
    )
    fixed = {}
    if asked is not None:
        fixed = {key: text for key, text in (("IPv4Address", asked.address), ("IPv6Address", asked.address6)) if text}
    is_there = endpoint is not None and sandbox is not None
    return {
        "IPAMConfig": fixed or None,
        "Links": None,
        "DriverOpts": None,
        "Aliases": list(asked.aliases) if asked is not None and asked.aliases else None,
        "MacAddress": endpoint.mac if endpoint else (asked.mac if asked else ""),
        "NetworkID": endpoint.network if endpoint else "",
        "EndpointID": endpoint_id(sandbox, endpoint) if endpoint is not None and sandbox is not None else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.address6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint and endpoint.address6 else 0,
        "DNSNames": list(endpoint.names(sandbox)) if is_there and endpoint and sandbox else None,
    }


def port_document(exposed: Sequence[str], ports: Sequence[PortMapping]) -> dict[str, list[dict[str, str]] | None]:
    """docker's: 80/tcp, and where that is published; None for what is only exposed."""
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed)
    for port in ports:
        key = f"{port.container_port}/{port.protocol}"
        found[key] = [*(found.get(key) or ()), {"HostIp": port.host_address, "HostPort": str(port.host_port)}]
    return dict(sorted(found.items(), key=lambda each: (int(each[0].partition("/")[0]), each[0])))


def shown_ports(exposed: Sequence[str], ports: Sequence[PortMapping]) -> str:
    """`ps`' PORTS: 127.0.0.1:8080->80/tcp, 443/tcp; neighbours as one range."""
    parts: list[str] = []
    known = sorted(ports, key=lambda each: (each.host_address, each.protocol, each.container_port, each.host_port))
    while known:
        run = [known.pop(0)]
        while known and _follows(run[-1], known[0]):
            run.append(known.pop(0))
        first, last = run[0], run[-1]
        if len(run) == 1:
            parts.append(str(first))
        else:
            host, inside = f"{first.host_port}-{last.host_port}", f"{first.container_port}-{last.container_port}"
            parts.append(f"{first.host}:{host}->{inside}/{first.protocol}")
    published = {f"{each.container_port}/{each.protocol}" for each in ports}
    return ", ".join([*parts, *_ranges(each for each in exposed if each not in published)])


def _ranges(exposed: Iterable[str]) -> list[str]:
    """Ports that are only exposed, as docker has them: an image may say so of all there are."""
    runs: list[tuple[int, int, str]] = []
    for protocol, port in sorted((each.partition("/")[2], int(each.partition("/")[0])) for each in exposed):
        if runs and runs[-1][1:] == (port - 1, protocol):
            runs[-1] = (runs[-1][0], port, protocol)
        else:
            runs.append((port, port, protocol))
    return [f"{f'{first}-' if first < last else ''}{last}/{protocol}" for first, last, protocol in sorted(runs)]


def _follows(one: PortMapping, other: PortMapping) -> bool:
    is_same = one.host_address == other.host_address and one.protocol == other.protocol
    return is_same and other.host_port == one.host_port + 1 and other.container_port == one.container_port + 1
