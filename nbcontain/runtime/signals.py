"""Signals by name or number, and how a process ended. Read in every process; imports next to nothing."""

from __future__ import annotations

import os
import signal

_HEEDED = ("SigCgt", "SigBlk")


def signal_number(text: str) -> int:
    """SIGTERM, TERM, term or 15 (POSIX kill(1), docker's STOPSIGNAL). Raises ValueError."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal() and 1 <= int(name) <= signal.NSIG - 1:
        return int(name)
    if name.startswith("RTMIN+") and name[6:].isdecimal() and int(name[6:]) <= 30:
        return int(signal.SIGRTMIN) + int(name[6:])
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise ValueError(f"{text!r} is no signal") from None


def stop_number(text: str) -> int:
    """What a container is asked by to end: of an image's word that is no signal SIGTERM, as docker takes it."""
    try:
        return signal_number(text)
    except ValueError:
        return int(signal.SIGTERM)


def is_heeded(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or waits for it (proc_pid_status(5)).

    Without either, the kernel keeps it from the first process of a pid namespace.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            fields = dict(line.partition(":")[::2] for line in lines.read().splitlines())
        return any(int(fields[name], 16) >> (number - 1) & 1 for name in _HEEDED)
    except (OSError, ValueError, LookupError):
        return False


def exit_code(status: int) -> int:
    """Of a waited-for process, as shells count: 128 and the signal for a killed program."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
