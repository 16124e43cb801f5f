"""Bytes on their way to a worker through memory that both see: each is copied once, where a pipe copies it twice.

The memory is so many slots of one size, which is the first thing that a pipe says; then it says how many bytes are in
the next slot, four bytes each time. On another comes one byte for each slot that was read. Whoever writes trusts what
comes back for nothing but that there is room: the worker may have been taken over by what it reads.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

SLOT_BYTES = 256 << 10
"""What the processor's cache holds."""
_SLOTS = 32
"""8 MiB: a worker is quick with large files and slow with small ones, and whoever feeds it need not wait for that."""
_WORD_BYTES = 4
_SEAL_FUTURE_WRITE = 0x10
"""fcntl(2)'s F_SEAL_FUTURE_WRITE, Linux 5.1: who has mapped it already writes to it, and nobody else."""
DESCRIPTORS = 3
"""So many make the other end."""


class Sender:
    """The end that is written to, by one thread. `fds` make the other (`Received`)."""

    def __init__(self, slot_bytes: int = SLOT_BYTES, slots: int = _SLOTS) -> None:
        self.slots = slots
        self._slot_bytes = slot_bytes
        memory = os.memfd_create("nbcontain-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with ExitStack() as stack:
            stack.callback(os.close, memory)
            # All of it now: who writes to memory that is not to be had later, or was cut off, is killed.
            os.posix_fallocate(memory, 0, slots * slot_bytes)
            self._memory = mmap.mmap(memory, slots * slot_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            words, self._words = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, words)
            stack.callback(os.close, self._words)
            self._freed, freed = os.pipe2(os.O_CLOEXEC)
            stack.pop_all()
        self.fds: tuple[int, ...] = (memory, words, freed)
        self._view = memoryview(self._memory)
        self._next = 0
        self._room = slots
        os.write(self._words, slot_bytes.to_bytes(_WORD_BYTES, "big"))

    def slot(self) -> memoryview:
        """The next slot, to be filled from its beginning, when it was read. Raises BrokenPipeError if nobody reads."""
        if not self._room:
            freed = os.read(self._freed, self.slots)
            if not freed:
                raise BrokenPipeError(errno.EPIPE, "nobody reads any more")
            self._room = len(freed)
        start = self._next * self._slot_bytes
        return self._view[start : start + self._slot_bytes]

    def send(self, count: int) -> None:
        """So many bytes of that slot are to be read. They stay as they are until `slot` gives it again."""
        self._next = (self._next + 1) % self.slots
        self._room -= 1
        os.write(self._words, count.to_bytes(_WORD_BYTES, "big"))

    def write(self, data: bytes | memoryview) -> None:
        """Have this read, when there is room. Raises BrokenPipeError if nobody reads any more."""
        rest = memoryview(data)
        while rest:
            count = min(len(rest), self._slot_bytes)
            self.slot()[:count] = rest[:count]
            self.send(count)
            rest = rest[count:]

    def close(self) -> None:
        """That was all, or all that will come. Idempotent."""
        if self._words >= 0:
            os.close(self._words)
            os.close(self._freed)
            self._words = -1
            # A slot that somebody still looks at, a traceback for one, goes with him.
            with suppress(BufferError):
                self._view.release()
                self._memory.close()

    def leave(self) -> None:
        """The other end is somebody else's now, or nobody's: whoever writes is told when it is gone. Idempotent."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


class Received:
    """The other end, in the worker: what was written, in pieces. The descriptors stay open."""

    def __init__(self, fds: Sequence[int]) -> None:
        memory, self._words, self._freed = fds
        self._memory = memoryview(mmap.mmap(memory, 0, prot=mmap.PROT_READ))
        self._slot_bytes = self._word()
        self._next = 0
        self._is_reading = False

    def chunk(self) -> memoryview:
        """Some more, valid until the next call; nothing at the end."""
        if self._is_reading:
            # Nobody may wait for it any more.
            with suppress(BrokenPipeError):
                os.write(self._freed, b"\0")
        count = self._word()
        self._is_reading = bool(count)
        start = self._next
        self._next = (start + self._slot_bytes) % len(self._memory)
        return self._memory[start : start + count]

    def _word(self) -> int:
        return int.from_bytes(os.read(self._words, _WORD_BYTES), "big")
