"""When processes began: with that a pid names one process for good, and not whoever has it now. And their children."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress

_AGAIN_S = 0.01


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


def kill(pid: int, began: int, longest_s: float = 0.0) -> None:
    """End the process that has this pid since then; idempotent, and nothing happens to another one of that number.

    It is waited for so long at most. Where a kernel has no descriptors of processes, as gVisor of 2022, another one
    is spared only if it did not begin between two lines of this.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ValueError:
        return
    except OSError as error:
        if error.errno == errno.ENOSYS and start_of(pid) == began:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + longest_s
            while start_of(pid) == began and time.monotonic() < until:
                time.sleep(_AGAIN_S)
        return
    try:
        # What the descriptor names cannot change any more.
        if start_of(pid) == began:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if longest_s:
                select.select([pidfd], [], [], longest_s)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(pidfd)


def children_of(pid: int) -> list[int]:
    """The pids of a process' children (proc(5), stat, field 4); also of those that were not waited for."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        # One that ends while it is looked at is nobody's any more.
        with suppress(OSError):
            if int(_fields(int(name))[1]) == pid:
                found.append(int(name))
    return found


def further_of(pid: int) -> list[int]:
    """The pids of a process' children that are in a namespace of processes below its own, but for first ones there."""
    depth, found = len(_numbers(pid)), []
    for child in children_of(pid):
        with suppress(OSError):
            numbers = _numbers(child)
            if len(numbers) > depth and numbers[-1] != "1":
                found.append(child)
    return found


def _numbers(pid: int) -> list[str]:
    """What a process is called in each namespace that it is in (proc(5), status, NSpid)."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        # Not every kernel says it.
        return next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])


def _fields(pid: int) -> list[str]:
    """Those from the third on: what is before may have spaces."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as lines:  # ascii would be imported each time
        return lines.read().rpartition(")")[2].split()
