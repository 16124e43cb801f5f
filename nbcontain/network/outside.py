"""What an ordinary user's worker has done outside of its namespaces, in this machine's network.

A process of its own, forked by the worker before it enters them, since there is no way back. It binds ports of this
machine, looks at its routes, and begins what has to stand outside: the responder, which asks the machine's resolvers,
and the uplink or the relay. It ends with the worker; and the worker with it, so that the next one has both.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from nbcontain.channel import Channel, Message, describe, error_of
from nbcontain.network import helper, ports
from nbcontain.network.model import Block, PortMapping, port_from_json, port_to_json
from nbcontain.network.names import Responder
from nbcontain.network.process import fork_beside, fork_off
from nbcontain.network.relay import Relay
from nbcontain.network.tunnels import leads_out_by_ipv6

_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class Outside:
    """The worker's side."""

    def __init__(self, directory: Path) -> None:
        self.channel = fork_beside(directory, _serve)

    def _ask(self, message: Message, *fds: int) -> tuple[Message, list[int]]:
        """Raises what was raised there, typed."""
        try:
            self.channel.send(message, fds)
            answer, received = self.channel.receive()
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        if answer is None:
            # Without it nothing can be done; whoever asked us asks the next worker.
            os._exit(1)
        if "error" in answer:
            raise error_of(answer)
        return answer, received

    def bound(self, port: PortMapping) -> tuple[PortMapping, socket.socket]:
        """As `ports.bound`."""
        answer, (fd,) = self._ask({"do": "bind", "port": port_to_json(port)})
        return port_from_json(answer["port"]), socket.socket(fileno=fd)

    def blocks(self) -> list[Block]:
        """What this machine has routes to, but for its default ones."""
        return [ip_network(each) for each in self._ask({"do": "blocks"})[0]["blocks"]]

    def leads_out_by_ipv6(self) -> bool:
        """Whether this machine has a default route of IPv6."""
        return bool(self._ask({"do": "ipv6"})[0]["leads"])

    def respond(self, directory: Path, listener: int, lock: int) -> None:
        """Begin a responder, which has these descriptors."""
        self._ask({"do": "respond", "directory": str(directory)}, listener, lock)

    def relay(self, directory: Path, listener: int, lock: int) -> None:
        """Begin a relay, the same way."""
        self._ask({"do": "relay", "directory": str(directory)}, listener, lock)

    def spawn(self, words: list[str], log: int) -> int:
        """Execute a program outside, which writes to this descriptor; gives its pid. Raises SetupFailed."""
        return int(self._ask({"do": "spawn", "words": words}, log)[0]["pid"])


def _serve(channel: Channel) -> None:
    """Outside: answer until the worker is gone."""
    # What it has spawned is reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds = channel.receive()
        if message is None:
            os._exit(0)
        given: list[int] = []
        try:
            answer, given = _done(message, fds)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            answer = describe(error)
        channel.tell(answer, given)
        for fd in (*fds, *given):
            os.close(fd)


def _done(message: Message, fds: list[int]) -> tuple[Message, list[int]]:
    match message["do"]:
        case "bind":
            port, end = ports.bound(port_from_json(message["port"]))
            return {"port": port_to_json(port)}, [end.detach()]
        case "blocks":
            from pyroute2 import IPRoute

            from nbcontain.network.links import routed

            with IPRoute() as route:
                return {"blocks": list(map(str, routed(route, set())))}, []
        case "ipv6":
            return {"leads": leads_out_by_ipv6()}, []
        case "respond" | "relay" as what:
            listener, lock = fds
            make: Callable[[helper.Poll], helper.Work] = Responder if what == "respond" else Relay
            serve = partial(helper.run, listener, lock, make, is_root=False)
            fork_off(Path(message["directory"]), serve, listener, lock)
            return {}, []
        case _:
            return {"pid": _spawned(message["words"], *fds)}, []


def _spawned(words: list[str], log: int) -> int:
    files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), *((os.POSIX_SPAWN_DUP2, log, n) for n in (1, 2))]
    return os.posix_spawn(words[0], words, {"PATH": "/usr/bin:/bin"}, file_actions=files, setsigdef=_DEFAULT_SIGNALS)
