"""Waiting for something to change in a directory: by looking often, and after a moment by being told (inotify(7)).

What ends within that moment, as most of what is run and waited for does, has no instance made for it: to load what
makes one takes milliseconds, and to end one takes the kernel ten, which the end of a process waits for. The kernel
gives each user few instances, 128 usually, for all their programs together: where there is none left, waiting is
looking again and again.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.02
"""How long a wait is where the kernel tells of nothing."""
_MOMENT_S = 0.05
"""So long it is looked for, each time after an eighth of what has passed: nobody waits for much more."""
_GLANCE_S = 0.00005  # the shortest
_READ_BYTES = 1 << 16


class Watch:
    """A directory, from now on. Closed when nobody holds it any more, or before."""

    def __init__(self, directory: Path, hint: int = -1) -> None:
        """`hint` is a descriptor that can be read from once what most wait for is there; it stays the caller's. Raises
        OSError for what cannot be watched, as what is not there."""
        self._fd = self._directory = -1
        # Held, since it may have another name, or none, by the time that it is watched.
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = directory
        self._began = 0.0
        self._hint = hint

    def wait(self, timeout_s: float = 2.0) -> None:
        """Until something changes, or sooner; the time-out otherwise only guards against lost notifications."""
        if self._fd >= 0:
            if select.select([self._fd], [], [], timeout_s)[0]:
                os.read(self._fd, _READ_BYTES)
            return
        now = time.monotonic()
        self._began = self._began or now
        if now < self._began + _MOMENT_S:
            self._glance(min(timeout_s, max(_GLANCE_S, (now - self._began) / 8)))
        elif self._directory < 0 or not self._begin():
            time.sleep(min(timeout_s, POLL_S))

    def _glance(self, pause_s: float) -> None:
        """Wait that long. With a hint longer, since the clock of poll(2) knows no less than a millisecond, or until it
        comes."""
        if self._hint < 0:
            time.sleep(pause_s)
            return
        poll = select.poll()
        poll.register(self._hint, select.POLLIN)
        if poll.poll(pause_s * 1000):
            # That it has come is all that it tells.
            self._hint = -1

    def _begin(self) -> bool:
        """Be told from here on; False where there is nobody who tells. Who waits looks once more: it may have been
        before."""
        # Only now: what is short waits for none of this.
        from nbcontain.linux import syscalls

        directory, self._directory = self._directory, -1
        mask = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_CLOSE_WRITE | syscalls.IN_MOVED_TO
        try:
            self._fd = syscalls.inotify_init()
            # The directory, since a file may not be there yet; its files' events come too.
            try:
                syscalls.inotify_add_watch(self._fd, f"/proc/self/fd/{directory}", mask)
            except FileNotFoundError:
                # There is no /proc here.
                syscalls.inotify_add_watch(self._fd, str(self._path), mask)
        except OSError:
            # None is left, or it may not be read.
            self.close()
        finally:
            os.close(directory)
        return self._fd >= 0

    def close(self) -> None:
        """Idempotent. Does not wait: the kernel takes some 10 ms until all watches are surely gone."""
        fd, self._fd, directory, self._directory = self._fd, -1, self._directory, -1
        if directory >= 0:
            os.close(directory)
        if fd < 0:
            return
        if sys.is_finalizing():
            # A traceback held it until now: a thread would never begin, and start() waits for it.
            os.close(fd)
            return
        try:
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()
        except RuntimeError:
            # The interpreter is ending and makes no threads any more.
            os.close(fd)

    def __del__(self) -> None:
        self.close()
