"""Layers on their way, in a terminal: a bar for each with its rate and the time left, and one line for all. Pure.

    3b170e7aa407  ████▌             5.6 MB of 20 MB · 3.1 MB/s · 4.6 s left
    f3c294a9a978  already here
    pulling debian:12 · 12.4 MB of 32 MB · 6.2 MB/s · 3.2 s left
"""

from __future__ import annotations

from nbcontain.display import words
from nbcontain.display.text import one_line, state_word
from nbcontain.display.view import TaskView, View

_BAR = 18
_FEW_S = 0.5


def bars(view: View, now: float, columns: int, rows: int) -> list[str]:
    """What the last lines of the terminal should be: no longer than it is wide, and no more than it is high."""
    root = view.root()
    if root is None:
        return []
    steps = view.children(root.task)
    shown, room = steps, max(3, rows - 2)
    if len(steps) > room:
        # What moves is seen rather than what is over or has not begun.
        order = {"running": 0, "failed": 0, "waiting": 2}
        best = sorted(range(len(steps)), key=lambda n: (order.get(steps[n].state, 1), n))[: room - 1]
        shown = [steps[number] for number in sorted(best)]
    drawn = [_step(step, now) for step in shown]
    if len(shown) < len(steps):
        drawn.append(f"… and {len(steps) - len(shown)} more")
    drawn.append(_all(view, root, now))
    return [line if len(line) < columns else line[: max(1, columns - 2)] + "…" for line in drawn]


def total_text(view: View, root: TaskView, now: float) -> str:
    """How much of all bytes is here, how fast they come, how long the rest takes; empty before anything is known."""
    steps = [step for step in view.children(root.task) if step.unit == "bytes" and step.total]
    moving = [step for step in steps if step.state != "cached"]
    if not moving or root.is_finished:
        return ""
    done, total = sum(step.done for step in moving), sum(step.total or 0 for step in moving)
    fresh = sum(step.done - step.done_before for step in moving)
    known = f"{words.size(done)} of {words.size(total)}"
    return " · ".join((known, *pace(root.seconds(now), fresh, total - done)))


def pace(seconds: float | None, fresh: int, left: int) -> tuple[str, ...]:
    """How fast bytes came, and how long the rest takes at that; nothing in the first half second."""
    if not seconds or seconds < _FEW_S or fresh <= 0:
        return ()
    per_second = fresh / seconds
    return f"{words.size(int(per_second))}/s", f"{words.duration(max(0, left) / per_second)} left"


def _step(step: TaskView, now: float) -> str:
    name = f"{one_line(step.name).removeprefix('layer '):<12.40}"
    match step.state:
        case "running" if step.unit == "bytes" and step.total:
            fresh, left = step.done - step.done_before, step.total - step.done
            figures = (f"{words.size(step.done)} of {words.size(step.total)}", *pace(step.seconds(now), fresh, left))
            return f"{name}  {words.bar(step.done, step.total, _BAR):<{_BAR}}  {' · '.join(figures)}"
        case "running":
            return f"{name}  {words.duration(step.seconds(now))}"
        case "cached":
            return f"{name}  {one_line(step.detail) or 'already here'}"
        case "done":
            size = f"{words.size(step.size_bytes)} in " if step.size_bytes else ""
            return f"{name}  done, {size}{words.duration(step.seconds(now))}"
        case "waiting":
            return f"{name}  waiting" + (f", {words.size(step.total)}" if step.total else "")
    return f"{name}  {step.state}" + (f": {one_line(step.detail)}" if step.detail else "")


def _all(view: View, root: TaskView, now: float) -> str:
    name = one_line(root.name)
    if root.is_finished:
        new = sum(step.size_bytes or 0 for step in view.children(root.task) if step.state == "done")
        took = words.duration(root.seconds(now))
        parts = (f"{name}: {state_word(root)}", took, f"{words.size(new)} new" if new else "", one_line(root.detail))
    else:
        parts = (name, total_text(view, root, now), "", "")
    return " · ".join(part for part in parts if part)
