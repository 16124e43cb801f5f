"""A program's output as the output of a cell, a terminal or a pipe.

A pipe gets the bytes. A terminal gets text without control functions other than colours. A cell gets
that in batches and with a limit: notebook servers drop more than 1 MB/s silently, and whatever a cell
shows is saved.
"""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable
from typing import Literal, Protocol, TextIO

from nbcontain.display import words
from nbcontain.display.ansi import split_unfinished
from nbcontain.display.harmless import sanitized
from nbcontain.values import dataclass

StreamName = Literal["stdout", "stderr"]

_GAP_S = 1.0
"""While a flood lasts, a cell shows where it is this often."""


class Writer(Protocol):
    """Takes what a program wrote; `flush` is called about ten times a second, in the cell's own thread."""

    def write(self, stream: StreamName, data: bytes) -> None: ...

    def line(self, text: str) -> None:
        """A line of ours; the text is clean."""
        ...

    def flush(self, is_last: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a cell shows."""

    burst_lines: int = 1000
    lines_per_s: int = 500
    burst_bytes: int = 256_000
    bytes_per_s: int = 256_000
    all_lines: int = 5_000
    all_bytes: int = 2_000_000
    last_lines: int = 50
    """Shown at the end in any case."""
    line_characters: int = 16_384


def writer(whole_log: str = "") -> Writer:
    """The writer for where standard output goes now."""
    if type(sys.stdout).__module__.startswith("ipykernel"):
        return CellWriter(whole_log=whole_log)
    return TerminalWriter(sys.stdout, sys.stderr)


class TerminalWriter:
    """Writes on as it comes: text to a terminal or a string, bytes to a pipe or file."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._files = {"stdout": stdout, "stderr": stderr}
        self._texts = {"stdout": _Text(), "stderr": _Text()}

    def write(self, stream: StreamName, data: bytes) -> None:
        file = self._files[stream]
        binary = getattr(file, "buffer", None)
        if binary is not None and not file.isatty():
            file.flush()
            binary.write(data)
            binary.flush()
        else:
            file.write(self._texts[stream].take(data))

    def line(self, text: str) -> None:
        self._files["stdout"].write(text + "\n")

    def flush(self, is_last: bool = False) -> None:
        for file in self._files.values():
            file.flush()


class CellWriter:
    """Writes to a cell in batches; what is over the limits is left out, and the gap is said."""

    def __init__(
        self, limits: Limits | None = None, whole_log: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits or Limits()
        self._whole_log = whole_log
        self._clock = clock
        self._texts = {"stdout": _Text(), "stderr": _Text()}
        self._pending: list[tuple[str, str]] = []
        """Stream and line with its newline, or a part of a line."""
        self._is_behind = False
        """Something was left out since the last gap that was told."""
        self._skipped = 0
        """So many lines."""
        self._lines_left = float(self._limits.burst_lines)
        self._bytes_left = float(self._limits.burst_bytes)
        self._all_lines_left = self._limits.all_lines
        self._all_bytes_left = self._limits.all_bytes
        self._then = clock()
        self._gap_at = self._then
        self._is_at_line_start = True

    def write(self, stream: StreamName, data: bytes) -> None:
        if len(self._pending) > self._limits.burst_lines:
            self.flush()
        if self._is_behind:
            # Of what cannot be shown in any case only the lines are counted.
            before, *last = data.rsplit(b"\n", self._limits.last_lines + 1)
            if len(last) > self._limits.last_lines:
                self._texts[stream] = _Text()
                self._drop(len(self._pending))
                self._skipped += before.count(b"\n") + 1
                data = b"\n".join(last)
        self._add(stream, self._texts[stream].take(data))

    def line(self, text: str) -> None:
        self._add("stdout", text + "\n")

    def flush(self, is_last: bool = False) -> None:
        self._refill()
        if not self._is_behind:
            fitting = self._fitting()
            head, self._pending = self._pending[:fitting], self._pending[fitting:]
            self._print(head)
            self._gap_at = self._then
        self._drop(max(0, len(self._pending) - self._limits.last_lines))
        has_room = self._lines_left >= len(self._pending) and self._all_lines_left > 0
        if is_last or (has_room and self._is_behind and self._then - self._gap_at >= _GAP_S):
            tail, self._pending = self._pending, []
            if self._is_behind:
                tail.insert(0, ("stdout", self._gap()))
                self._is_behind, self._skipped = False, 0
            self._print(tail)

    def _add(self, stream: str, text: str) -> None:
        limit = self._limits.line_characters
        for line in _lines_of(text):
            if len(line) > limit:
                line = line[:limit] + "…" + ("\n" if line.endswith("\n") else "")
            self._pending.append((stream, line))

    def _refill(self) -> None:
        now = self._clock()
        limits, passed, self._then = self._limits, now - self._then, now
        self._lines_left = min(limits.burst_lines, self._lines_left + passed * limits.lines_per_s)
        self._bytes_left = min(limits.burst_bytes, self._bytes_left + passed * limits.bytes_per_s)

    def _fitting(self) -> int:
        """How many of the pending lines the limits allow now."""
        lines = max(0, int(min(self._lines_left, self._all_lines_left)))
        size = min(self._bytes_left, self._all_bytes_left)
        for count, (_, line) in enumerate(self._pending[:lines]):
            size -= len(line)
            if size < 0:
                return count
        return min(lines, len(self._pending))

    def _drop(self, count: int) -> None:
        """Leave out the first of what is pending."""
        self._is_behind = self._is_behind or count > 0
        self._skipped += sum(line.endswith("\n") for _, line in self._pending[:count])
        del self._pending[:count]

    def _gap(self) -> str:
        where = f" · {self._whole_log}" if self._whole_log else ""
        begin = "" if self._is_at_line_start else "\n"
        what = words.count(self._skipped, "line") if self._skipped else "a part of a line"
        return f"{begin}… {what} skipped{where}\n"

    def _print(self, batches: list[tuple[str, str]]) -> None:
        begin = 0
        for end in range(1, len(batches) + 1):
            if end == len(batches) or batches[end][0] != batches[begin][0]:
                text = "".join(line for _, line in batches[begin:end])
                file = sys.stderr if batches[begin][0] == "stderr" else sys.stdout
                file.write(text)
                file.flush()
                begin = end
        if batches:
            size = sum(len(line) for _, line in batches)
            self._lines_left -= len(batches)
            self._bytes_left -= size
            self._all_lines_left -= len(batches)
            self._all_bytes_left -= size
            self._is_at_line_start = batches[-1][1].endswith("\n")


class _Text:
    """One stream's bytes as clean text; a character or control function that is not whole waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def take(self, data: bytes) -> str:
        text, self._rest = split_unfinished(self._rest + self._decoder.decode(data))
        return sanitized(text)


def _lines_of(text: str) -> list[str]:
    """Lines with their newlines; carriage returns stay inside."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]
