"""What a command can give back, besides tables, images and containers: values that wait to be drawn."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from nbcontain.display.harmless import sanitized
from nbcontain.display.table import Table
from nbcontain.events import Emit, Record
from nbcontain.task import Task
from nbcontain.values import dataclass, field

if TYPE_CHECKING:
    from nbcontain.consoles import Session, Size
    from nbcontain.sig_proxy import SignalProxy

T = TypeVar("T")
_SHOWN_BYTES = 256 << 10


Kind = Literal["build", "run", "exec", "work", "wait", "pull", "push", "import", "convert", "up"]
"""What is shown: "run" streams the output below a slim card; "exec" too, with the card only if it takes a while;
"work" and "wait" are shown only if they take a while and say what they do; the others are steps with a state each."""


@dataclass(frozen=True, slots=True)
class InProgress(Generic[T]):
    """Work that goes on; `kind` says how to draw it while it does."""

    task: Task[T]
    kind: Kind
    quiet: bool = False
    """Show only what comes back."""
    is_mute: bool = False
    """Standard output is taken: what comes back is not shown there."""
    facts: tuple[tuple[str, str], ...] = ()
    """Small print for its card."""
    title: str = ""
    """What it is called on its card, where its task's name is nothing to be read."""
    whole_log: str = ""
    """How to see output that a cell has to leave out."""
    signals: SignalProxy | None = field(default=None, compare=False)
    """Where a terminal's signals go; None where they end it."""
    becomes: Literal["", "container", "layers"] = ""
    """What comes back, where that has a picture of its own: a container that goes on, or layers to be looked into."""
    begins: tuple[str, str] = ("", "")
    """What its card says before anything is known of it: a name, and small print. Else the task's name is all."""
    goes_on: bool = False
    """Whoever is interrupted need not wait for it: what was asked of containers they do by themselves."""
    stops: str = ""
    """What it stops when it is interrupted, one after the other: that is waited for, however long it takes."""
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
    passes_signals: bool = True
    """What reaches the terminal's command reaches the program, unless everything goes through untouched."""
    elsewhere: Callable[[], object] | None = field(default=None, compare=False)
    """What there is instead where there is no terminal, as in a notebook; None is nothing."""


@dataclass(frozen=True, slots=True)
class Board:
    """All containers, looked at for as long as somebody wants to; `look` gives them as a table."""

    look: Callable[[], Table] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """A program that waits for somebody to talk to it, in a cell's terminal."""

    session: Session
    title: str
    detach_keys: str


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

    def text(self) -> str:
        """As people read it: what would not be seen as it is stands there as JSON's escapes."""
        import json

        text = json.dumps(self.value, indent=2, ensure_ascii=False)
        if text.replace("\n", "").isprintable():
            return text
        return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of a file: as they are into a file or pipe, as harmless text for people."""

    chunks: Callable[[], Iterator[bytes]] = field(compare=False)
    """Reads them anew."""
    name: str

    @property
    def bytes(self) -> builtins.bytes:
        """All of them."""
        return b"".join(self.chunks())

    def __repr__(self) -> str:
        """The beginning of it as text; of what is no text, how it can be had."""
        data = b""
        for chunk in self.chunks():
            data += chunk
            if len(data) > _SHOWN_BYTES:
                break
        if b"\0" in data[:4096]:
            return f"({self.name} is no text: .bytes of this value has its bytes)"
        text = sanitized(data[:_SHOWN_BYTES].decode(errors="replace")).rstrip("\n")
        return text + (f"\n… (the first {_SHOWN_BYTES >> 10} KiB)" if len(data) > _SHOWN_BYTES else "")


@dataclass(frozen=True, slots=True)
class Sections:
    """Tables below each other."""

    tables: tuple[Table, ...]

    def text(self) -> str:
        return "\n\n".join(table.text() for table in self.tables)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables)


@dataclass(frozen=True, slots=True)
class Confirm:
    """What is done only if somebody says yes.

    On a terminal that is asked. In a notebook nobody is: a cell that is run again with all the others must not hang,
    nor remove what it did not show. There the plan is shown, which says how to ask for it outright.
    """

    warning: tuple[str, ...]
    plan: Table
    act: Callable[[], InProgress[Any]] = field(compare=False)
    verb: str

    def __repr__(self) -> str:
        return self.plan.text()

    def _repr_html_(self) -> str:
        return self.plan.html()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something to draw, and what a terminal's command ends with."""

    value: object
    exit_status: int


@dataclass(frozen=True, slots=True)
class Live:
    """Something that is looked at again and again, until whoever looks has seen enough."""

    look: Callable[[], object] = field(compare=False)
    every_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Log:
    """What a container wrote. Following, it goes on until the container ends."""

    records: Iterator[Record] = field(compare=False)
    stop: Callable[[], None] = field(default=lambda: None, compare=False)
    """No more is wanted: it soon ends, though the container says nothing."""
    name: str = "logs"
    """What is followed."""

    def task(self) -> Task[None]:
        """Which reads it, and may be cancelled."""

        def body(emit: Emit) -> None:
            for record in self.records:
                emit(record.event)

        task = Task(self.name, body)
        task.on_cancel(self.stop)
        return task
