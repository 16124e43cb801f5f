"""What leads out of networks: an ordinary user's take a program, root's this machine's forwarding."""

from __future__ import annotations

import os

TUN = "/dev/net/tun"
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
PROGRAMS = ("pasta", "slirp4netns")
"""The quicker one first."""
SWAP = "socket swap"
"""What leads out where none of them can be had: connections are made by sockets of this machine's, datagrams relayed."""
_PATH = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"


def there() -> dict[str, str]:
    """Those that are installed, and where."""
    import shutil

    found = {name: shutil.which(name, path=_PATH) for name in PROGRAMS}
    return {name: path for name, path in found.items() if path is not None}


def missing() -> str:
    """Why none of these programs can be had, in words; "" if one can."""
    if not there():
        return "neither pasta nor slirp4netns is installed"
    return "" if os.access(TUN, os.R_OK | os.W_OK) else f"{TUN} may not be opened"


def not_forwarding() -> str:
    """Why nothing would lead out of root's networks, in words; "" if something does. In a container /proc/sys is mostly
    read-only, and what its network was made with stays."""
    try:
        with open(FORWARDING) as file:
            is_on = file.read().strip() == "1"
    except OSError:
        is_on = False
    return "" if is_on or os.access(FORWARDING, os.W_OK) else "this machine forwards nothing, and cannot be told to"
