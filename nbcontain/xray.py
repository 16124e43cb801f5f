"""A container's process as this machine sees it and as it sees itself, side by side. `engine.sides`.

All is read from /proc and the control group, nothing is run in the container for it. What is not kept apart is said,
with the reason; what cannot be read is "".
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nbcontain.anatomy import entries_of
from nbcontain.errors import NbcontainError, NotRunning
from nbcontain.linux import limits, procfs
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.linux.procfs import NAMESPACES, MountLine
from nbcontain.oci.spec import IdMapping, Spec
from nbcontain.processes import Process
from nbcontain.runtime import joins, rungs
from nbcontain.runtime.bundle import ContainerInfo
from nbcontain.runtime.container import Container
from nbcontain.values import dataclass, field

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_TEXT_BYTES = 1 << 20
_PROCESSES = 30
_FILES = ("status", "mountinfo", "uid_map", "gid_map", "net/dev", "net/fib_trie", "net/if_inet6")
_OURS = {
    "/etc/hosts": "names of hosts, written for it", "/etc/hostname": "its name, written for it",
    "/etc/resolv.conf": "whom it asks for names, written for it", rungs.CERTIFICATES: "whom this machine trusts",
}  # fmt: skip
_APART = {
    "user": "ids of its own: root inside is somebody else here", "pid": "it sees its own processes only",
    "mount": "files and mounts of its own", "network": "interfaces, addresses and ports of its own",
    "ipc": "shared memory and queues of its own", "uts": "a host name of its own",
    "cgroup": "its control group looks like the uppermost", "time": "clocks of its own",
}  # fmt: skip
_PURPOSE = {
    "/": "its root", "/proc": "its processes, as /proc tells of them", "/dev": "its own few devices",
    "/dev/pts": "its terminals", "/dev/shm": "memory that its processes share", "/dev/mqueue": "its message queues",
    "/sys": "the kernel's devices and settings, to be looked at", "/sys/fs/cgroup": "its control groups",
    "/dev/console": "the terminal that it runs at",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing, seen from both sides."""

    what: str
    outside: str
    inside: str

    @property
    def differs(self) -> bool:
        return self.outside != self.inside


@dataclass(frozen=True, slots=True)
class Namespace:
    """One kind of namespace: its inode numbers on both sides, and why it is so."""

    kind: str
    outside: int
    inside: int
    """0 where it cannot be read."""
    why: str

    @property
    def is_shared(self) -> bool:
        return self.outside == self.inside and bool(self.inside)


@dataclass(frozen=True, slots=True)
class Seen:
    """One process under both numbers."""

    outside: int
    inside: int
    user_outside: int
    user_inside: int | None
    """None for an id that has no name inside."""
    command: str


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount, and what it is there for."""

    destination: str
    kind: str
    is_readonly: bool
    purpose: str


@dataclass(frozen=True, slots=True)
class Meters:
    """What it uses now, and what it may; None is no limit, or what nobody counts."""

    at_s: float
    cpu_s: float
    memory: int
    memory_limit: int | None
    cpus: float | None
    processes: int
    processes_limit: int | None
    why: str = ""
    """Why there are no limits, if there are none."""

    def cpu_percent(self, before: Meters) -> float:
        """Of one processor, since that moment."""
        passed = self.at_s - before.at_s
        return 100 * max(0.0, self.cpu_s - before.cpu_s) / passed if passed > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Xray:
    """All of it, at one moment."""

    name: str
    id: str
    image: str
    isolation: str
    """The rung of the ladder."""
    pid: int
    pairs: tuple[Pair, ...]
    seen: tuple[Seen, ...]
    uid_map: tuple[IdMapping, ...]
    gid_map: tuple[IdMapping, ...]
    namespaces: tuple[Namespace, ...]
    meters: Meters
    kept: tuple[str, ...]
    """Capabilities without CAP_, as its first process has them."""
    dropped: tuple[str, ...]
    gates: tuple[tuple[str, str], ...]
    """What else stands in the way of a program: seccomp, no_new_privs, …: what, and how it is."""
    network: tuple[tuple[str, str], ...]
    mounts: tuple[Mounted, ...]
    hidden: tuple[str, ...]
    """Paths that are mounted over so that nobody sees what is there."""
    layers: tuple[tuple[str, int], ...] = field(default=())
    """Its root: what made each layer, the uppermost first, and its bytes as stored; -1 for the one that it writes."""


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a container's first process: texts as /proc has them, "" what cannot be read."""

    pid: int
    texts: Mapping[str, str]
    outside: Mapping[str, int]
    """Inode numbers of this process's namespaces, by kind."""
    inside: Mapping[str, int]
    hostname: str

    @classmethod
    def of(cls, pid: int) -> Read:
        return cls(
            pid, {name: _text(f"/proc/{pid}/{name}") for name in _FILES},
            {kind: _inode("self", file) for kind, file in NAMESPACES.items()},
            {kind: _inode(str(pid), file) for kind, file in NAMESPACES.items()}, os.uname().nodename,
        )  # fmt: skip


