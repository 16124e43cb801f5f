"""What a start leaves behind that takes the kernel long to take away: done a moment later. Run by the supervisor."""

from __future__ import annotations

import os
import signal

_LATER_S = 0.02
"""By then, whoever waits for the start, or for the end of what ends at once, has been told of it."""


class Remains:
    """Of one container; what is left at its supervisor's end is the kernel's."""

    def __init__(self) -> None:
        self.predecessor = 0
        """Init's, which nobody needs once that has become the program, and which ends then; 0 if there is none."""
        self.fds: list[int] = []
        """Mounts that were made for any container, and that this one did not want."""
        self._due = 0.0

    def due(self, now: float) -> list[float]:
        """Of one that has been started: take away what can be, if it is time. Gives when there is more to be done, if
        there is, by the monotonic clock."""
        if not self.predecessor and not self.fds:
            return []
        if self._due and now >= self._due:
            while self.fds:
                os.close(self.fds.pop())
            if self.predecessor and _is_reaped(self.predecessor):
                self.predecessor = 0
            if not self.predecessor:
                return []
            # Init itself stays, as with --init, and does not need it; or it is slow, and has nothing more to do.
            os.kill(self.predecessor, signal.SIGKILL)
            self._due = 0.0
        self._due = self._due or now + _LATER_S
        return [self._due]


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
