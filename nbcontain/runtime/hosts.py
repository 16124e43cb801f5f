"""Names that a container knows besides those of its resolver: --add-host, and the files that tell them."""

from __future__ import annotations

import re

from nbcontain.errors import UsageError

HOSTS = "org.nbcontain.hosts"
"""Annotation of a spec: further lines for the container's /etc/hosts."""
NETWORK_FILES = ("hosts", "hostname", "resolv.conf")
"""What a bundle has for its container's /etc."""
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?"
_ADDRESS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
"""Patterns that most processes have no use for: compiled by who has."""
_GATEWAY = "host-gateway"
_LONG = 1 << 16


def added(text: str) -> tuple[str, str]:
    """HOST:IP or HOST=IP as (name, address); the address may be host-gateway, and of IPv6 in brackets.

    Raises UsageError.
    """
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not address or re.fullmatch(_NAME, name) is None:
        raise UsageError(f'bad format for add-host: "{text}"', hint="--add-host name:10.0.0.1, or name=10.0.0.1")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != _GATEWAY and not _is_address(address):
        raise UsageError(f'invalid IP address in add-host: "{address}"', hint="--add-host name:10.0.0.1")
    return name, address


def lines(pairs: tuple[tuple[str, str], ...]) -> str:
    """As /etc/hosts has them. This machine is reached at its own loopback, since its network is the container's."""
    return "".join(f"{'127.0.0.1' if address == _GATEWAY else address}\t{name}\n" for name, address in pairs)


def _is_address(text: str) -> bool:
    import socket

    if re.fullmatch(_ADDRESS, text) is None:
        return False
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return False
    return True


def network_files(hostname: str, more_hosts: str = "", *, shares_network: bool = False) -> dict[str, bytes]:
    """The files of /etc that tell a container who it is, whom it knows, and whom to ask for names.

    Whoever shares this machine's network knows whom this machine knows, as with docker; what it is told comes before.
    """
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    if hostname:
        hosts += f"127.0.1.1\t{hostname}\n"
    hosts += more_hosts
    if shares_network:
        hosts += neighbours(_read("/etc/hosts").decode(errors="replace"), hosts)
    texts = (hosts.encode(), f"{hostname}\n".encode(), _read("/etc/resolv.conf"))
    return dict(zip(NETWORK_FILES, texts, strict=True))


def neighbours(text: str, known: str) -> str:
    """What this machine's /etc/hosts says of names that are not `known`, which is written in the same way. Pure."""
    if len(text) > _LONG:
        # A list of whom not to ask, as a rule: the first line of a name is the one that counts (hosts(5)).
        return f"{text.rstrip()}\n"
    names = {name for line in known.splitlines() for name in line.split()[1:]}
    found = ""
    for line in text.splitlines():
        address, *others = line.partition("#")[0].split() or ("",)
        if others := [name for name in others if name not in names]:
            found += f"{address}\t{' '.join(others)}\n"
    return found


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
