"""Small values of instructions, once their variables are filled in: ports, modes, signals."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from nbcontain.dockerfile.arguments import refuse_feature
from nbcontain.errors import DockerfileError, Span

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_SYMBOLIC_MODE = re.compile(r"[ugoa]*([-+=][rwxXstugo]*)+(,[ugoa]*([-+=][rwxXstugo]*)+)*")
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


def mode_of(text: str, span: Span) -> int:
    """The mode bits that --chmod gives in octal. Raises DockerfileError."""
    if re.fullmatch(r"0*[0-7]{1,4}", text):
        return int(text, 8)
    if _SYMBOLIC_MODE.fullmatch(text):
        refuse_feature(f"--chmod={text} in letters", span, hint="Write the mode in octal: --chmod=755")
    raise DockerfileError(f"--chmod={text} is no mode", span, hint="Write it in octal, at most 7777: --chmod=755")


def stop_signal(text: str, span: Span) -> str:
    """The signal as given, if it is one. Raises DockerfileError."""
    name = text.upper().removeprefix("SIG")
    names = {each.name.removeprefix("SIG") for each in signal.Signals}
    is_number = text.isascii() and text.isdecimal() and len(text) < 4 and 0 < int(text) <= _MAX_SIGNAL
    if not is_number and name not in names and not re.fullmatch(r"RTM(IN\+|AX-)([0-9]|1[0-5])", name):
        raise DockerfileError(f"{text!r} is no signal", span, hint="STOPSIGNAL SIGTERM, or its number")
    return text
