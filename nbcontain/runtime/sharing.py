"""Which namespaces a container has to itself, and which are this machine's or another container's. Pure.

docker's --pid, --ipc, --uts, --cgroupns and --userns; --network is another matter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nbcontain.errors import UsageError
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import Mount
from nbcontain.options import option, with_defaults
from nbcontain.runtime.annotations import JOINS, OF
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.host import Host

CONTAINER = "container:"
_QUIET = ("nosuid", "noexec", "nodev")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class NamespaceOptions:
    """What `run` and `create` can be told of it."""

    heading = "namespaces"

    pid: str = option("--pid", help="whose processes it sees: host, or container:NAME", metavar="MODE")
    ipc: str = option(
        "--ipc", help="whose memory it shares: private, shareable, none, host, or container:NAME", metavar="MODE"
    )
    uts: str = option("--uts", help="host: it has this machine's name", metavar="MODE")
    cgroupns: str = option("--cgroupns", help="private, or host", metavar="MODE")
    userns: str = option(
        "--userns",
        help="whose ids it has: host, private, auto[:size=N] (its own), keep-id (you are yourself), or container:NAME",
        metavar="MODE",
    )  # fmt: skip


def checked(options: NamespaceOptions, hostname: str) -> None:
    """Raises UsageError for what is no mode, and for what cannot be together."""
    if options.pid not in ("", "private", "host") and not _of_container(options.pid):
        raise UsageError(f"--pid: invalid PID mode: {options.pid}", hint="host, or container:NAME")
    if options.ipc not in ("", "private", "shareable", "none", "host") and not _of_container(options.ipc):
        raise UsageError(
            f"--ipc: invalid IPC mode: {options.ipc}", hint="private, shareable, none, host, or container:NAME"
        )
    if options.uts not in ("", "private", "host"):
        raise UsageError(f"--uts: invalid UTS mode: {options.uts}", hint="host")
    if options.cgroupns not in ("", "private", "host"):
        raise UsageError(f"--cgroupns: invalid CGroup mode: {options.cgroupns}", hint="private, or host")
    if options.uts == "host" and hostname:
        raise UsageError(
            "conflicting options: hostname and the UTS mode", why="--uts host: its name is this machine's",
            hint="leave one of them out",
        )  # fmt: skip


def _of_container(mode: str) -> bool:
    return mode.startswith(CONTAINER) and len(mode) > len(CONTAINER)


def donor(mode: str) -> str:
    """The container that a mode names; "" if it names none."""
    return mode.removeprefix(CONTAINER) if _of_container(mode) else ""


@dataclass(frozen=True, slots=True)
class Donor:
    """A container whose namespace another one joins."""

    id: str
    bundle: str
    """The path of its directory."""
    pid: int
    """Its first process, 0 if it does not run."""
    ids: IdMap


@dataclass(frozen=True, slots=True)
class Shared:
    """What comes of it."""

    namespaces: tuple[str, ...]
    paths: Mapping[str, str]
    """Of those that are joined. Found anew at each start (`runtime.joins`)."""
    annotations: Mapping[str, str]


def shared(
    options: NamespaceOptions, host: Host, *, donors: Mapping[str, Donor], own_network: bool
) -> Shared:
    """The namespaces of a container. `donors` are those that its options name, by "pid", "ipc" and "user"."""
    kept = ["mount", "pid", "ipc", "uts", "cgroup"]
    for name, mode in (("pid", options.pid), ("ipc", options.ipc), ("uts", options.uts), ("cgroup", options.cgroupns)):
        if mode == "host":
            kept.remove(name)
    if not host.ids.is_identity:
        kept.append("user")
    if own_network:
        kept.append("network")
    paths = {name: f"/proc/{each.pid}/ns/{name}" for name, each in donors.items()}
    joins = {name: each.id for name, each in donors.items()}
    if donors and not host.ids.is_identity:
        # Whoever joins has to have rights there, and so to be of that container's user namespace.
        if len({each.id for each in donors.values()}) > 1:
            raise UsageError(
                "--pid, --ipc and --userns name two containers",
                why="they have user namespaces of their own, and one can join only one",
                hint="name the same container twice, or share one of them",
            )  # fmt: skip
        [one] = {each.id: each for each in donors.values()}.values()
        paths["user"], joins["user"] = f"/proc/{one.pid}/ns/user", one.id
    words = ",".join(f"{name}={donor_id}" for name, donor_id in joins.items())
    return Shared(tuple(kept), paths, {JOINS: words} if words else {})


def memory(
    options: NamespaceOptions, shm_bytes: int, donors: Mapping[str, Donor], *, is_rootless: bool
) -> tuple[Mount, ...]:
    """/dev/shm and /dev/mqueue, which show what the ipc namespace has."""
    queue = Mount("/dev/mqueue", "mqueue", "mqueue", _QUIET)
    if options.ipc == "none":
        return (queue,)
    if options.ipc == "host":
        # The queues of this machine's may be mounted by its root, and looked at where somebody has done that.
        shown = [Mount(path, "bind", path, ("bind", *_QUIET)) for path in ("/dev/shm", "/dev/mqueue")]
        found = [each for each in shown if os.path.isdir(each.source)]
        return tuple(found) if is_rootless else (*found[:1], queue)
    if "ipc" in donors:
        return (Mount("/dev/shm", "bind", "/dev/shm", ("bind", *_QUIET, f"{OF}{donors['ipc'].bundle}")), queue)
    return (Mount("/dev/shm", "tmpfs", "shm", (*_QUIET, "mode=1777", f"size={shm_bytes >> 10}k")), queue)

