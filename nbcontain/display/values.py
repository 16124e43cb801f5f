"""What a command can give back, besides tables, images and containers: values that wait to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, TypeVar

from nbcontain.events import Record
from nbcontain.task import Task
from nbcontain.values import dataclass, field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InProgress(Generic[T]):
    """Work that goes on; `kind` says how to draw it while it does."""

    task: Task[T]
    kind: Literal["build", "run", "exec", "work", "pull", "push"]
    quiet: bool = False
    """Show only what comes back."""
    facts: tuple[tuple[str, str], ...] = ()
    """Small print for its card."""
    whole_log: str = ""
    """How to see output that a cell has to leave out."""
    display: str = ""
    """How it is to be shown, where that was asked for: card, html, plain, or rawjson (events, one a line)."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of plain text, each an object's name or number, as docker prints them."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document."""

    value: object


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something to draw, and what a terminal's command ends with."""

    value: object
    exit_status: int


@dataclass(frozen=True, slots=True)
class Log:
    """What a container wrote. Following, it goes on until the container ends."""

    records: Iterator[Record] = field(compare=False)
    timestamps: bool = False
