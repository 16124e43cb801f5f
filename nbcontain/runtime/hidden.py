"""What of the kernel's own file systems no container sees, or none may write, unless it is asked for. Pure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

MASKED = tuple(
    f"/proc/{name}"
    for name in [
        "acpi",
        "asound",
        "interrupts",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_list",
        "timer_stats",
    ]
) + ("/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux")
READONLY = tuple(f"/proc/{name}" for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"])


@cache
def thermal() -> tuple[str, ...]:
    """How hot each processor gets tells what others compute (moby GHSA-6fw5-f8r9-fgfm): masked, where it is there."""
    return tuple(map(str, sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))))
