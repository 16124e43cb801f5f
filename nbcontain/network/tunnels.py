"""What leads out of networks: an ordinary user's take a program, root's this machine's forwarding."""

from __future__ import annotations

import os

from nbcontain.values import dataclass

TUN = "/dev/net/tun"
MASQUERADE = "masquerade"
"""What leads out of root's networks: this machine passes on, under its own address."""
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
PROGRAMS = ("pasta", "slirp4netns")
"""The quicker one first."""
SWAP = "socket swap"
"""What leads out where none can be had: connections are made by sockets of this machine's, datagrams are relayed."""
WAY = "way.json"
"""Where it is written which of them leads out, in the uplink's directory."""
_PATH = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"


def there() -> dict[str, str]:
    """Those that are installed, and where."""
    import shutil

    found = {name: shutil.which(name, path=_PATH) for name in PROGRAMS}
    return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True, slots=True)
class WayOut:
    """What leads out of networks."""

    way: str
    """pasta, slirp4netns, SWAP, or MASQUERADE; "" for nothing."""
    why: str = ""
    """Why it is not something better."""
    ipv6: bool = False
    """Whether it leads out by IPv6, too."""
    unrelayed: str = ""
    """Why datagrams do not leave, where connections do."""

    @property
    def text(self) -> str:
        """For people."""
        families = "IPv4 and IPv6" if self.ipv6 else "IPv4"
        rest = f"; datagrams do not leave: {self.unrelayed}" if self.unrelayed else ""
        return f"{self.way}, {families}{rest}" if self.way else "nothing"


def has_default(ipv6_route: str) -> bool:
    """Whether a /proc/net/ipv6_route has a way to everything: one that refuses it (RTF_REJECT, 0x200) is none."""
    routes = [line.split() for line in ipv6_route.splitlines()]
    return any(each[:2] == ["0" * 32, "00"] and not int(each[8], 16) & 0x200 for each in routes)


def leads_out_by_ipv6() -> bool:
    """Whether the network that this process stands in has a default route of IPv6."""
    try:
        with open("/proc/thread-self/net/ipv6_route", encoding="ascii") as file:
            return has_default(file.read())
    except OSError:
        return False


def missing() -> str:
    """Why none of these programs can be had, in words; "" if one can."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        # Whoever installs one has nothing of it.
        return f"{TUN} may not be opened"
    return "" if there() else "neither pasta nor slirp4netns is installed"


def not_forwarding() -> str:
    """Why nothing would lead out of root's networks, in words; "" if something does. In a container /proc/sys is mostly
    read-only, and what its network was made with stays."""
    try:
        with open(FORWARDING) as file:
            is_on = file.read().strip() == "1"
    except OSError:
        is_on = False
    return "" if is_on or os.access(FORWARDING, os.W_OK) else "this machine forwards nothing, and cannot be told to"
