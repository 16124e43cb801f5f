"""Plain lines: a build as BuildKit's --progress=plain shows it, a container's output as it is.

    #2 [2/4] RUN pip install flask
    #2 0.412 Collecting flask
    #2 DONE 1.8s, 3.6 MB

A step keeps its number; when steps run side by side, "#2 ..." marks that one pauses and its heading is
repeated when it goes on.
"""

from __future__ import annotations

from nbcontain.display import words
from nbcontain.display.ansi import Line
from nbcontain.display.harmless import visible
from nbcontain.display.view import TaskView, View
from nbcontain.events import Finished, Notice, Output, Record, Started

NAME_CHARACTERS = 160


def lines(view: View, record: Record) -> list[str]:
    """What a terminal should append now; `view` has taken `record` already."""
    task = view.tasks[record.event.task]
    if task.parent is None:
        return _of_root(view, task, record)
    said = _of_step(task, record, view.fresh)
    if said is None:
        return []
    number = _number(view, task)
    return [*_heading(view, task), *(f"#{number} {line}" for line in said)]


def one_line(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A name that may have several lines, or anything else in it, as one line of moderate length."""
    text = visible(" ".join(name.split()))
    return text if len(text) <= characters else text[: characters - 1] + "…"


def place(view: View, task: TaskView) -> str:
    """"[2/5] " for a direct child of a root; nothing for others."""
    parent = view.tasks.get(task.parent or "")
    if parent is None or parent.parent is not None:
        return ""
    siblings = view.children(parent.task)
    return f"[{siblings.index(task) + 1}/{len(siblings)}] "


def summary(view: View, root: TaskView) -> str:
    """"5 steps, 2 cached, 3.6 MB new" of what is under `root`; empty where nothing is."""
    steps = view.children(root.task)
    if not steps:
        return ""
    parts = [words.count(len(steps), "step")]
    if cached := sum(step.state == "cached" for step in steps):
        parts.append(f"{cached} cached")
    if new := sum(step.size_bytes or 0 for step in steps if step.state == "done"):
        parts.append(f"{words.size(new)} new")
    return ", ".join(parts)


def state_word(task: TaskView) -> str:
    """The state of a container or another task that stands alone: "running", "exited 1", "cancelled" …"""
    if task.exit_code is not None and task.is_finished and task.state != "lost":
        return f"exited {task.exit_code}"
    return {"done": "done", "waiting": "waiting"}.get(task.state, task.state)


def notice_lines(notice: Notice) -> list[str]:
    """A notice and its hint."""
    said = [f"{'note' if notice.kind in ('', 'ending') else notice.kind}: {visible(notice.message)}"]
    return [*said, f"try: {visible(notice.hint)}"] if notice.hint else said


def tail_lines(task: TaskView, count: int) -> list[str]:
    """The last lines of a task's output, the unfinished ones included."""
    return [line.text for line in (*task.tail, *task.begun_lines())[-count:]]


def _heading(view: View, task: TaskView) -> list[str]:
    """What comes before a step's words when another one spoke last."""
    before = view.voice_before
    if before == task.task:
        return []
    previous = view.tasks.get(before or "")
    drawn = []
    if previous is not None and previous.parent is not None:
        drawn = [""] if previous.is_finished else [f"#{_number(view, previous)} ...", ""]
    return [*drawn, f"#{_number(view, task)} {place(view, task)}{one_line(task.name)}"]


def _number(view: View, task: TaskView) -> int:
    """Its place among the tasks that belong to another: roots have no number."""
    return sum(1 for other in view.tasks.values() if other.parent is not None and other.number <= task.number)


def _of_step(task: TaskView, record: Record, fresh: tuple[Line, ...]) -> list[str] | None:
    """The words of a step, without its number; None where it says nothing at all."""
    since = record.time - (task.started_at if task.started_at is not None else record.time)
    output = [f"{max(0.0, since):.3f} {line.text}" for line in fresh]
    match record.event:
        case Started(why=why) if why:
            return [words.reason(visible(why))]
        case Started(waiting=False):
            return []
        case Output() if fresh:
            return output
        case Notice():
            return notice_lines(record.event)
        case Finished():
            return [*output, _verdict(task)]
    return None


def _verdict(task: TaskView) -> str:
    seconds = task.seconds(0.0)
    took = f" {seconds:.1f}s" if seconds is not None else ""
    detail = one_line(task.detail)
    match task.state:
        case "done":
            return f"DONE{took}" + (f", {words.size(task.size_bytes)}" if task.size_bytes else "")
        case "cached":
            return "CACHED"
        case "failed":
            return f"ERROR{took}: {detail}" if detail else f"ERROR{took}"
        case "cancelled":
            return f"CANCELED{took}"
    return f"LOST: {detail}" if detail else "LOST"


def _of_root(view: View, root: TaskView, record: Record) -> list[str]:
    output = [line.text for line in view.fresh]
    match record.event:
        case Output():
            return output
        case Notice(kind="" | "ending"):
            return notice_lines(record.event)
        case Finished() if view.children(root.task):
            return ["", *output, *_findings(root), f"{one_line(root.name)}: {_closing(view, root)}"]
        case Finished():
            return output
    return []


def _findings(root: TaskView) -> list[str]:
    """Warnings at the end, where they are seen, as docker puts them; hints are only counted: a cell shows them."""
    warnings = [each for each in root.notices if each.kind == "warning"]
    drawn: list[str] = []
    if warnings:
        drawn.append(f"{words.count(len(warnings), 'warning')} found:")
        for each in warnings:
            drawn.append(f" - {visible(each.message)}")
            drawn += [f"   try: {visible(each.hint)}"] if each.hint else []
        drawn.append("")
    if count := sum(each.kind == "hint" for each in root.notices):
        drawn += [f"{words.count(count, 'hint')} for this Dockerfile: build --check shows what could be better", ""]
    return drawn


def _closing(view: View, root: TaskView) -> str:
    parts = [state_word(root), words.duration(root.seconds(view.time)), summary(view, root)]
    if root.detail:
        parts.append(one_line(root.detail))
    return " · ".join(part for part in parts if part)
