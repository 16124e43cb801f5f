"""Docker's words for what a program may use: --ulimit nofile=1024:2048, --shm-size 64m. Pure."""

from __future__ import annotations

import re

from nbcontain.errors import UsageError
from nbcontain.oci.spec import Rlimit

UNLIMITED = (1 << 64) - 1
_SIZE = r"(?i)([0-9]{1,18}(?:\.[0-9]{1,6})?) ?([bkmgtp]?)i?b?"
_NUMBER = r"-1|unlimited|[0-9]{1,19}"


def size_bytes(text: str, flag: str) -> int:
    """ "64m" in bytes: as docker reads memory, a k is 1024 (RAMInBytes). Raises UsageError."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise UsageError(f"{flag} {text}: invalid size", hint=f"{flag} 64m, or 1g")
    return int(float(match[1]) * 1024 ** "bkmgtp".index(match[2].lower() or "b"))


def ulimit(text: str) -> Rlimit:
    """TYPE=SOFT[:HARD], where one number is both and -1 is no limit. Raises UsageError."""
    from nbcontain.linux.confine import RLIMITS

    name, equals, numbers = text.partition("=")
    soft, colon, hard = numbers.partition(":")
    if not equals or not numbers:
        raise UsageError(f"--ulimit {text}: invalid ulimit argument", hint="--ulimit nofile=1024, or nofile=1024:2048")
    if name not in RLIMITS:
        raise UsageError(f"--ulimit {text}: invalid ulimit type: {name}", hint=", ".join(RLIMITS))
    for each in (soft, *([hard] if colon else [])):
        if re.fullmatch(_NUMBER, each) is None:
            raise UsageError(f"--ulimit {text}: {each!r} is no number", hint="-1 is no limit at all")
    low, high = _number(soft), _number(hard if colon else soft)
    if low > high:
        raise UsageError(
            f"--ulimit {text}: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return Rlimit(f"RLIMIT_{name.upper()}", low, high)


def ulimits(texts: tuple[str, ...]) -> tuple[Rlimit, ...]:
    """All of them; of two for the same, the later one. Raises UsageError."""
    return tuple({each.type: each for each in map(ulimit, texts)}.values())


def _number(text: str) -> int:
    return UNLIMITED if text in ("-1", "unlimited") else min(int(text), UNLIMITED)
