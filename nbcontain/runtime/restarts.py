"""Whether a container that ended is started again, and when: docker's restart policies and its back-off. Pure."""

from __future__ import annotations

from nbcontain.errors import UsageError
from nbcontain.values import dataclass

POLICIES = ("no", "on-failure", "always", "unless-stopped")
_FIRST_S = 0.1
_LONGEST_S = 60.0
_LASTING_S = 10.0
"""A run of so long makes the next delay the first one again."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`no`, `on-failure[:n]`, `always` or `unless-stopped`."""

    name: str = "no"
    most: int = 0
    """How many times at most, for on-failure; 0 is no limit."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """What --restart was told. Raises UsageError."""
        name, colon, most = (text or "no").partition(":")
        if name not in POLICIES:
            raise UsageError(f"--restart {text}: there is no such policy", hint=", ".join(POLICIES))
        if colon and not (most.isascii() and most.isdecimal() and len(most) < 10):
            raise UsageError(f"--restart {text}: {most!r} is no number of times", hint="--restart on-failure:5")
        if colon and name != "on-failure":
            raise UsageError(f"--restart {text}: only on-failure can be told how many times")
        return cls(name, int(most) if colon else 0)

    def __str__(self) -> str:
        return f"{self.name}:{self.most}" if self.most else self.name

    def restarts(self, exit_code: int, count: int) -> bool:
        """After a program that ended with this code by itself, and was started again `count` times so far."""
        if self.name == "on-failure":
            return exit_code != 0 and (self.most == 0 or count < self.most)
        return self.name in ("always", "unless-stopped")

    def boots(self, *, by_hand: bool) -> bool:
        """After the machine has started; `by_hand` is whether somebody had stopped it."""
        return self.name == "always" or (self.name == "unless-stopped" and not by_hand)


def delay_s(last_s: float, ran_s: float) -> float:
    """How long to wait, when it was `last_s` the time before (0 if there was none) and the program ran for `ran_s`."""
    if last_s <= 0 or ran_s >= _LASTING_S:
        return _FIRST_S
    return min(_LONGEST_S, 2 * last_s)
