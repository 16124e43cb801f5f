"""From what `run` was told of networks to a wish: docker's rules for which words go together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nbcontain.errors import UsageError
from nbcontain.network import words
from nbcontain.network.model import DEFAULT, Attachment, PortMapping, Wish
from nbcontain.values import replace

JOINED = "container:"
_ALONE = ("host", "none")


class Words(Protocol):
    """docker's flags, as given."""

    @property
    def network(self) -> tuple[str, ...] | str: ...
    @property
    def network_alias(self) -> tuple[str, ...]: ...
    @property
    def ip(self) -> str: ...
    @property
    def ip6(self) -> str: ...
    @property
    def mac_address(self) -> str: ...
    @property
    def publish(self) -> tuple[str, ...]: ...
    @property
    def publish_all(self) -> bool: ...
    @property
    def expose(self) -> tuple[str, ...]: ...
    @property
    def dns(self) -> tuple[str, ...]: ...
    @property
    def dns_search(self) -> tuple[str, ...]: ...
    @property
    def dns_option(self) -> tuple[str, ...]: ...
    @property
    def hostname(self) -> str: ...


def wish(
    said: Words, image_ports: Sequence[str], hosts: Sequence[tuple[str, str]], default: Callable[[], str]
) -> tuple[Wish, tuple[str, ...]]:
    """What a container is to have of networks, and what of what was said will not be. Raises UsageError.

    `default` gives the network of who names none; `image_ports` are the image's EXPOSE, `hosts` what --add-host said.
    """
    texts = (said.network,) if isinstance(said.network, str) else said.network
    found = [words.attachment(each) for each in texts if each] or [Attachment("default")]
    mode = "none" if found[0].network == "null" else found[0].network
    mode = default() if mode == "default" else mode
    found[0] = replace(found[0], network=mode)
    is_alone = mode in _ALONE or mode.startswith(JOINED)
    if len(found) > 1 and any(each.network in _ALONE or each.network.startswith(JOINED) for each in found):
        raise UsageError(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            hint="host, none and container:NAME stand alone",
        )
    if len({each.network for each in found}) < len(found):
        raise UsageError(f"--network: {found[0].network} is named twice", hint="each network once")
    published = tuple(port for text in said.publish for port in words.published(text))
    exposed = tuple(dict.fromkeys(port for text in (*image_ports, *said.expose) for port in words.exposed(text)))
    if said.publish_all:
        published = (*published, *words.unasked(exposed, published))
    # What is published is exposed, too: `inspect` says so, and an image that is made of the container.
    asked = (f"{each.container_port}/{each.protocol}" for each in published)
    exposed = tuple(dict.fromkeys((*exposed, *asked)))
    _refuse(said, mode, published, hosts)
    notices: tuple[str, ...] = ()
    if published and mode == "host":
        notices = ("Published ports are discarded when using host network mode",)
    if is_alone:
        published = ()
    if not is_alone:
        found[0] = _first(said, found)
    return (
        Wish(
            mode, () if is_alone else tuple(found), _distinct(published), exposed,
            tuple(_server(each) for each in said.dns), said.dns_search, said.dns_option, tuple(hosts),
        ),
        notices,
    )  # fmt: skip


def _refuse(said: Words, mode: str, published: Sequence[PortMapping], hosts: Sequence[tuple[str, str]]) -> None:
    """What makes no sense with that network."""
    if mode.startswith(JOINED):
        whose = f"the network is that of {mode.removeprefix(JOINED) or 'another container'}"
        if not mode.removeprefix(JOINED):
            raise UsageError("--network container: names no container", hint="--network container:NAME")
        for is_said, what in (
            (bool(said.hostname), "hostname"), (bool(said.dns), "dns"), (bool(hosts), "custom host-to-IP mapping"),
            (bool(said.mac_address), "mac-address"), (bool(published), "port publishing"),
            (bool(said.expose), "port exposing"),
        ):  # fmt: skip
            if is_said:
                raise UsageError(f"conflicting options: {what} and the container type network mode", why=whose)
    if mode in (*_ALONE, DEFAULT) or mode.startswith(JOINED):
        if said.network_alias:
            raise UsageError(
                "network-scoped alias is supported only for containers in user defined networks",
                why=f"the network is {mode}", hint="%network create lab, and --network lab",
            )  # fmt: skip
        if said.ip or said.ip6:
            raise UsageError(
                "user specified IP address is supported on user defined networks only",
                why=f"the network is {mode}", hint="%network create --subnet 10.5.0.0/24 lab, and --network lab",
            )  # fmt: skip
    if said.mac_address and mode in _ALONE:
        raise UsageError(f"conflicting options: mac-address and the network {mode}")


def _first(said: Words, found: Sequence[Attachment]) -> Attachment:
    """The first network, with what was said beside it: --ip, --ip6, --mac-address, --network-alias."""
    first = found[0]
    for flag, beside, own in (("--ip", said.ip, first.address), ("--ip6", said.ip6, first.address6),
                              ("--mac-address", said.mac_address, first.mac)):  # fmt: skip
        if beside and own:
            raise UsageError(f"conflicting options: cannot specify both {flag} and per-network {flag.lstrip('-')}")
        if beside and len(found) > 1:
            raise UsageError(
                f"conflicting options: {flag}, and several networks", hint=f"--network name={first.network},…"
            )
    return replace(
        first,
        address=first.address or (words.address_of(said.ip, 4, "--ip") if said.ip else ""),
        address6=first.address6 or (words.address_of(said.ip6, 6, "--ip6") if said.ip6 else ""),
        mac=first.mac or (words.mac_address(said.mac_address) if said.mac_address else ""),
        aliases=(*first.aliases, *map(words.checked_alias, said.network_alias)),
    )


def _server(text: str) -> str:
    """--dns. Raises UsageError."""
    from ipaddress import ip_address

    try:
        return str(ip_address(text.strip()))
    except ValueError:
        raise UsageError(f"{text} is not an ip address", hint="--dns 10.0.0.53") from None


def _distinct(ports: Sequence[PortMapping]) -> tuple[PortMapping, ...]:
    return tuple(dict.fromkeys(ports))
