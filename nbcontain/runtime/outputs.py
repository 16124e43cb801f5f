"""What a program writes, on its way into the journal. Everything here runs in the supervisor."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping

from nbcontain.events import Output
from nbcontain.journal import FileJournal

LOST = "output was lost: the disk is full"
_READ_BYTES = 1 << 16
_DRAIN_S = 5.0


class Outputs:
    """Our ends of one program's outputs: two pipes, or one terminal."""

    def __init__(self, task: str, journal: FileJournal) -> None:
        self.ends: dict[int, str] = {}
        """What each is called, by its descriptor."""
        self.peer = -1
        """The terminal's other end. As long as we hold it, nobody inside can be the last to close it."""
        self.master = -1
        """The terminal, if it is one: it is among the ends."""
        self.has_lost = False
        self._task = task
        self._journal = journal

    def are(self, ends: Mapping[int, str], master: int = -1, peer: int = -1) -> None:
        """These."""
        self.ends = dict(ends)
        self.master, self.peer = master, peer
        if master >= 0:
            self.ends[master] = "stdout"
            os.set_blocking(master, False)

    def watch(self, poll: select.poll) -> None:
        for fd in self.ends:
            poll.register(fd, select.POLLIN)

    def read(self, fd: int, poll: select.poll | None = None) -> bool:
        """Take some output; False at its end."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            # EIO is how a terminal ends.
            data = b""
        if not data:
            if poll is not None:
                poll.unregister(fd)
            os.close(fd)
            del self.ends[fd]
            if fd == self.master:
                self.master = -1
            return False
        try:
            self._journal.append(Output(self._task, "stdout" if self.ends[fd] == "stdout" else "stderr", data))
        except OSError:
            # A full disk must not stop the container: it is drained on, and what was lost is lost.
            self.has_lost = True
        return True

    def drain(self) -> None:
        """Everything inside is dead, so they end; unless somebody outside was handed one."""
        if self.peer >= 0:
            os.close(self.peer)
            self.peer = -1
        deadline = time.monotonic() + _DRAIN_S
        while self.ends and time.monotonic() < deadline:
            poll = select.poll()
            self.watch(poll)
            for fd, _ in poll.poll(100):
                self.read(fd)
