"""docker's words for networks, read: --network, -p, --expose, --mac-address … Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from nbcontain.errors import UsageError
from nbcontain.network.model import Attachment, PortMapping
from nbcontain.values import replace

LOOPBACK = "127.0.0.1"
"""Where a port is published unless an address is named: this machine alone, since notebooks run on shared ones."""
PROTOCOLS = ("tcp", "udp")
_LAST_PORT = 65535
_MAC = r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}"
_PORTS = r"([0-9]+)(?:-([0-9]+))?"
_PUBLISH_HINT = "-p [ADDRESS:][HOST_PORT:]CONTAINER_PORT[/tcp|/udp], as in 8080:80 or 0.0.0.0:53:53/udp"


def published(text: str) -> tuple[PortMapping, ...]:
    """-p: [[address:][host]:]container[/protocol], ports or ranges of them; published=…,target=…. Raises UsageError."""
    said = _standard(text)
    rest, _, protocol = said.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        why = "of SCTP nothing is forwarded here" if protocol == "sctp" else "tcp and udp are"
        raise UsageError(f"-p {text}: invalid proto: {protocol}", why=why, hint=_PUBLISH_HINT)
    address, host, container = _parts(rest, text)
    first, last = _range(container, text, "containerPort")
    if not host:
        return tuple(PortMapping(number, protocol, address) for number in range(first, last + 1))
    begin, end = _range(host, text, "hostPort", least=0)
    if end - begin == last - first:
        return tuple(
            PortMapping(first + offset, protocol, address, begin + offset) for offset in range(last - first + 1)
        )
    if first == last:
        return (PortMapping(first, protocol, address, begin, end),)
    raise UsageError(
        f"invalid ranges specified for container and host Ports: {container} and {host}", hint=_PUBLISH_HINT
    )


def _standard(text: str) -> str:
    """published=8080,target=80,protocol=udp as docker's short form."""
    if "=" not in text:
        return text
    fields = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not separator or name not in ("published", "target", "protocol", "mode"):
            raise UsageError(f"-p {text}: invalid publish options format", why=f"{part!r} is none", hint=_PUBLISH_HINT)
        fields[name] = value
    if not fields.get("target"):
        raise UsageError(f"-p {text}: invalid publish options format", why="target= is missing", hint=_PUBLISH_HINT)
    host = f"{fields['published']}:" if fields.get("published") else ""
    return f"{host}{fields['target']}/{fields.get('protocol', 'tcp')}"


def _parts(text: str, whole: str) -> tuple[str, str, str]:
    """Address, host's ports, container's ports."""
    address = LOOPBACK
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]:")
        if not closed:
            raise UsageError(f"-p {whole}: an IPv6 address stands in brackets", hint="-p [::1]:8080:80")
        address, text, has_address = inside, rest, True
    else:
        has_address = text.count(":") >= 2
        if has_address:
            address, _, text = text.rpartition(":")[0].rpartition(":")[0], "", ":".join(text.rsplit(":", 2)[1:])
    host, _, container = text.rpartition(":")
    if not container:
        raise UsageError(f"no port specified: {whole}<empty>", hint=_PUBLISH_HINT)
    if not has_address:
        return LOOPBACK, host, container
    if ":" in address and not whole.startswith("["):
        raise UsageError(f"-p {whole}: an IPv6 address stands in brackets", hint="-p [::1]:8080:80")
    from ipaddress import ip_address

    try:
        if address == "localhost":
            address = LOOPBACK
        return str(ip_address(address)), host, container
    except ValueError:
        raise UsageError(f"invalid IP address: {address}", hint=_PUBLISH_HINT) from None


def _range(text: str, whole: str, what: str, least: int = 1) -> tuple[int, int]:
    match = re.fullmatch(_PORTS, text)
    if match is None:
        raise UsageError(f"invalid {what}: {text}", hint=_PUBLISH_HINT)
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not least <= first <= last <= _LAST_PORT:
        raise UsageError(f"invalid {what}: {text}", why=f"ports are {least or 1} to {_LAST_PORT}", hint=_PUBLISH_HINT)
    return first, last


def exposed(text: str) -> tuple[str, ...]:
    """--expose and EXPOSE: a port or a range, as 80/tcp each. Raises UsageError."""
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in (*PROTOCOLS, "sctp") or ":" in ports:
        raise UsageError(f"invalid range format for --expose: {text}", hint="--expose 80, or --expose 53/udp")
    first, last = _range(ports, text, "range format for --expose")
    return tuple(f"{number}/{protocol}" for number in range(first, last + 1))