class Sides:
    """Looks at running containers of one engine from both sides."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, container: Container) -> Xray:
        """All of a running container, now. Raises NotRunning."""
        engine = self._engine
        container = engine.running(container.id)
        pid = container.pid
        if pid is None:
            raise NotRunning(f"{container.name} has ended")
        info, spec, read = container.info, container.bundle.spec, Read.of(pid)
        status = procfs.status_of(read.texts["status"])
        uids, gids = (procfs.id_map_of(read.texts[f"{kind}_map"]) for kind in ("uid", "gid"))
        mounts = procfs.mounts_of(read.texts["mountinfo"])
        kept = procfs.capabilities_of(status.get("CapEff", ""))
        hidden = tuple(each.destination for each in mounts if each.destination in spec.linux.masked_paths)
        try:
            found = engine.processes.of(container)
        except OSError:
            found = []
        return Xray(
            container.name, container.id, container.image, rungs.named(info.rung).name, pid,
            tuple(_pairs(read, status, uids, gids, spec)), tuple(_seen(each, uids) for each in found[:_PROCESSES]),
            uids, gids, tuple(self._namespaces(container, spec, info, read)),
            self._meters(container, spec, info, found), kept, tuple(each for each in CAPABILITIES if each not in kept),
            tuple(_gates(status, spec)), tuple(self._network(container, read)),
            tuple(_mounted(each, info) for each in mounts if each.destination not in hidden
                  and each.destination not in spec.linux.readonly_paths),
            hidden, self._layers(container),
        )  # fmt: skip

    def container(self, container_id: str) -> Container:
        """A handle on it. Raises ContainerNotFound."""
        return self._engine.container(container_id)

    def meters(self, container: Container) -> Meters | None:
        """What a container uses now; None for one that does not run."""
        try:
            found = self._engine.processes.of(container)
            return self._meters(container, container.bundle.spec, container.info, found)
        except (NbcontainError, OSError):
            return None

    def _namespaces(self, container: Container, spec: Spec, info: ContainerInfo, read: Read) -> Iterator[Namespace]:
        for kind in NAMESPACES:
            outside, within = read.outside[kind], read.inside[kind]
            shared = outside == within
            why = self._why(kind, container, spec, info) if shared else _APART[kind]
            yield Namespace(kind, outside, within, why if within else "it cannot be read")

    def _why(self, kind: str, container: Container, spec: Spec, info: ContainerInfo) -> str:
        """Why it shares this namespace with this machine."""
        rung = rungs.named(info.rung)
        if kind in joins.of(spec) or kind in spec.linux.paths:
            return "it was told to join one"
        if kind not in rung.namespaces and kind not in ("user", "time"):
            return f"isolation {rung.name} has none: %nbcontain doctor says why"
        match kind:
            case "network" if self._engine.networks.can_bridge():
                return "--network host"
            case "network":
                return "the host's is what there is without bridges; --network none is one of its own"
            case "user" if kind not in rung.namespaces and rung.mounts:
                return "root's containers have this machine's ids"
            case "user":
                return f"isolation {rung.name} has none"
            case "time":
                return "clocks are this machine's; nobody asked for others"
        return f"--{'cgroupns' if kind == 'cgroup' else kind} host"

    def _meters(
        self, container: Container, spec: Spec, info: ContainerInfo, found: Sequence[Process]
    ) -> Meters:
        group = self._engine.resources.group(container)
        cpu_s = group.cpu_s() or sum(each.cpu_s for each in found)
        memory = group.memory() or sum(each.resident for each in found)
        given = limits.from_json(spec.linux.resources)
        quota = _positive(given.cpu_quota_us)
        cpus = quota / (given.cpu_period_us or 100_000) if quota else None
        why = "" if info.limited else "none were asked for (--memory, --cpus, --pids-limit)"
        return Meters(
            time.monotonic(), cpu_s, memory, _positive(given.memory), cpus, len(found), _positive(given.pids), why
        )

    def _network(self, container: Container, read: Read) -> Iterator[tuple[str, str]]:
        networks = self._engine.networks
        yield "network", networks.wish_of(container).mode
        sandbox = networks.sandbox(container)
        for each in sandbox.endpoints if sandbox is not None else ():
            there = " ".join(text for text in (each.address, each.address6) if text)
            yield f"{each.device} on {each.network_name}", f"{there}, the other end is {each.link}"
        if sandbox is None or not sandbox.endpoints:
            devices = procfs.interfaces_of(read.texts["net/dev"])
            addresses = procfs.addresses_of(read.texts["net/fib_trie"], read.texts["net/if_inet6"])
            yield "interfaces", ", ".join(devices) or "none can be seen"
            yield "addresses", ", ".join(addresses) or "none"
        for port in networks.ports(container):
            yield f"port {port.container_port}/{port.protocol}", f"{port.host}:{port.host_port} of this machine"

    def _layers(self, container: Container) -> tuple[tuple[str, int], ...]:
        try:
            image = self._engine.archives.image_of(container)
        except NbcontainError:
            return ()
        pairs = zip(entries_of(image), image.layers, strict=True)
        made = [(entry.created_by or entry.comment, layer.descriptor.size) for entry, layer in pairs]
        return (("the layer that it writes", -1), *reversed(made))


def _pairs(
    read: Read, status: Mapping[str, str], uids: Sequence[IdMapping], gids: Sequence[IdMapping], spec: Spec
) -> Iterator[Pair]:
    """Who and where the first process is."""
    numbers = status.get("NSpid", str(read.pid)).split()
    yield Pair("process", str(read.pid), numbers[-1])
    for what, name, mappings in (("user", "Uid", uids), ("group", "Gid", gids)):
        number = status.get(name, "").split()[1:2]
        if number:
            within = procfs.inside(int(number[0]), mappings) if mappings else int(number[0])
            yield Pair(what, number[0], str(within) if within is not None else "nobody")
    own = read.inside["uts"] != read.outside["uts"]
    yield Pair("host name", read.hostname, (spec.hostname or read.hostname) if own else read.hostname)
    yield Pair("its root", "layers of an image, laid on each other", "/")


def _seen(process: Process, uids: Sequence[IdMapping]) -> Seen:
    number = int(process.status.get("Uid", "0 0").split()[1])
    within = int(process.status.get("NSpid", str(process.pid)).split()[-1])
    return Seen(
        process.pid, within, number, procfs.inside(number, uids) if uids else number,
        (process.args or f"[{process.comm}]")[:300],
    )  # fmt: skip


def _gates(status: Mapping[str, str], spec: Spec) -> Iterator[tuple[str, str]]:
    mode = procfs.SECCOMP.get(status.get("Seccomp", ""), "nobody knows")
    count = status.get("Seccomp_filters", "")
    yield "seccomp", f"{mode} of system calls" + (f" ({count} in a row)" if count not in ("", "0", "1") else "") if (
        status.get("Seccomp") == "2"
    ) else mode
    gains = status.get("NoNewPrivs") == "1"
    yield "no_new_privs", "set: no program gains rights" if gains else "not set: a set-user-ID program may gain rights"
    yield "root", "read only" if spec.root_readonly else "it may write, into a layer of its own"
    if spec.linux.readonly_paths:
        yield "cannot be written", ", ".join(spec.linux.readonly_paths)
    if spec.process.apparmor:
        yield "AppArmor", spec.process.apparmor


def _mounted(line: MountLine, info: ContainerInfo) -> Mounted:
    purpose = _PURPOSE.get(line.destination) or _OURS.get(line.destination, "")
    for each in info.mounts:
        if each.get("Destination") == line.destination:
            name, source = each.get("Name"), each.get("Source")
            purpose = f"the volume {name}" if name else f"{source} of this machine" if source else "memory, of its own"
    if not purpose and line.destination.startswith("/sys/fs/cgroup"):
        purpose = "its control groups"
    if not purpose and line.destination.startswith("/dev/"):
        purpose = "a device of this machine"
    return Mounted(line.destination, line.kind, line.is_readonly, purpose)


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_BYTES).decode(errors="surrogateescape")
    except OSError:
        return ""


def _inode(pid: str, file: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{file}").st_ino
    except OSError:
        return 0
