"""What a container may use, and what that is as files of control groups of version 1 and 2 (cgroups(7)). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nbcontain.oci.strict_json import Fields
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

UNLIMITED = -1
THROTTLES = ("read_bps", "write_bps", "read_iops", "write_iops")
"""What of a disk can be held back, as flags and `io.max` begin (docker run --device-read-bps)."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """A device's limit: bytes or operations a second (runtime-spec config-linux.md#block-io)."""

    kind: str
    """One of THROTTLES."""
    device: str
    """Major and minor number: "8:0"."""
    rate: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use; None is what the kernel gives anyway, -1 no limit (config-linux.md#control-groups)."""

    memory: int | None = None
    """Bytes."""
    memory_and_swap: int | None = None
    memory_reservation: int | None = None
    cpu_shares: int | None = None
    """Of 1024; of the machine's processors when others want them too."""
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpus: str = ""
    """Which: "0-2,7"."""
    memory_nodes: str = ""
    pids: int | None = None
    io_weight: int | None = None
    throttles: tuple[Throttle, ...] = ()

    def __bool__(self) -> bool:
        return self != Limits()


def to_json(limits: Limits) -> dict[str, object]:
    """`linux.resources` of config.json."""
    memory = {"limit": limits.memory, "swap": limits.memory_and_swap, "reservation": limits.memory_reservation}
    cpu = {
        "shares": limits.cpu_shares, "quota": limits.cpu_quota_us, "period": limits.cpu_period_us,
        "cpus": limits.cpus or None, "mems": limits.memory_nodes or None,
    }  # fmt: skip
    io: dict[str, object] = {"weight": limits.io_weight}
    for each in limits.throttles:
        major, minor = map(int, each.device.split(":"))
        entries = io.setdefault(_throttle_key(each.kind), [])
        assert isinstance(entries, list)
        entries.append({"major": major, "minor": minor, "rate": each.rate})
    pids = {"limit": limits.pids}
    groups: dict[str, Mapping[str, object]] = {"memory": memory, "cpu": cpu, "pids": pids, "blockIO": io}
    kept = {name: {key: value for key, value in group.items() if value is not None} for name, group in groups.items()}
    return {name: group for name, group in kept.items() if group}


def merged(document: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`linux.resources` of both: in each of their groups what `more` says, and what else there was."""
    return {**document, **{name: {**document.get(name, {}), **group} for name, group in more.items()}}


def from_json(document: Mapping[str, object]) -> Limits:
    """The inverse of `to_json`; raises BadDocument."""
    top = Fields(document, "resources")
    memory, cpu, io = top.object("memory"), top.object("cpu"), top.object("blockIO")
    throttles = tuple(
        Throttle(kind, f"{each.count('major')}:{each.count('minor')}", each.count("rate"))
        for kind in THROTTLES
        for each in io.objects(_throttle_key(kind))
    )
    return Limits(
        memory=memory.amount("limit"),
        memory_and_swap=memory.amount("swap"),
        memory_reservation=memory.amount("reservation"),
        cpu_shares=cpu.amount("shares"),
        cpu_quota_us=cpu.amount("quota"),
        cpu_period_us=cpu.amount("period"),
        cpus=cpu.text("cpus"),
        memory_nodes=cpu.text("mems"),
        pids=top.object("pids").amount("limit"),
        io_weight=io.amount("weight"),
        throttles=throttles,
    )


def _throttle_key(kind: str) -> str:
    direction, unit = kind.split("_")
    return f"throttle{direction.capitalize()}{unit.upper() if unit == 'iops' else 'Bps'}Device"


# --- what limits are, as files --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A file of a controller, and what it is to say. `needed`: the kernel has to have it.

    Without a file it is a limit that this version does not have, as `value` says: where another version has the
    controller, that one keeps it.
    """

    controller: str
    file: str
    value: str
    needed: bool = True


def settings(limits: Limits, version: int) -> list[Setting]:
    """Everything to be written, in order."""
    return list(_first(limits) if version == 1 else _second(limits))


def _first(limits: Limits) -> Iterator[Setting]:
    if limits.cpus or limits.memory_nodes:
        # Empty at first, unlike all others: no process may enter before both are there.
        yield Setting("cpuset", "cpuset.cpus", limits.cpus or "<")
        yield Setting("cpuset", "cpuset.mems", limits.memory_nodes or "<")
    for name, value in (("limit", limits.memory), ("soft_limit", limits.memory_reservation)):
        if value is not None:
            yield Setting("memory", f"memory.{name}_in_bytes", str(value))
    if limits.memory_and_swap is not None:
        # Not every kernel counts swap.
        yield Setting("memory", "memory.memsw.limit_in_bytes", str(limits.memory_and_swap), needed=False)
    if limits.cpu_shares is not None:
        yield Setting("cpu", "cpu.shares", str(limits.cpu_shares))
    if limits.cpu_period_us is not None:
        yield Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period_us))
    if limits.cpu_quota_us is not None:
        yield Setting("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us))
    if limits.pids is not None:
        yield Setting("pids", "pids.max", "max" if limits.pids < 0 else str(limits.pids))
    if limits.io_weight is not None:
        yield Setting("blkio", "blkio.bfq.weight|blkio.weight", str(limits.io_weight))
    for each in limits.throttles:
        yield Setting("blkio", f"blkio.throttle.{each.kind}_device", f"{each.device} {each.rate}")


def _second(limits: Limits) -> Iterator[Setting]:
    if limits.cpus:
        yield Setting("cpuset", "cpuset.cpus", limits.cpus)
    if limits.memory_nodes:
        yield Setting("cpuset", "cpuset.mems", limits.memory_nodes)
    if limits.memory is not None:
        yield Setting("memory", "memory.max", _or_max(limits.memory))
    if limits.memory_and_swap is not None:
        swap = limits.memory_and_swap
        if swap >= 0 and limits.memory is not None and limits.memory >= 0:
            swap -= limits.memory
        yield Setting("memory", "memory.swap.max", _or_max(swap), needed=False)
    if limits.memory_reservation is not None:
        yield Setting("memory", "memory.low", _or_max(limits.memory_reservation))
    if limits.cpu_shares is not None:
        # 2 … 262144 on 1 … 10000, as every runtime does it.
        yield Setting("cpu", "cpu.weight", str(1 + (limits.cpu_shares - 2) * 9999 // 262142))
    if limits.cpu_quota_us is not None or limits.cpu_period_us is not None:
        quota = UNLIMITED if limits.cpu_quota_us is None else limits.cpu_quota_us
        yield Setting("cpu", "cpu.max", f"{_or_max(quota)} {limits.cpu_period_us or 100_000}")
    if limits.pids is not None:
        yield Setting("pids", "pids.max", _or_max(limits.pids))
    if limits.io_weight is not None:
        yield Setting("io", "io.bfq.weight|io.weight", str(limits.io_weight))
    for each in limits.throttles:
        direction, unit = each.kind.split("_")
        yield Setting("io", "io.max", f"{each.device} {direction[0]}{unit}={each.rate}")


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
