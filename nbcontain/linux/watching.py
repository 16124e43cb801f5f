"""Waiting for something to change in a directory (inotify(7)).

The kernel gives each user few instances, 128 usually, for all their programs together: where there is none left,
waiting is looking again and again.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from pathlib import Path

from nbcontain.linux.syscalls import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_MODIFY,
    IN_MOVED_TO,
    inotify_add_watch,
    inotify_init,
)

POLL_S = 0.02
"""How long a wait is where the kernel tells of nothing."""
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)
_READ_BYTES = 1 << 16


class Watch:
    """A directory, from now on. Closed when nobody holds it any more, or before."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError for what cannot be watched, as what is not there."""
        self._fd = -1
        try:
            self._fd = inotify_init()
            # The directory, since a file may not be there yet; its files' events come too.
            inotify_add_watch(self._fd, str(directory), IN_MODIFY | IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO)
        except OSError as error:
            self.close()
            if error.errno not in _USED_UP:
                raise

    def wait(self, timeout_s: float = 2.0) -> None:
        """Until something changes; the time-out otherwise only guards against lost notifications."""
        if self._fd < 0:
            time.sleep(min(timeout_s, POLL_S))
        elif select.select([self._fd], [], [], timeout_s)[0]:
            os.read(self._fd, _READ_BYTES)

    def close(self) -> None:
        """Idempotent. Does not wait: the kernel takes some 10 ms until all watches are surely gone."""
        fd, self._fd = self._fd, -1
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
