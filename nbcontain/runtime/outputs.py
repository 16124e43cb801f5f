"""What a program writes, on its way into the journal. Everything here runs in the supervisor."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from nbcontain.journal import FileJournal
from nbcontain.runtime import output_lines
from nbcontain.runtime.bundle import ContainerInfo
from nbcontain.store.rotation import rotated

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.linux.quick_lines import QuickLines

LOST = "output was lost: the disk is full"
_READ_BYTES = 1 << 16
_FLOOD_BYTES, _PIPE_BYTES = 1 << 18, 1 << 20
"""What is read at once, and what may wait to be, of a program that fills its pipe: less is more often."""
_QUICK_BYTES = 4096
"""From here on a call of the processor's own code is worth it."""
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
        self.lost_bytes = 0
        """What the disk had no room for."""
        self.is_unheard = False
        """Nobody wants to hear it, and it is not to be kept."""
        self._task = task
        self._journal = journal
        self._quick: QuickLines | None = None
        self._may_be_quick = True
        """Not yet known to be denied."""
        self._at_once = _READ_BYTES

    def are(self, ends: Mapping[int, str], master: int = -1, peer: int = -1) -> None:
        """Read these from now on: descriptors with their names, or a terminal's `master`, and its `peer` held open."""
        self.ends = dict(ends)
        self.master, self.peer = master, peer
        if master >= 0:
            self.ends[master] = "stdout"
            os.set_blocking(master, False)

    def choose(self, info: ContainerInfo, *, leashed: bool, heard: bool) -> None:
        """Where it goes, as --log-driver says; and how large the journal may become, as --log-opt says."""
        self.is_unheard = info.log.get("driver") == "none" and not (leashed or heard)
        # Who sees --rm to its end holds this file open, and could not find another one behind it.
        self._journal.limit_bytes = 0 if info.remove and leashed else int(info.log.get("max_bytes", 0))
        self._journal.begin_anew = partial(rotated, self._journal.path, int(info.log.get("files", 1)))

    def watch(self, poll: select.poll) -> None:
        for fd in self.ends:
            poll.register(fd, select.POLLIN)

    def read(self, fd: int, poll: select.poll | None = None) -> bool:
        """Take some output; False at its end."""
        try:
            # Not more than a line where the journal is to become no larger than so much.
            data = os.read(fd, output_lines.RECORD_BYTES if self._journal.limit_bytes else self._at_once)
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
        if len(data) == _READ_BYTES:
            self._widen(fd)
        if not self.is_unheard:
            lines = self._lines(self.ends[fd], data)
            # A full disk must not stop the container: it is drained on, and what was lost is counted.
            self.lost_bytes += output_lines.missing(lines, len(data), self._journal.extend(lines))
        return True

    def _lines(self, stream: str, data: bytes) -> Sequence[bytes | memoryview]:
        now = time.time()
        quick = self._quick_lines() if len(data) >= _QUICK_BYTES else None
        if quick is None:
            return output_lines.parts(now, self._task, stream, data)
        return [quick.of(output_lines.head(now, self._task, stream), data)]

    def _quick_lines(self) -> QuickLines | None:
        if self._quick is None and self._may_be_quick:
            # Only now: what most containers have no use for, no supervisor carries with it.
            from nbcontain.linux.quick_lines import QuickLines

            try:
                self._quick = QuickLines(_FLOOD_BYTES)
            except OSError:
                self._may_be_quick = False
        return self._quick

    def _widen(self, fd: int) -> None:
        """It has filled its pipe: let it write on while we do, as far as its user may."""
        import fcntl

        self._at_once = _FLOOD_BYTES
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

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
