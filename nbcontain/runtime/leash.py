"""What ties containers to whoever wants them. Everything here runs in the kernel."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class Leash:
    """What ties containers to whoever wants them: when it is let go, or its holder dies, they end."""

    def __init__(self, *, hears: bool = False) -> None:
        """`hears` where it ties one container, whose end is waited for."""
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self.ending, self._telling = os.pipe2(os.O_CLOEXEC) if hears else (-1, -1)
        """`ending` is at its end when its supervisor has written down how the container ended."""
        self._lock = threading.Lock()

    def __enter__(self) -> Leash:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def end(self) -> int:
        """A new descriptor of the end that supervisors watch."""
        with self._lock:
            if self._reading < 0:
                # Let go already: an end that is at its end.
                reading, writing = os.pipe2(os.O_CLOEXEC)
                os.close(writing)
                return reading
            return os.dup(self._reading)

    def telling(self) -> int:
        """The end of `ending` that the supervisor has, and nobody else; -1 where nobody waits for that. Once."""
        telling, self._telling = self._telling, -1
        return telling

    def let_go(self) -> None:
        """End what hangs on it. Any thread, any number of times."""
        with self._lock:
            for fd in (self._writing, self._reading):
                if fd >= 0:
                    os.close(fd)
            self._reading = self._writing = -1

    def close(self) -> None:
        """The same, by who has it, and waits for nothing any more."""
        self.let_go()
        ending, self.ending = self.ending, -1
        for fd in (ending, self.telling()):
            if fd >= 0:
                os.close(fd)
