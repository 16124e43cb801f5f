"""The only interpretation of events: a journal folded into the tasks it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nbcontain.display.ansi import Line, Pen, Run, unfinished, write
from nbcontain.errors import Span
from nbcontain.events import Finished, Notice, Outcome, Output, Progress, Record, Started, TaskId
from nbcontain.values import dataclass, field, replace

TaskState = Literal["waiting", "running"] | Outcome

TAIL_LINES = 200
"""So many last lines of a task are kept; the whole is in the journal."""
KEPT_LINES = 2000
"""So many last lines of a task are read where much came at once; of what came before them only the number is taken."""
_NOTICES = 50
_AT_ONCE_S = 0.05
"""What is said to be done so soon was done before."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """What is known of one task."""

    task: TaskId
    name: str
    number: int
    """Its place in the order of announcement, from 1."""
    parent: TaskId | None = None
    span: Span | None = None
    why: str = ""
    state: TaskState = "waiting"
    started_at: float | None = None
    finished_at: float | None = None
    runs: int = 0
    """How often it began: a container that was restarted has several."""
    done: int = 0
    done_before: int = 0
    """How much was there when it began: a transfer that goes on where another one stopped."""
    total: int | None = None
    unit: str = ""
    tail: tuple[Line, ...] = ()
    line_count: int = 0
    notices: tuple[Notice, ...] = ()
    detail: str = ""
    exit_code: int | None = None
    size_bytes: int | None = None
    stdout: Pen = Pen()
    stderr: Pen = Pen()

    @property
    def is_finished(self) -> bool:
        return self.state not in ("waiting", "running")

    def seconds(self, now: float) -> float | None:
        """How long it took, or has taken so far; None if it never began."""
        if self.started_at is None:
            return None
        return max(0.0, (now if self.finished_at is None else self.finished_at) - self.started_at)

    def begun_lines(self) -> tuple[Line, ...]:
        """The unfinished line of each stream that has one."""
        lines = (unfinished(self.stdout, "stdout"), unfinished(self.stderr, "stderr"))
        return tuple(line for line in lines if line is not None)


@dataclass(frozen=True, slots=True)
class View:
    """All tasks in the order of their announcement, and what the last record added."""

    tasks: Mapping[TaskId, TaskView] = field(default_factory=dict)
    fresh: tuple[Line, ...] = ()
    """Lines that the last record completed."""
    voice: TaskId | None = None
    """The task that has something to say in plain text."""
    voice_before: TaskId | None = None
    time: float = 0.0
    """Of the last record."""

    def root(self) -> TaskView | None:
        """The task that stands for the whole: the last one that began and belongs to no other."""
        roots = [task for task in self.tasks.values() if task.parent is None]
        begun = [task for task in roots if task.state != "waiting"]
        return begun[-1] if begun else roots[-1] if roots else None

    def children(self, parent: TaskId) -> list[TaskView]:
        return [task for task in self.tasks.values() if task.parent == parent]

    def below(self, parent: TaskId, depth: int = 0) -> Iterator[tuple[int, TaskView]]:
        """All tasks under `parent` with their depth, each before its children."""
        for child in self.children(parent):
            yield depth, child
            if depth < 8:
                yield from self.below(child.task, depth + 1)


def update(view: View, record: Record) -> View:
    """The view after one more record. Never raises, whatever a journal says."""
    event = record.event
    task = view.tasks.get(event.task) or TaskView(event.task, event.task, len(view.tasks) + 1)
    fresh: tuple[Line, ...] = ()
    speaks = True
    match event:
        case Started():
            task, fresh = _started(task, event, record.time)
            speaks = not event.waiting or bool(event.why)
        case Progress():
            task = replace(task, done=event.done, total=event.total, unit=event.unit)
            if task.started_at is not None and record.time - task.started_at < _AT_ONCE_S:
                task = replace(task, done_before=event.done)
            speaks = False
        case Output():
            task, fresh = _output(task, event)
            speaks = bool(fresh)
        case Notice():
            task = replace(task, notices=(*task.notices[-_NOTICES + 1 :], event))
        case Finished():
            task, fresh = _finished(task, event, record.time)
    return View(
        {**view.tasks, event.task: task},
        fresh,
        event.task if speaks else view.voice,
        view.voice,
        record.time,
    )


def fold(view: View, records: Sequence[Record], of: TaskId | None = None) -> tuple[View, list[Line]]:
    """The view after several records, and the lines that they completed, or those `of` one task. Never raises.

    Who is behind a flood catches up: of more output of one task than its last lines, the lines before are counted.
    """
    fresh: list[Line] = []
    for record, passed in zip(records, reversed(_passed(records)), strict=True):
        event = record.event
        if passed and isinstance(event, Output):
            view = _passed_over(view, replace(record, event=replace(event, data=event.data[:passed])))
            record = replace(record, event=replace(event, data=event.data[passed:]))
        view = update(view, record)
        if of in (None, event.task):
            fresh += view.fresh
    return view, fresh


def _passed(records: Sequence[Record]) -> list[int]:
    """Of each record, the last one first, how many bytes of output come before its task's last lines."""
    after: dict[TaskId, int] = {}
    found = []
    for record in reversed(records):
        event, passed = record.event, 0
        if isinstance(event, Output):
            have, count = after.get(event.task, 0), event.data.count(b"\n")
            after[event.task] = have + count
            if have >= KEPT_LINES:
                passed = len(event.data)
            elif have + count > KEPT_LINES:
                passed = len(event.data.rsplit(b"\n", KEPT_LINES - have + 1)[0]) + 1
        found.append(passed)
    return found


