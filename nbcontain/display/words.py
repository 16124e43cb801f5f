"""Sizes, times, counts and command lines as people read them; bars made of text."""

from __future__ import annotations

import re
import time
from bisect import bisect
from collections.abc import Sequence

from nbcontain.events import NEW_STEP

_UNITS = (
    (1, "second"), (60, "minute"), (3600, "hour"), (86400, "day"), (7 * 86400, "week"), (30 * 86400, "month"),
    (365 * 86400, "year"),
)  # fmt: skip
_LIMITS = (60, 3600, 48 * 3600, 14 * 86400, 60 * 86400, 730 * 86400)
"""From these seconds on it is told in the next unit."""
_BRIEF = {"second": "s", "minute": "min", "hour": "h"}
DECIMAL = ("B", "kB", "MB", "GB", "TB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_MOST = 999.5
"""What is more has four digits when it is rounded to none behind the point."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def size(size_bytes: int | None) -> str:
    """Decimal units as docker prints them: "0 B", "312 B", "14.8 kB", "60 MB"; nothing for None."""
    if size_bytes is None:
        return ""
    value, unit = scaled(size_bytes, DECIMAL, 1000, _MOST)
    return f"{value:.3g} {unit}"


def memory(size_bytes: int | None) -> str:
    """Binary units, as docker has them for memory: "312 B", "1.5 MiB", "50 MiB"; nothing for None."""
    if size_bytes is None:
        return ""
    value, unit = scaled(size_bytes, BINARY, 1024, _MOST)
    return f"{value:.3g} {unit}"


def scaled(size_bytes: int, units: Sequence[str], step: int, most: float) -> tuple[float, str]:
    """A size in the first of these units, each `step` times the one before, in which it is below `most`; else the last.
    """
    value = float(size_bytes)
    for unit in units[:-1]:
        if value < most:
            return value, unit
        value /= step
    return value, units[-1]


def duration(seconds: float | None) -> str:
    """ "0.02 s", "3.1 s", "1 min 12 s", "2 h 5 min"; nothing for None."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.995 else f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def ago(when: str | float | None, now: float | None = None) -> str:
    """How long ago, as docker says it: "3 minutes ago". `when` is RFC 3339 or seconds since the epoch."""
    if when in ("", None):
        return ""
    try:
        then = float(when) if isinstance(when, float | int) else _seconds(str(when))
    except ValueError:
        return str(when)
    seconds = max(0.0, (time.time() if now is None else now) - then)
    if seconds < 1:
        return "Less than a second ago"
    unit, name = _UNITS[bisect(_LIMITS, seconds)]
    return f"{count(int(seconds // unit), name)} ago"


def brief(text: str) -> str:
    """docker's words for times, shorter: "Exited (0) 2 min ago", "Up 5 s", "Exited (137) 3 s ago, OOM"."""
    text = text.replace("Less than a second ago", "just now").replace("Less than a second", "0 s")
    text = text.replace("out of memory", "OOM")
    return re.sub(r"\b(\d+) (second|minute|hour)s?\b", lambda found: f"{found[1]} {_BRIEF[found[2]]}", text)


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 step", "12 480 lines": groups of three, plural by s unless it is given."""
    return f"{number:,}".replace(",", " ") + f" {noun if number == 1 else plural or noun + 's'}"


def reason(why: str) -> str:
    """Why a step runs, where there was a build before."""
    return f"runs: {why}" if why == NEW_STEP else f"runs again: {why}"


def bar(value: float, maximum: float, width: int = 8) -> str:
    """`value` of `maximum` in eighths of a character cell; something is never drawn as nothing."""
    if value <= 0 or maximum <= 0:
        return ""
    eighths = max(1, round(min(1.0, value / maximum) * width * 8))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def command_line(words: Sequence[str]) -> str:
    """Words as one could type them in a shell; a quote within quotes as most people write it."""
    from shlex import quote

    return " ".join(word if quote(word) == word else "'" + word.replace("'", r"'\''") + "'" for word in words)


def without_asking(words: str, filters: Sequence[str], *flags: str) -> str:
    """What one types to have the same done at once."""
    said = [word for each in filters for word in ("--filter", each)]
    return " ".join([f"%{words}", *flags, *([command_line(said)] if said else []), "-f"])


def _seconds(when: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
