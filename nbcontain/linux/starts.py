"""When processes began: with that a pid names one process for good, and not whoever has its number by now."""

from __future__ import annotations

import os
import signal


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22).

    Raises FileNotFoundError, or ProcessLookupError for one that ends while it is looked at.
    """
    return int(_fields(pid)[19])


def start_of(pid: int) -> int:
    """The same; 0 for a process that is not there, or has ended and was not waited for."""
    try:
        fields = _fields(pid)
        return 0 if fields[0] in ("Z", "X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def kill(pid: int, began: int) -> None:
    """End the process that has this pid since then; idempotent, and nothing happens to another one of that number."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        # What the descriptor names cannot change any more.
        if start_of(pid) == began:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(pidfd)


def _fields(pid: int) -> list[str]:
    """Those from the third on: what is before may have spaces."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as lines:  # ascii would be imported each time
        return lines.read().rpartition(")")[2].split()
