"""Signals by name or number. Read in every process; imports next to nothing."""

from __future__ import annotations

import signal


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
