"""Append-only accounts of what happens: in memory for work that dies with the kernel, in a file for containers.

Any number of followers reads each from the start; none can slow the writer, and none can tell which
kind it follows.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.events import Event, Finished, Notice, Output, Record, decode, encode
from nbcontain.segments import Reader
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.linux.watching import Watch

_MISSING = "output is missing here: it was removed, as --log-opt says, before it was read"
_BATCH_BYTES = 4 << 20
"""Who is behind gets so much at once, to pass over what need not be looked at."""
KEPT_OUTPUT_BYTES = 64 << 20
"""What a kernel keeps of a foreground container's output; the whole of a detached one's is on disk."""


class MemoryJournal:
    """A journal in memory, for work that dies with the process.

    Of output it keeps the last `KEPT_OUTPUT_BYTES`; older records stay, emptied, so that positions hold.
    """

    def __init__(self) -> None:
        # Not loaded by supervisors, who have none of these: it does a good deal in each process that is forked.
        from threading import Condition

        self._records: list[Record] = []
        self._closed = False
        self._changed = Condition()
        self._output_bytes = 0
        self._oldest_output = 0

    def append(self, event: Event) -> None:
        with self._changed:
            self._records.append(Record(time.time(), event))
            if isinstance(event, Output):
                self._output_bytes += len(event.data)
                self._empty_oldest()
            self._changed.notify_all()

    def _empty_oldest(self) -> None:
        while self._output_bytes > KEPT_OUTPUT_BYTES:
            record = self._records[self._oldest_output]
            if isinstance(record.event, Output):
                self._output_bytes -= len(record.event.data)
                self._records[self._oldest_output] = replace(record, event=replace(record.event, data=b""))
            self._oldest_output += 1

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self, start: int = 0) -> list[Record]:
        """The records from number `start` on that are there now; does not wait."""
        return self._records[start:]

    def follow(self) -> Iterator[Record]:
        position = 0
        while True:
            with self._changed:
                while position == len(self._records) and not self._closed:
                    self._changed.wait()
                batch = self._records[position:]
                if not batch:
                    return
            position += len(batch)
            yield from batch


class FileJournal:
    """A journal in a file: one writer, the container's supervisor; followers in any process.

    `follow` ends with the `Finished` of the task that the first record started, or, where the writer
    died before it could write that, with a `Finished(outcome="lost")` that it makes up. Whether a
    writer lives is told by `is_alive`, which looks whether somebody holds the container's lock.
    """

    def __init__(self, path: Path, is_alive: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        self.limit_bytes = 0
        """From this size on `begin_anew` is asked for another file; 0 is never."""
        self.begin_anew: Callable[[], int] | None = None
        self._is_alive = is_alive
        self._fd: int | None = None
        self._is_torn = False

    # --- writing: supervisor ---

    def open(self) -> None:
        """Make the file, so that whoever follows from here on holds it, whatever becomes of its name."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def adopt(self, fd: int, *, is_torn: bool = False) -> None:
        """Write to this open journal, whose last line may be torn: an empty one, if it is not, is nobody's."""
        self._fd = fd
        self._is_torn = is_torn

    def fileno(self) -> int:
        """What it is written to."""
        self.open()
        assert self._fd is not None
        return self._fd

    def append(self, event: Event) -> None:
        """Write it down. Raises OSError where the disk takes no more; the next one begins on a line of its own."""
        line = encode(Record(time.time(), event))
        if self._write([line]) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def extend(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write down what together is whole lines; gives how many of their bytes the disk took."""
        try:
            return self._write(parts)
        except OSError:
            return 0

    def _write(self, parts: Sequence[bytes | memoryview]) -> int:
        gap = [b"\n"] if self._is_torn else []
        written = os.writev(self.fileno(), [*gap, *parts]) - len(gap)
        self._is_torn = written < sum(map(len, parts))
        if self.limit_bytes:
            self.make_room()
        return written

    def make_room(self) -> None:
        """Begin another file, if this one is as large as it may be."""
        # Appending has moved the position to the end.
        if self.begin_anew is None or os.lseek(self.fileno(), 0, os.SEEK_CUR) < self.limit_bytes:
            return
        try:
            fresh = self.begin_anew()
        except (OSError, StoreError):
            # No room for a new one: the old one grows on, and is tried again.
            return
        self.close()
        self._fd = fresh

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # --- reading: anybody ---

    def read(self) -> list[Record]:
        """What is there now; does not wait. A last line that is not whole is left out."""
        return list(self.records())

    def records(self) -> Iterator[Record]:
        """The same, one after the other: a log may be larger than memory."""
        try:
            reader = Reader(self.path)
        except FileNotFoundError:
            return
        rest = b""
        try:
            for chunk in reader.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from _decoded(lines)
        finally:
            reader.close()

    def follow(
        self, at_end: Callable[[], object] = lambda: None, *, from_now: str = "", to_the_last: bool = False,
        tail: int | None = None, until: float | None = None, enough: Callable[[], bool] = lambda: False,
        ending: int = -1,
    ) -> Generator[Record]:  # fmt: skip
        """The same as `batches`, one record after the other."""
        return one_by_one(self.batches(
            at_end, from_now=from_now, to_the_last=to_the_last, tail=tail, until=until, enough=enough, ending=ending
        ))  # fmt: skip

    def batches(
        self, at_end: Callable[[], object] = lambda: None, *, from_now: str = "", to_the_last: bool = False,
        tail: int | None = None, until: float | None = None, enough: Callable[[], bool] = lambda: False,
        ending: int = -1,
    ) -> Generator[list[Record]]:  # fmt: skip
        """Every record from the first that is kept; waits for more; ends when the run that is going on, or was, ends.

        The file is opened before this returns. A container that was restarted has several runs in its
        journal: a `Finished` ends the account only where nothing comes after it, or `to_the_last` only when nobody
        writes any more. `at_end` is called then, or where there is nothing to follow. `from_now` is the task of which
        only is wanted what comes after this call; of what is there already, `tail` is how many lines of output are
        wanted. At the time `until` it ends, and within two seconds after there was `enough`. `ending` is a descriptor
        that can be read from once the end of the run has been written, for who does not look each moment whether it is.
        """
        from nbcontain.linux.watching import Watch

        with ExitStack() as opened:
            opened.callback(at_end)
            watch = Watch(self.path.parent, ending)
            opened.callback(watch.close)
            reader = Reader(self.path, from_now=bool(from_now))
            opened.pop_all()
        batches = self._batches(watch, reader, from_now or None, at_end, to_the_last, tail, until, enough)
        # Begun, since a generator that was never begun closes nothing when it is closed.
        next(batches)
        return batches

    def _batches(
        self, watch: Watch, reader: Reader, task: str | None, at_end: Callable[[], object], to_the_last: bool,
        tail: int | None, until: float | None, enough: Callable[[], bool],
    ) -> Generator[list[Record]]:  # fmt: skip
        rest = b""
        ended = False
        missed = 0
        last = Tail(tail) if tail is not None else None
        try:
            yield []  # for `batches`
            while True:
                # Asked before reading: whatever the writer wrote before it died is then read below.
                alive = self._is_alive()
                size_bytes = 0
                batch: list[Record] = []
                while size_bytes < _BATCH_BYTES and (chunk := reader.chunk()):
                    size_bytes += len(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    if reader.missed > missed:
                        missed = reader.missed
                        batch.append(Record(time.time(), Notice(task or "", _MISSING)))
                    for record in _decoded(lines):
                        if task is None:
                            task = record.event.task
                        ended = isinstance(record.event, Finished) and record.event.task == task
                        batch.append(record)
                if last is not None:
                    for record in batch:
                        last.add(record)
                    if size_bytes:
                        continue
                    batch, last = list(last.records()), None
                if batch:
                    yield batch
                if size_bytes and not enough():
                    continue
                if enough() or (until is not None and time.time() > until):
                    return
                if ended and not (to_the_last and alive):
                    return
                if not alive:
                    yield [Record(time.time(), Finished(task or "", "lost", detail="its supervisor is gone"))]
                    return
                longest_s = 0.05 if ended else 2.0
                watch.wait(longest_s if until is None else max(0.0, min(longest_s, until - time.time())))
        finally:
            watch.close()
            reader.close()
            at_end()


def one_by_one(batches: Generator[list[Record]]) -> Generator[Record]:
    """What is in them, one after the other; whoever closes it closes them."""

    def records() -> Generator[Record]:
        try:
            yield Record(0.0, Notice("", ""))  # to be begun, as above
            for batch in batches:
                yield from batch
        finally:
            batches.close()

    found = records()
    next(found)
    return found


def between(records: Iterator[Record], since: float | None, until: float | None) -> Iterator[Record]:
    """What was written from the one time to the other."""
    for record in records:
        if until is not None and record.time > until:
            return
        if isinstance(record.event, Output) and (since is None or record.time >= since):
            yield record


class Tail:
    """The records that hold the last `count` lines of both streams together, the first one cut to fit."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: deque[tuple[Record, int]] = deque()
        """Each with how many lines begin in it."""
        self._lines = 0
        self._is_within = {"stdout": False, "stderr": False}

    def add(self, record: Record) -> None:
        event = record.event
        if not isinstance(event, Output) or not event.data:
            return
        begun = len(_lines(event.data)) - self._is_within[event.stream]
        self._is_within[event.stream] = not event.data.endswith(b"\n")
        self._kept.append((record, begun))
        self._lines += begun
        # Those before, of which nothing is wanted; the rest of a line that began in one goes below.
        while self._kept and self._lines - self._kept[0][1] > self._count:
            self._lines -= self._kept.popleft()[1]

    def records(self) -> Iterator[Record]:
        too_many = max(0, self._lines - self._count)
        is_wanted = {"stdout": False, "stderr": False}
        for record, begun in self._kept:
            event = record.event
            assert isinstance(event, Output)
            lines = _lines(event.data)
            kept = []
            for number, line in enumerate(lines):
                if number >= len(lines) - begun:
                    is_wanted[event.stream] = too_many <= 0
                    too_many -= 1
                if is_wanted[event.stream]:
                    kept.append(line)
            if kept:
                yield replace(record, event=replace(event, data=b"".join(kept)))


def _lines(data: bytes) -> list[bytes]:
    """Each with its line feed; the last may have none."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def _decoded(lines: list[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            yield decode(line)
        except ValueError:
            # A torn line, from a disk that filled up or a writer that was killed: what follows is still good.
            continue