def unasked(exposed_ports: Sequence[str], asked: Sequence[PortMapping]) -> Iterator[PortMapping]:
    """-P: a free port of this machine for each exposed one that -p says nothing of."""
    said = {(each.container_port, each.protocol) for each in asked}
    for text in dict.fromkeys(exposed_ports):
        number, _, protocol = text.partition("/")
        if protocol in PROTOCOLS and (int(number), protocol) not in said:
            yield PortMapping(int(number), protocol)


def mac_address(text: str) -> str:
    """A MAC that a device can have. Raises UsageError."""
    if re.fullmatch(_MAC, text) is None:
        raise UsageError(f"{text} is not a valid mac address", hint="--mac-address 92:d0:c6:0a:29:33")
    normal = text.lower().replace("-", ":")
    if int(normal[:2], 16) & 1 or normal == "00:00:00:00:00:00":
        raise UsageError(f"{text} is not a valid mac address", why="it is a group's, or nobody's")
    return normal


def address_of(text: str, version: int, flag: str) -> str:
    """Raises UsageError."""
    from ipaddress import ip_address

    try:
        found = ip_address(text)
    except ValueError:
        raise UsageError(
            f"{flag} {text}: that is no address", hint=f"{flag} {'10.5.0.9' if version == 4 else 'fd00::9'}"
        ) from None
    if found.version != version:
        raise UsageError(f"{flag} {text}: that is no IPv{version} address")
    return str(found)


def attachment(text: str) -> Attachment:
    """--network: a name, or name=…,ip=…,ip6=…,alias=…,mac-address=…. Raises UsageError."""
    if "=" not in text:
        return Attachment(text)
    found = Attachment("")
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not separator:
            raise UsageError(f"--network {text}: invalid field {part}", hint="--network name=lab,ip=10.5.0.9")
        match name.strip().lower():
            case "name":
                found = replace(found, network=value)
            case "ip":
                found = replace(found, address=address_of(value, 4, "--network ip="))
            case "ip6":
                found = replace(found, address6=address_of(value, 6, "--network ip6="))
            case "alias":
                found = replace(found, aliases=(*found.aliases, checked_alias(value)))
            case "mac-address":
                found = replace(found, mac=mac_address(value))
            case "driver-opt" | "gw-priority" | "link-local-ip" as other:
                raise UsageError(
                    f"--network {text}: {other} is not here", hint="name, ip, ip6, alias and mac-address are"
                )
            case other:
                raise UsageError(
                    f"--network {text}: invalid field key {other}", hint="name, ip, ip6, alias, mac-address"
                )
    if not found.network:
        raise UsageError(f"--network {text}: network name is missing", hint="--network name=lab,ip=10.5.0.9")
    return found


_ALIAS = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?"


def checked_alias(text: str) -> str:
    """A further name on a network. Raises UsageError."""
    if re.fullmatch(_ALIAS, text) is None:
        raise UsageError(f"--network-alias {text!r} is no name of a host", hint="letters, digits, _ . and -")
    return text


def pairs(texts: Sequence[str]) -> Mapping[str, str]:
    """NAME=value, as driver options are given."""
    return dict(text.partition("=")[::2] for text in texts)


def check_mtu(options: Mapping[str, str]) -> None:
    """Raises UsageError for an MTU that no link can have."""
    for name in ("com.docker.network.driver.mtu", "mtu"):
        text = options.get(name, "1500")
        if not text.isdigit() or not 68 <= int(text) <= 65535:
            raise UsageError(f"network create: {name}={text} is no MTU", hint=f"-o {name}=1400")


def subnets(blocks: Sequence[str], gateways: Sequence[str], ranges: Sequence[str]) -> list[list[str]]:
    """Each subnet with its gateway and range, as they were given beside each other. Raises UsageError."""
    from ipaddress import ip_address, ip_network

    found = [[each, "", ""] for each in blocks]
    for place, what, texts in ((1, "gateway", gateways), (2, "range", ranges)):
        for text in texts:
            for each in found:
                with suppress(ValueError):
                    block = ip_network(each[0], strict=False)
                    address = ip_address(text.partition("/")[0])
                    if not each[place] and address.version == block.version and address in block:
                        each[place] = text
                        break
            else:
                raise UsageError(f"network create: no matching subnet for {what} {text}", hint="--subnet 10.5.0.0/24")
    versions = [ip_version(each[0]) for each in found]
    if len(set(versions)) < len(versions):
        raise UsageError("network create: one subnet of each kind, IPv4 and IPv6", hint="a second network, and connect")
    return found


def ip_version(block: str) -> int:
    """Of a block, as text."""
    return 6 if ":" in block else 4
