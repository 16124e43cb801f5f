"""What a container's /etc/hosts and /etc/resolv.conf say, by docker's rules. Pure, but for reading the machine's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from nbcontain.network.model import Sandbox, Wish
from nbcontain.values import dataclass

GATEWAY = "host-gateway"
RESOLV_CONF = "/etc/resolv.conf"
"""This machine's."""
HOSTS_BYTES = 1 << 20
"""What a container's /etc/hosts may have to be changed for it: it may write to it whatever it likes."""
_LOOPBACK = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_SERVERS = 3
"""What resolvers look at (resolv.conf(5), MAXNS)."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolv.conf (resolv.conf(5))."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Resolver:
        """What it says; whatever cannot be read is left out."""
        servers: list[str] = []
        search: tuple[str, ...] = ()
        options: tuple[str, ...] = ()
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith(("#", ";")):
                continue
            match words[0]:
                case "nameserver" if len(words) > 1 and _is_address(words[1]):
                    servers.append(words[1])
                case "search" | "domain":
                    search = tuple(words[1:])
                case "options":
                    options = (*options, *words[1:])
        return cls(tuple(servers), search, options)

    def text(self) -> str:
        lines = [f"nameserver {each}" for each in self.servers]
        # "." is docker's word for no search at all.
        search = [each for each in self.search if each != "."]
        lines += [f"search {' '.join(search)}"] if search else []
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "\n".join(lines) + "\n" if lines else ""


def of_machine() -> Resolver:
    """What this machine's own resolv.conf says; nothing where it cannot be read."""
    try:
        return Resolver.parse(Path(RESOLV_CONF).read_text(errors="replace"))
    except OSError:
        return Resolver()


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(server: str) -> bool:
    """Whether a resolver is this machine itself, which is somebody else seen from a network of its own."""
    return ip_address(server.partition("%")[0]).is_loopback


def resolver(wish: Wish, host: Resolver, gateways: Sequence[str], *, has_names: bool) -> Resolver:
    """What a container asks for names.

    `gateways` are where our responder listens for it. It is asked where containers have names; and elsewhere where the
    host's own resolvers are out of the container's reach.
    """
    search = wish.search or host.search
    options = wish.resolver_options or host.options
    if gateways and has_names:
        # It passes on to --dns what it does not know itself.
        return Resolver(tuple(gateways[:1]), search, options)
    if wish.servers:
        return Resolver(wish.servers[:_SERVERS], search, options)
    reachable = tuple(each for each in host.servers if not is_loopback(each))
    if gateways and len(reachable) < len(host.servers):
        return Resolver(tuple(gateways[:1]), search, options)
    return Resolver(reachable[:_SERVERS], search, options)


def of_host(wish: Wish, text: str) -> str:
    """The resolv.conf of a container that has the host's network: the host's own, unless something else was asked."""
    if not (wish.servers or wish.search or wish.resolver_options):
        return text
    host = Resolver.parse(text)
    return Resolver(
        wish.servers[:_SERVERS] or host.servers, wish.search or host.search, wish.resolver_options or host.options
    ).text()


def hosts(sandbox: Sandbox, added: Iterable[tuple[str, str]], gateway: str) -> str:
    """/etc/hosts: loopback, --add-host, and what the container itself is called at each of its addresses.

    `gateway` is what host-gateway stands for; without one such lines are left out.
    """
    lines = [_LOOPBACK]
    for name, address in added:
        shown = gateway if address == GATEWAY else address
        if shown:
            lines.append(f"{shown}\t{name}\n")
    return "".join((*lines, *(f"{line}\n" for line in _own(sandbox))))


def changed_hosts(text: str, before: Sandbox, after: Sandbox) -> str:
    """The same file when a network came or went: what else somebody wrote into it stays."""
    old = _own(before)
    kept = [line for line in text.splitlines() if line not in old]
    return "".join(f"{line}\n" for line in (*kept, *_own(after)))


def _own(sandbox: Sandbox) -> list[str]:
    addresses = [address for each in sandbox.endpoints for address in (each.address, each.address6) if address]
    return [f"{address}\t{sandbox.called}" for address in addresses if sandbox.called]
