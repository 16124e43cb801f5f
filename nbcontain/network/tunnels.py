"""Programs that lead out of an ordinary user's networks, and what they need. Asked by whoever wants to know."""

from __future__ import annotations

import os

TUN = "/dev/net/tun"
PROGRAMS = ("pasta", "slirp4netns")
"""The quicker one first."""
_PATH = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"


def there() -> dict[str, str]:
    """Those that are installed, and where."""
    import shutil

    found = {name: shutil.which(name, path=_PATH) for name in PROGRAMS}
    return {name: path for name, path in found.items() if path is not None}


def missing() -> str:
    """Why there can be no way out, in words; "" if there can."""
    if not there():
        return "neither pasta nor slirp4netns is installed"
    return "" if os.access(TUN, os.R_OK | os.W_OK) else f"{TUN} may not be opened"
