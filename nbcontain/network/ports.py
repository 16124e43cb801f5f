"""Ports of this machine: ours as long as they are published, so that nobody else gets them. Run by the worker."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from nbcontain.errors import NetworkError, PortTaken
from nbcontain.network.model import PortMapping, Sandbox
from nbcontain.values import replace

_QUEUE = 4096


def bound(port: PortMapping) -> tuple[PortMapping, socket.socket]:
    """A socket at a published port, and which port it is. Raises PortTaken, NetworkError."""
    last: PortTaken | None = None
    for number in range(port.host_port, max(port.last_port, port.host_port) + 1):
        try:
            end = _bind(port.host_address, number, port.protocol)
        except PortTaken as error:
            last = error
            continue
        return replace(port, host_port=end.getsockname()[1], last_port=0), end
    assert last is not None
    if port.last_port:
        raise PortTaken(
            f"no port of {port.host_address}:{port.host_port}-{port.last_port} is free", why=last.why, hint=last.hint
        )
    raise last


def owned(error: PortTaken, port: PortMapping, sandboxes: Iterable[Sandbox]) -> PortTaken:
    """The same error, with the container that has the port, if one of these does."""
    owner = next((sandbox.name for sandbox in sandboxes for each in sandbox.ports if _collide(each, port)), "")
    if owner and not port.last_port:
        error.why = f"the container {owner} has it"
        error.hint = f"another port, or %container stop {owner}"
    return error


def _collide(one: PortMapping, other: PortMapping) -> bool:
    is_same = one.host_port == other.host_port and one.protocol == other.protocol
    return is_same and (one.is_any or other.is_any or one.host_address == other.host_address)


def _bind(address: str, number: int, protocol: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    shown = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
    end = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if protocol == "tcp":
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.bind((address, number))
        if protocol == "tcp":
            end.listen(_QUEUE)
    except OSError as error:
        end.close()
        match error.errno:
            case errno.EADDRINUSE:
                raise PortTaken(
                    f"the port {shown}/{protocol} is taken", why=owner_of(number, protocol),
                    hint="another port in front of the colon, or none: then a free one is found",
                ) from None  # fmt: skip
            case errno.EADDRNOTAVAIL:
                raise NetworkError(
                    f"cannot publish at {shown}",
                    why="this machine has no such address",
                    hint="127.0.0.1, or 0.0.0.0 for all",
                ) from None
            case errno.EACCES | errno.EPERM:
                raise NetworkError(
                    f"cannot publish at {shown}", why="ports below 1024 are root's", hint=f"-p {number + 8000}:…",
                ) from None  # fmt: skip
            case _:
                raise NetworkError(f"cannot publish at {shown}", why=error.strerror or str(error)) from None
    return end


def owner_of(number: int, protocol: str) -> str:
    """Which program of this machine has a port, in words; "" where that cannot be found out."""
    inodes = set()
    for name in (protocol, f"{protocol}6"):
        with suppress(OSError), open(f"/proc/self/net/{name}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                words = line.split()
                is_listening = protocol == "udp" or words[3] == "0A"
                if is_listening and int(words[1].rpartition(":")[2], 16) == number:
                    inodes.add(f"socket:[{words[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                        return f"{comm.read().strip()} has it, process {pid}"
        except OSError:
            continue
    return "another program of this machine has it"
