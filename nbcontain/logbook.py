"""What a container wrote, as lines: `container.logs(grep="error")`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from nbcontain.errors import UsageError
from nbcontain.events import Output, Record
from nbcontain.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end: when its last piece came, where it was written to, and what it says."""

    time: float
    """Seconds since the epoch."""
    stream: Literal["stdout", "stderr"]
    text: str

    def __str__(self) -> str:
        return self.text


class Logs:
    """Lines of a container's output. Iterating one that follows waits for more, until the container ends."""

    def __init__(self, records: Iterable[Record], grep: str = "", streams: tuple[str, ...] = ("stdout", "stderr"),
                 *, follow: bool = False) -> None:  # fmt: skip
        """Only lines in which the regular expression `grep` is found. Raises UsageError for what is none."""
        pattern = expression(grep, f"grep={grep!r}")
        found = (each for each in lines_of(records) if each.stream in streams and pattern.search(each.text))
        self._live = found if follow else None
        self._lines = [] if follow else list(found)

    @property
    def lines(self) -> list[Line]:
        """All of them; of one that follows those that were iterated over."""
        return self._lines

    def __iter__(self) -> Iterator[str]:
        yield from (each.text for each in self._lines)
        if self._live is not None:
            for each in self._live:
                self._lines.append(each)
                yield each.text

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, place: int) -> Line:
        return self._lines[place]

    def __contains__(self, text: str) -> bool:
        return any(text in each.text for each in self._lines)

    def __str__(self) -> str:
        return "".join(f"{each.text}\n" for each in self._lines)

    def __repr__(self) -> str:
        many = "line" if len(self) == 1 else "lines"
        return f"<Logs {len(self)} {many}{', following' if self._live is not None else ''}>"

    def to_dict(self) -> list[dict[str, Any]]:
        """A dictionary a line."""
        return [{"time": each.time, "stream": each.stream, "text": each.text} for each in self._lines]

    @property
    def df(self) -> Any:
        """The lines as a pandas DataFrame. Raises Unavailable."""
        from datetime import UTC, datetime

        from nbcontain import objects

        rows = [each | {"time": datetime.fromtimestamp(each["time"], UTC)} for each in self.to_dict()]
        return objects.frame(rows, ("time", "stream", "text"))


def expression(text: str, said: str) -> re.Pattern[str]:
    """A regular expression. Raises UsageError for what is none, which is called as it was `said`."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{said} is no regular expression", why=str(error)) from error


def lines_of(records: Iterable[Record]) -> Iterator[Line]:
    """The lines that were written, each when it is whole; at the end what has no end of line."""
    for record, event, data in _whole(records):
        yield Line(record.time, event.stream, _text(data))


def searched(records: Iterable[Record], pattern: re.Pattern[str], streams: Collection[str]) -> Iterator[Record]:
    """The same as records, byte for byte: those of these streams in which the pattern is found."""
    for record, event, data in _whole(records):
        if event.stream in streams and pattern.search(_text(data)):
            yield replace(record, event=replace(event, data=data))


def _whole(records: Iterable[Record]) -> Iterator[tuple[Record, Output, bytes]]:
    """The bytes of each line with its end, and the record and the event that brought that."""
    begun: dict[Literal["stdout", "stderr"], tuple[Record, Output, list[bytes]]] = {}
    for record in records:
        event = record.event
        if not isinstance(event, Output):
            continue
        # Joined once: megabytes without an end of line come in thousands of pieces.
        pieces = begun.pop(event.stream, (record, event, []))[2]
        first, *others = event.data.split(b"\n")
        pieces.append(first)
        for each in others:
            pieces.append(b"\n")
            yield record, event, b"".join(pieces)
            pieces = [each]
        if any(pieces):
            begun[event.stream] = (record, event, pieces)
    for last, ending, pieces in begun.values():
        yield last, ending, b"".join(pieces)


def _text(data: bytes) -> str:
    return data.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")
