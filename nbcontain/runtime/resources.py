"""What a container may use of the machine: from docker's flags to limits. Pure; `runtime.groups` has them kept."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from nbcontain.errors import UsageError
from nbcontain.linux.limits import THROTTLES, UNLIMITED, Limits, Throttle, merged, to_json
from nbcontain.options import option, with_defaults
from nbcontain.runtime import limits
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_LEAST_MEMORY = 6 << 20
_PERIOD_US = 100_000
_RT_PERIOD_US = 1_000_000
_CPUS = r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LimitOptions:
    """What `run`, `create` and `update` can be told of it."""

    heading = "limits"

    memory: str = option("-m", "--memory", help="at most so much memory: 512m, 2g", metavar="BYTES")
    cpus: str = option("--cpus", help="the time of so many processors: 1.5", metavar="NUMBER")
    memory_swap: str = option(
        "--memory-swap", help="memory and swap together; -1 for no limit of swap", metavar="BYTES"
    )
    memory_reservation: str = option("--memory-reservation", help="what it keeps when others want it", metavar="BYTES")
    cpu_shares: int | None = option(
        "-c", "--cpu-shares", help="its weight against others', 1024 being usual", default=None
    )
    cpu_period: int | None = option("--cpu-period", help="microseconds that --cpu-quota is of", default=None)
    cpu_quota: int | None = option("--cpu-quota", help="microseconds of each period", default=None)
    cpuset_cpus: str = option("--cpuset-cpus", help="on these processors only: 0-2,7", metavar="NUMBERS")
    cpuset_mems: str = option("--cpuset-mems", help="in the memory of these nodes only", metavar="NUMBERS")
    pids_limit: int | None = option(
        "--pids-limit", help="at most so many processes and threads; -1 for no limit", default=None
    )
    blkio_weight: int | None = option("--blkio-weight", help="10 to 1000: its weight at disks", default=None)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ThrottleOptions:
    """What only `run` and `create` can be told."""

    heading = "limits of single disks"

    device_read_bps: tuple[str, ...] = option("--device-read-bps", help="/dev/sda:10m a second", metavar="DEVICE:RATE")
    device_write_bps: tuple[str, ...] = option(
        "--device-write-bps", help="/dev/sda:10m a second", metavar="DEVICE:RATE"
    )
    device_read_iops: tuple[str, ...] = option(
        "--device-read-iops", help="/dev/sda:100 a second", metavar="DEVICE:RATE"
    )
    device_write_iops: tuple[str, ...] = option(
        "--device-write-iops", help="/dev/sda:100 a second", metavar="DEVICE:RATE"
    )
    blkio_weight_device: tuple[str, ...] = option(
        "--blkio-weight-device", help="10 to 1000: its weight at this disk", metavar="DEVICE:WEIGHT"
    )
    memory_swappiness: int | None = option(
        "--memory-swappiness", help="0 to 100: how gladly its memory is swapped", default=None
    )
    oom_kill_disable: bool = option("--oom-kill-disable", help="let it wait for memory where none is left")
    cpu_rt_period: int | None = option("--cpu-rt-period", help="microseconds that --cpu-rt-runtime is of", default=None)
    cpu_rt_runtime: int | None = option(
        "--cpu-rt-runtime", help="microseconds of each period for real-time programs", default=None
    )


def limits_of(options: LimitOptions) -> Limits:
    """What these flags mean. Raises UsageError for what makes no sense."""
    memory = size_of(options.memory, "--memory")
    swap = size_of(options.memory_swap, "--memory-swap")
    reservation = size_of(options.memory_reservation, "--memory-reservation")
    if memory is not None and 0 <= memory < _LEAST_MEMORY:
        raise UsageError(f"--memory {options.memory} is less than a container can start in", hint="6m is the least")
    if swap is not None and swap >= 0:
        if memory is None:
            raise UsageError("--memory-swap needs --memory", why="it is the limit of both together")
        if swap < memory:
            raise UsageError("--memory-swap is less than --memory", why="it is the limit of both together")
    if reservation is not None and memory is not None and 0 <= memory < reservation:
        raise UsageError("--memory-reservation is more than --memory")
    if swap is None and memory is not None and memory >= 0:
        swap = 2 * memory  # as docker does
    quota, period = options.cpu_quota, options.cpu_period
    if options.cpus and (cpus := _quota(options.cpus)):
        if quota is not None or period is not None:
            raise UsageError("--cpus and --cpu-quota say the same", hint="one of them")
        quota, period = cpus, _PERIOD_US
    if period is not None and not 1000 <= period <= 1_000_000:
        raise UsageError(f"--cpu-period {period} is not between 1000 and 1000000 microseconds")
    if quota is not None and quota != UNLIMITED and quota < 1000:
        raise UsageError(f"--cpu-quota {quota} is less than 1000 microseconds")
    if options.cpu_shares is not None and not 2 <= options.cpu_shares <= 262144:
        raise UsageError(f"--cpu-shares {options.cpu_shares} is not between 2 and 262144")
    if options.blkio_weight is not None and not 10 <= options.blkio_weight <= 1000:
        raise UsageError(f"--blkio-weight {options.blkio_weight} is not between 10 and 1000")
    for flag, text in (("--cpuset-cpus", options.cpuset_cpus), ("--cpuset-mems", options.cpuset_mems)):
        if text and not re.fullmatch(_CPUS, text):
            raise UsageError(f"{flag} {text!r} are no numbers", hint=f"{flag} 0-2,7")
    pids = options.pids_limit
    return Limits(
        memory=memory,
        memory_and_swap=swap,
        memory_reservation=reservation,
        cpu_shares=options.cpu_shares,
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpus=options.cpuset_cpus,
        memory_nodes=options.cpuset_mems,
        pids=UNLIMITED if pids is not None and pids <= 0 else pids,
        io_weight=options.blkio_weight,
        throttles=_throttles(options) if isinstance(options, ThrottleOptions) else (),
    )


def resources_of(options: LimitOptions) -> dict[str, Any]:
    """`linux.resources` of config.json: what these flags mean. Raises UsageError for what makes no sense."""
    document: dict[str, Any] = to_json(limits_of(options))
    if not isinstance(options, ThrottleOptions):
        return document
    swappiness = options.memory_swappiness
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise UsageError(f"--memory-swappiness {swappiness} is not between 0 and 100")
    if options.oom_kill_disable and not options.memory:
        # As docker warns: the machine's own memory would be all that ends it.
        raise UsageError("--oom-kill-disable needs --memory", why="otherwise the machine itself may run out of it")
    period, runtime = options.cpu_rt_period, options.cpu_rt_runtime
    if runtime is not None and runtime > (period or _RT_PERIOD_US):
        raise UsageError("--cpu-rt-runtime is more than --cpu-rt-period", why="it is a part of each period")
    disks = [_disk_weight(word) for word in options.blkio_weight_device]
    further: dict[str, dict[str, Any]] = {
        "memory": {"swappiness": swappiness, "disableOOMKiller": options.oom_kill_disable or None},
        "cpu": {"realtimePeriod": period, "realtimeRuntime": runtime},
        "blockIO": {"weightDevice": disks or None},
    }
    said = {name: {key: value for key, value in group.items() if value is not None} for name, group in further.items()}
    return merged(document, {name: group for name, group in said.items() if group})


def size_of(text: str, flag: str) -> int | None:
    """Bytes, as docker writes them: 512m, 1.5g, a number; -1 for no limit; None for "". Raises UsageError."""
    if text in ("", "0"):
        return None
    if text == "-1":
        return UNLIMITED
    return min(limits.size_bytes(text, flag), (1 << 62) - 1)


def _quota(text: str) -> int:
    """0 is as good as nothing, as with docker."""
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"--cpus {text!r} is no number", hint="--cpus 1.5") from None
    here = os.cpu_count() or 1
    if number != 0 and not 0.01 <= number <= here:
        raise UsageError(f"--cpus {text} is not between 0.01 and {here}", why=f"this machine has {here}")
    return int(number * _PERIOD_US)


def _throttles(options: ThrottleOptions) -> tuple[Throttle, ...]:
    return tuple(_throttle(kind, word) for kind in THROTTLES for word in getattr(options, f"device_{kind}"))


def _throttle(kind: str, word: str) -> Throttle:
    flag = f"--device-{kind.replace('_', '-')}"
    path, _, text = word.rpartition(":")
    rate = size_of(text, flag) if kind.endswith("bps") else int(text) if text.isdecimal() else None
    if not path or rate is None or rate <= 0:
        raise UsageError(
            f"{flag} {word!r}: that is no device and rate", hint=f"{flag} /dev/sda:{'10m' if 'bps' in kind else 100}"
        )
    major, minor = _disk(path, f"{flag} {word}")
    return Throttle(kind, f"{major}:{minor}", rate)


def _disk_weight(word: str) -> dict[str, int]:
    flag, (path, _, text) = "--blkio-weight-device", word.rpartition(":")
    if not path or not text.isdecimal() or not 10 <= int(text) <= 1000:
        raise UsageError(f"{flag} {word!r}: that is no device and weight", hint=f"{flag} /dev/sda:200")
    major, minor = _disk(path, f"{flag} {word}")
    return {"major": major, "minor": minor, "weight": int(text)}


def _disk(path: str, said: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UsageError(f"{said}: there is no {path} here", why=error.strerror or "") from error
    if not stat.S_ISBLK(status.st_mode):
        raise UsageError(f"{said}: {path} is no disk")
    return os.major(status.st_rdev), os.minor(status.st_rdev)
