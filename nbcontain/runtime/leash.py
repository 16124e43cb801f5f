"""What ties containers to whoever wants them. Everything here runs in the kernel."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class Leash:
    """What ties containers to whoever wants them: when it is let go, or its holder dies, they end."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)
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

    def let_go(self) -> None:
        """End what hangs on it. Any thread, any number of times."""
        with self._lock:
            for fd in (self._writing, self._reading):
                if fd >= 0:
                    os.close(fd)
            self._reading = self._writing = -1

    close = let_go