def _passed_over(view: View, record: Record) -> View:
    """Output of which only the number of lines is taken, and what it has begun of the next one."""
    event = record.event
    assert isinstance(event, Output)
    task = view.tasks.get(event.task) or TaskView(event.task, event.task, len(view.tasks) + 1)
    whole, _, rest = event.data.rpartition(b"\n")
    pen = task.stderr if event.stream == "stderr" else task.stdout
    if len(rest) < len(event.data):
        pen = Pen()
        task = replace(task, line_count=task.line_count + whole.count(b"\n") + 1)
    pen, _ = write(pen, rest, event.stream)
    task = replace(task, stderr=pen) if event.stream == "stderr" else replace(task, stdout=pen)
    return replace(view, tasks={**view.tasks, event.task: task}, fresh=(), time=record.time)


def _started(task: TaskView, event: Started, time: float) -> tuple[TaskView, tuple[Line, ...]]:
    parent = event.parent if event.parent != event.task else None
    task = replace(task, name=event.name, parent=parent or task.parent, span=event.span or task.span)
    task = replace(task, why=event.why or task.why)
    if event.waiting:
        return task, ()
    # Why it ended the last time is no news of this one.
    task = replace(task, notices=tuple(each for each in task.notices if each.kind != "ending"))
    fresh = (Line((Run("started again"),), "note"),) if task.runs else ()
    task = _with_lines(task, fresh) if fresh else task
    task = replace(
        task, state="running", started_at=time, finished_at=None, exit_code=None, detail="", runs=task.runs + 1
    )
    return task, fresh


def _output(task: TaskView, event: Output) -> tuple[TaskView, tuple[Line, ...]]:
    if event.stream == "stderr":
        pen, fresh = write(task.stderr, event.data, "stderr")
        task = replace(task, stderr=pen)
    else:
        pen, fresh = write(task.stdout, event.data, "stdout")
        task = replace(task, stdout=pen)
    return (_with_lines(task, fresh) if fresh else task), fresh


def _finished(task: TaskView, event: Finished, time: float) -> tuple[TaskView, tuple[Line, ...]]:
    fresh = task.begun_lines()
    task = _with_lines(task, fresh) if fresh else task
    return (
        replace(
            task,
            state=event.outcome,
            finished_at=time,
            detail=event.detail,
            exit_code=event.exit_code,
            size_bytes=task.size_bytes if event.size_bytes is None else event.size_bytes,
            stdout=Pen(),
            stderr=Pen(),
        ),
        fresh,
    )


def _with_lines(task: TaskView, lines: tuple[Line, ...]) -> TaskView:
    return replace(task, tail=(*task.tail, *lines)[-TAIL_LINES:], line_count=task.line_count + len(lines))
