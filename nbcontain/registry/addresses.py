"""Where a registry may send us: the URLs in its answers, and the addresses that they lead to. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urljoin, urlsplit

from nbcontain.errors import BadAddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_WITHIN_CLOUDS = frozenset(map(ipaddress.ip_address, (
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
)))  # fmt: skip
"""Where Alibaba, Oracle, Microsoft and Amazon tell a machine its secrets, besides the link-local 169.254.169.254."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""What a provider's customers share (RFC 6598): neither private nor everybody's."""


def parsed(url: str) -> SplitResult:
    """A URL in its parts, for which a request can be made: whatever is read of them raises nothing more.

    Raises BadAddress. What never comes right is found here, before anything is tried, let alone again.
    """
    try:
        parts = urlsplit(url)
        # Both are read as late as somebody asks.
        _, host = parts.port, parts.hostname or ""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("there are characters in it that no URL has")
        if parts.scheme in ("http", "https") and not host:
            raise ValueError("it names no host")
        host.encode("idna")
    except ValueError as error:
        raise BadAddress(f"nothing can be asked for at {shown(url)!r}", why=_said(error)) from error
    return parts


def joined(base: str, url: str) -> str:
    """What a URL means in an answer from `base`, whole. Raises BadAddress."""
    try:
        found = urljoin(base, url)
    except ValueError as error:
        raise BadAddress(f"nothing can be asked for at {shown(url)!r}", why=_said(error)) from error
    parsed(found)
    return found


def shown(url: str) -> str:
    """A URL without its query, which may hold a signature, and without a user's name and password."""
    scheme, separator, rest = url.partition("?")[0][:500].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else scheme


def check_address(address: str, *, registry_address: str) -> None:
    """Whether a registry at `registry_address` may send us to `address`. Raises BadAddress.

    Never to where clouds keep their machines' credentials; nor to anything that is not everybody's, such as this
    machine or a private network, unless the registry itself is in one like it.
    """
    target = _plain(address)
    home = _plain(registry_address) if registry_address else None
    if target != home and not _is_fine(target, home):
        raise BadAddress(
            f"the registry sends us to {address}", why="an address inside, where a registry has no business"
        )


def _is_fine(target: Address, home: Address | None) -> bool:
    if target in _WITHIN_CLOUDS or target.is_link_local or target.is_multicast or target.is_unspecified:
        return False
    if target.is_loopback:
        return home is not None and home.is_loopback
    if target in _SHARED:
        return home is not None and home in _SHARED
    if target.is_reserved:
        return False
    # Those of RFC 1918 and the like, and what is for tests and papers.
    return target.is_global or (home is not None and home.is_private)


def _plain(address: str) -> Address:
    """An address; of one of IPv6 that stands for one of IPv4, that: a gateway may know the way there."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found
    teredo = found.teredo
    within = found.ipv4_mapped or found.sixtofour or (teredo[1] if teredo else None)
    if within is None and found in _NAT64:
        within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return within or found


def _said(error: ValueError) -> str:
    """What is wrong, in short; of a name for which there is no encoding, only that."""
    return "its host's name is none" if isinstance(error, UnicodeError) else str(error)
