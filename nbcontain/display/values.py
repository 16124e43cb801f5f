"""What a command can give back, besides tables, images and containers: values that wait to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from nbcontain.consoles import Session, Size
from nbcontain.display.ansi import sanitized
from nbcontain.events import Emit, Record
from nbcontain.task import Task

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
class Interactive:
    """Something that wants the user's own terminal. Nothing has happened yet: `begin` makes it happen."""

    begin: Callable[[Size, Emit], Session] = field(compare=False)
    detach_keys: str
    types: bool
    """What is typed goes to it."""
    is_raw: bool
    """It has a terminal itself: everything goes through untouched, both ways."""
    elsewhere: Callable[[], object] | None = field(default=None, compare=False)
    """What there is instead where there is no terminal, as in a notebook; None is nothing."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of plain text, each an object's name or number, as docker prints them."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        # Labels and instructions are other people's texts, and a cell follows a terminal's control sequences.
        return sanitized("\n".join(self.lines))


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
