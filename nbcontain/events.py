"""What happens while something is in progress, as values: five kinds of event, one JSON line each.

A layer, a build step and a container differ in their names, not in their events. The middle of the
engine calls an `Emit`; everything shown is a fold of what was emitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbcontain.errors import Cancelled, Span
from nbcontain.values import MISSING, dataclass, fields

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Literal

    Outcome = Literal["done", "cached", "failed", "cancelled", "lost"]
else:
    Outcome = str

TaskId = str
"""A digest, a container id, a step: whatever is in progress."""

BUILD: TaskId = "build"
"""The task that all steps of a build have as parent."""


NEW_STEP = "the step is new"
"""Why a step runs that had no counterpart in the last build."""


@dataclass(frozen=True, slots=True)
class Started:
    """Something began. `name` is for people: "RUN pip install flask", "web"."""

    task: TaskId
    name: str
    parent: TaskId | None = None
    span: Span | None = None
    """The Dockerfile lines it stems from."""
    waiting: bool = False
    """Only announced, so that it can be shown; a second `Started` without this says that it began."""
    why: str = ""
    """Why it has to be done although it was done before: the first input that is another one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """So much of it is done."""

    task: TaskId
    done: int
    total: int | None = None
    unit: Literal["bytes", "files", "steps"] = "bytes"


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes as they were read from a program; decoded only when drawn."""

    task: TaskId
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know: a warning, a lint finding, a degraded feature, a cache miss's reason."""

    task: TaskId
    message: str
    hint: str = ""
    kind: Literal["", "warning", "hint", "ending"] = ""
    """A warning is what BuildKit warns of, too; a hint is ours, for learners, and can wait; an ending is why a
    container ended, or does not run again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Something ended. `size_bytes` is what it added to the store, where that means something."""

    task: TaskId
    outcome: Outcome
    detail: str = ""
    exit_code: int | None = None
    size_bytes: int | None = None


OUT_OF_MEMORY = "it was killed: there was no memory left for it within its limit"
"""What a notice says of such an end; cards know it by that."""

Event = Started | Progress | Output | Notice | Finished
Emit = Callable[[Event], None]
"""Tells what happened; raises `Cancelled` when the work is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event and when the journal took it (seconds since the epoch)."""

    time: float
    event: Event


def quietly(emit: Emit) -> Emit:
    """Passes on warnings alone; cancelling strikes all the same."""
    return lambda event: emit(event if isinstance(event, Notice) and event.kind == "warning" else Progress("", 0))


@contextmanager
def scope(
    emit: Emit, task: TaskId, name: str, parent: TaskId | None = None, span: Span | None = None
) -> Iterator[None]:
    """Started on entry; Finished done, failed or cancelled on exit."""
    emit(Started(task, name, parent, span))
    try:
        yield
    except Cancelled:
        emit(Finished(task, "cancelled"))
        raise
    except BaseException as error:
        emit(Finished(task, "failed", detail=str(error)))
        raise
    emit(Finished(task, "done"))


# --- one JSON line each -----------------------------------------------------------------------

_KINDS: dict[str, type] = {
    "started": Started,
    "progress": Progress,
    "output": Output,
    "notice": Notice,
    "finished": Finished,
}

_DEFAULTS = {kind: {each.name: each.default for each in fields(kind)} for kind in _KINDS.values()}


def encode(record: Record) -> bytes:
    """One line of a journal file, newline included; output bytes survive the round trip (surrogateescape)."""
    event = record.event
    line: dict[str, object] = {"time": round(record.time, 6), "kind": type(event).__name__.lower()}
    for name, default in _DEFAULTS[type(event)].items():
        value = getattr(event, name)
        if default is not MISSING and value == default:
            continue
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        elif isinstance(value, Span):
            value = [value.first, value.last]
        # A line's own kind is what it tells of.
        line["of" if name == "kind" else name] = value
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Record:
    """The record of one line; raises ValueError for anything that `encode` could not have written."""
    try:
        values = json.loads(line)
        time = float(values.pop("time"))
        kind = _KINDS[values.pop("kind")]
        if kind is Output:
            values["data"] = values["data"].encode("utf-8", "surrogateescape")
        if "of" in values:
            values["kind"] = values.pop("of")
        if kind is Started and "span" in values:
            values["span"] = Span(*values["span"])
        return Record(time, kind(**values))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a journal line: {line[:80]!r}") from error
