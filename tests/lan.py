"""A network namespace for tests of networks, with another machine on a wire."""

from __future__ import annotations

import os
import subprocess
import time

from machine import until

HOME = "/proc/thread-self/ns/net"


class Lan:
    """The namespace of a test, and a machine beside it on a wire: 192.0.2.1 here, 192.0.2.2 there."""

    def __init__(self) -> None:
        self.neighbour = subprocess.Popen(["unshare", "--net", "sleep", "86400"])
        self.here = os.getpid()
        until(lambda: os.readlink(f"/proc/{self.neighbour.pid}/ns/net") != os.readlink(HOME))
        time.sleep(0.05)
        for command in (
            "ip link set lo up",
            f"ip link add wire type veth peer name wire netns {self.neighbour.pid}",
            "ip addr add 192.0.2.1/24 dev wire",
            "ip addr add fd99::1/64 dev wire nodad",
            "ip link set wire up",
        ):
            subprocess.run(command.split(), check=True)
        for command in (
            "ip link set lo up",
            "ip addr add 192.0.2.2/24 dev wire",
            "ip addr add fd99::2/64 dev wire nodad",
            "ip link set wire up",
        ):
            self.there(*command.split())

    def there(self, *command: str, timeout: float = 10) -> str:
        """What a command says that runs on the other machine."""
        words = ["nsenter", "--target", str(self.neighbour.pid), "--net", *command]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def reaches(self, *command: str) -> bool:
        """Whether a command on the other machine succeeds."""
        words = ["nsenter", "--target", str(self.neighbour.pid), "--net", *command]
        return subprocess.run(words, check=False, capture_output=True, timeout=20).returncode == 0

    def close(self) -> None:
        self.neighbour.kill()
        self.neighbour.wait()


def picture() -> str:
    """All that there is of networks in this namespace."""
    commands = ("ip -j link", "ip -j addr", "ip -j route", "ip -6 -j route", "nft list ruleset")
    said = "\n".join(
        subprocess.run(each.split(), capture_output=True, text=True, check=True).stdout for each in commands
    )
    # An address of the test's own is being tried out for a second; and of a link that is up by its flags the kernel
    # comes to say that it is so (linkwatch) when it has time.
    return said.replace('"tentative":true,', "").replace('"operstate":"UNKNOWN"', '"operstate":"UP"')
