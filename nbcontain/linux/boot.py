"""Which boot of the machine this is (random(4))."""

from __future__ import annotations


def boot_id() -> str:
    """What tells this boot of the machine from all others; "" where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
