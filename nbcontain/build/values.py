"""Small values of instructions, once their variables are filled in: ports, modes, signals."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from nbcontain.build.modes import is_mode
from nbcontain.errors import DockerfileError, Span

_PORT = re.compile(r"(?:[][0-9A-Fa-f.:-]*:)?([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z]+))?")
"""What -p takes too: of host:port the port counts, as with docker."""
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_SIGNAL = 64


def exposed_ports(words: Sequence[str], span: Span) -> tuple[str, ...]:
    """Each port as number/protocol, ranges written out. Raises DockerfileError."""
    ports: dict[tuple[int, str], None] = {}
    for word in words:
        match = _PORT.fullmatch(word)
        protocol = (match[3] or "tcp").lower() if match else ""
        first = int(match[1]) if match else -1
        last = int(match[2] or first) if match else -1
        if match is None or protocol not in _PROTOCOLS or not 0 <= first <= last <= 65535:
            raise DockerfileError(f"{word!r} is no port", span, hint="EXPOSE 8080, EXPOSE 53/udp or EXPOSE 9000-9005")
        ports |= dict.fromkeys((number, protocol) for number in range(first, last + 1))
    return tuple(f"{number}/{protocol}" for number, protocol in sorted(ports))


def mode_of(text: str, span: Span) -> str:
    """What --chmod gives, if it is a mode. Raises DockerfileError."""
    if is_mode(text):
        return text
    raise DockerfileError(f"--chmod={text} is no mode", span, hint="--chmod=755, at most 7777, or --chmod=u=rwX,go=rX")


def stop_signal(text: str, span: Span) -> str:
    """The signal as given, if it is one. Raises DockerfileError."""
    name = text.upper().removeprefix("SIG")
    names = {each.name.removeprefix("SIG") for each in signal.Signals}
    is_number = text.isascii() and text.isdecimal() and len(text) < 4 and 0 < int(text) <= _MAX_SIGNAL
    if not is_number and name not in names and not re.fullmatch(r"RTM(IN\+|AX-)([0-9]|1[0-5])", name):
        raise DockerfileError(f"{text!r} is no signal", span, hint="STOPSIGNAL SIGTERM, or its number")
    return text


def go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: 1h30m0s, 1.5s, 250ms (time.Duration.String)."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    return text + (f"{minutes}m" if hours or minutes else "") + _decimal(rest, 1_000_000_000) + "s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if rest else str(whole)
