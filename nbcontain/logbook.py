"""What a container wrote, as lines: `container.logs(grep="error")`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from nbcontain.errors import UsageError
from nbcontain.events import Output, Record
from nbcontain.values import dataclass


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
        try:
            pattern = re.compile(grep)
        except re.error as error:
            raise UsageError(f"grep={grep!r} is no regular expression", why=str(error)) from error
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


def lines_of(records: Iterable[Record]) -> Iterator[Line]:
    """The lines that were written, each when it is whole; at the end what has no end of line."""
    begun: dict[Literal["stdout", "stderr"], tuple[float, list[bytes]]] = {}
    for record in records:
        event = record.event
        if not isinstance(event, Output):
            continue
        # Joined once: megabytes without an end of line come in thousands of pieces.
        pieces = begun.pop(event.stream, (0.0, []))[1]
        first, *others = event.data.split(b"\n")
        pieces.append(first)
        for each in others:
            yield Line(record.time, event.stream, _text(b"".join(pieces)))
            pieces = [each]
        if any(pieces):
            begun[event.stream] = (record.time, pieces)
    for stream, (time, pieces) in begun.items():
        yield Line(time, stream, _text(b"".join(pieces)))


def _text(data: bytes) -> str:
    return data.removesuffix(b"\r").decode(errors="replace")
