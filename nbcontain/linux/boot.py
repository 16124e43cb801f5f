"""Which boot of the machine this is, and when since then a process began (random(4), proc(5))."""

from __future__ import annotations


def boot_id() -> str:
    """What tells this boot of the machine from all others; "" where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22). Raises FileNotFoundError."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as lines:  # ascii would be imported each time
        return int(lines.read().rpartition(")")[2].split()[19])
