"""A task shown while it runs, and its result: in the cell that asked for it, or in a terminal.

Only the cell's own thread prints. An interrupt cancels the task, and what is shown last is how it ended.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, Literal, TypeVar

from nbcontain.display.html import Action, Drawn, Picture
from nbcontain.display.pictures import begun_picture, run_picture, steps_picture
from nbcontain.display.streams import Writer, writer
from nbcontain.display.surface import Place, Surface, snapshot
from nbcontain.display.text import lines
from nbcontain.display.values import Kind
from nbcontain.display.view import View, fold, update
from nbcontain.errors import Cancelled, Interrupted, NbcontainError, UsageError
from nbcontain.events import Finished, Outcome, Output, Record
from nbcontain.outcomes import waited
from nbcontain.task import Task

T = TypeVar("T")

Mode = Literal["card", "html", "plain"]
"""A live card; the same without widgets, as HTML that is replaced; lines of text."""

_STREAMING = ("run", "exec")
BRIEF = ("exec", "work", "wait")

TICK_S = 0.02
"""How often is looked whether there is something new: so soon what a program writes is seen."""
WAKE_S = 0.05
"""The same where there is nothing to be shown yet: who is interrupted is not to wait for longer."""
SAID_S = 0.02
"""So long what is said first has for its way out of the process, before anything big is imported beside it."""
_WIDGETS = "nbcontain.display.widgets"
"""What a card imports: once in a kernel."""
GRACE_S = 0.08
"""What is over by then is shown as it ended, without a live card before."""
EXEC_GRACE_S = 0.2
"""The same for exec, which has a card only if it takes a while."""
WORK_GRACE_S = 0.5
"""The same for work: to draw a card that nobody can read would only delay what comes of it."""
PLACED_WORK_GRACE_S = 1.5
"""The same where it is said already that it is at work."""
LET_GO_S = 0.7
"""So long it is waited for what was interrupted and has nothing to be seen: a container that is asked to end may take
its time, and one that is followed may say nothing for ever. It ends on its own thread."""


def mode(environ: Mapping[str, str], ip: object | None) -> Mode:
    """How to show things: as NBCONTAIN_DISPLAY says, else cards in a kernel and plain text elsewhere.

    `ip` is what `get_ipython()` gave; a shell without a kernel is a terminal's. Where nobody looks, as with nbconvert
    --execute, what is saved is all there is: a widget in it is an empty place without a kernel. On Colab cards are for
    who has allowed widgets of others.
    """
    wanted = environ.get("NBCONTAIN_DISPLAY", "auto") or "auto"
    match wanted:
        case "card" | "html" | "plain":
            return wanted
        case "auto":
            if getattr(ip, "kernel", None) is None:
                return "plain"
            return "card" if is_attended(ip) and _has_widgets(sys.modules) else "html"
    raise UsageError(f"NBCONTAIN_DISPLAY is {wanted!r}", hint="It can be auto, card, html or plain.")


def _has_widgets(modules: Mapping[str, object]) -> bool:
    """Whether a page would draw our widgets. Colab draws others' than ipywidgets' own only once somebody has allowed it
    to load a widget manager from elsewhere; until then it shows how to, in the place of the HTML beside them."""
    colab = modules.get("google.colab.output")
    return colab is None or getattr(getattr(colab, "_widgets", None), "_installed_url", None) is not None


@contextmanager
def beginning(place: Place | None, begins: tuple[str, str] | None) -> Iterator[None]:
    """Say in `place` that a container begins, before anything is done for it, and if nothing comes of it, that.

    `begins` is what is known of it, a name and small print; without, nothing is said.
    """
    if place is None or begins is None:
        yield
        return
    place.name, place.about = begins
    place.say(begun_picture("run", place.name, "", place.about))
    try:
        yield
    except BaseException:
        place.show(snapshot(begun_picture("run", place.name, "failed", place.about)))
        raise


def is_attended(ip: object) -> bool:
    """Whether somebody could answer a question: what runs notebooks by itself says with each cell that nobody can."""
    return bool(getattr(getattr(ip, "kernel", None), "_allow_stdin", True))


def shown(task: Task[T], kind: Kind, mode: Mode) -> T:
    """Wait for what Python asked for: under its card, or in silence where there are none."""
    return waited(task) if mode == "plain" else present(task, kind, mode=mode)


def present(
    task: Task[T],
    kind: Kind,
    *,
    mode: Mode,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    whole_log: str = "",
    place: Place | None = None,
) -> T:
    """Show `task` until it ends; gives what it returned or raises what it raised, `Interrupted` if it was stopped.

    `title` names the thing (else the root task's name does), `facts` are small print for the card,
    `whole_log` says how to see output that had to be left out. In `place` stands at once that it begins; where nothing
    was shown there when it is done, the place is left to whoever shows what came of it.
    """
    shown = Presentation(task, kind, mode, title, facts, whole_log, place)
    try:
        if place is not None:
            place.make_ready()
        task.wait(_grace_s(kind, place))
        while not task.is_done:
            shown.tick()
            task.wait(TICK_S)
    except KeyboardInterrupt:
        task.cancel()
        until = time.monotonic() + _patience_s(kind)
        try:
            while not task.wait(TICK_S) and time.monotonic() < until:
                shown.tick()
        except KeyboardInterrupt:
            # Interrupted twice: the user does not want to see the end.
            raise Interrupted(f"{task.name} was interrupted") from None
    finally:
        shown.close()
    return _result(task)


async def present_async(
    task: Task[T],
    kind: Kind,
    *,
    mode: Mode,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    whole_log: str = "",
    place: Place | None = None,
) -> T:
    """`present` for a cell that leaves the kernel's loop free, so that buttons answer on every kernel.

    Wakes many times a second, as an interrupt cancels the cell's future but does not wake the loop.
    """
    shown = Presentation(task, kind, mode, title, facts, whole_log, place)
    try:
        if place is not None:
            if _WIDGETS not in sys.modules:
                await asyncio.sleep(SAID_S)
            place.make_ready()
        await _grace(task, _grace_s(kind, place))
        while not task.is_done:
            shown.tick()
            await asyncio.sleep(TICK_S)
    except (asyncio.CancelledError, KeyboardInterrupt):
        task.cancel()
        until = time.monotonic() + _patience_s(kind)
        try:
            while not task.is_done and time.monotonic() < until:
                await asyncio.sleep(TICK_S)
                shown.tick()
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise Interrupted(f"{task.name} was interrupted") from None
    finally:
        shown.close()
    return _result(task)


async def _grace(task: Task[T], timeout_s: float) -> None:
    """Until it is done, but no longer than that. Who looks every few milliseconds takes them from who works."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop is over
            loop.call_soon_threadsafe(done.set)

    task.on_done(tell)
    end = loop.time() + timeout_s
    while not task.is_done and (left := end - loop.time()) > 0:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), min(left, WAKE_S))


def _patience_s(kind: Kind) -> float:
    """How long it is waited for the end of what was interrupted."""
    return LET_GO_S if kind in BRIEF else math.inf


def _grace_s(kind: Kind, place: Place | None) -> float:
    work_s = WORK_GRACE_S if place is None else PLACED_WORK_GRACE_S
    return {"exec": EXEC_GRACE_S, "work": work_s, "wait": WORK_GRACE_S}.get(kind, GRACE_S)


class Presentation(Generic[T]):
    """A task on show. `tick` and `close` belong into the cell's thread; the card is drawn by the ticker's."""

    def __init__(
        self, task: Task[T], kind: Kind, mode: Mode, title: str, facts: Sequence[tuple[str, str]], whole_log: str,
        place: Place | None = None,
    ) -> None:  # fmt: skip
        self._task, self._kind, self._title, self._facts = task, kind, title, facts
        self._view = View()
        self._position = 0
        self._writer: Writer = writer(whole_log)
        self._prints_steps = mode == "plain"
        self._surface: Surface | None = None
        if mode != "plain":
            self._surface = Surface(self._draw, self._act, mode, place=place)
        self._is_open = False
        self._place = place
        if place is not None:
            place.open(self._begun(place))

    def tick(self) -> None:
        """Take what was told since the last tick, print what is to be printed, have the card redrawn."""
        is_new = self._fold()
        if self._surface is not None and not self._is_open and self._view.root() is not None:
            self._is_open = True
            self._surface.open()
        self._writer.flush()
        if self._surface is not None and is_new:
            self._surface.mark()

    def close(self) -> None:
        """The rest, and the picture that stays."""
        self._fold()
        self._conclude()
        is_worth_it = self._kind not in BRIEF and self._view.root() is not None
        if self._surface is not None and (self._is_open or is_worth_it):
            # Before the output where there was no card yet, since it stands above it.
            self._surface.close()
        elif self._surface is not None and self._place is not None and (outcome := self._outcome()[0]) != "done":
            self._surface.close(self._begun(self._place, outcome))
        self._writer.flush(is_last=True)

    def _begun(self, place: Place, outcome: str = "") -> Picture:
        return begun_picture(self._kind, place.name or self._title or self._task.name, outcome, place.about)

    def _fold(self) -> bool:
        """Whether there was anything new."""
        records = self._task.journal.read(self._position)
        self._position += len(records)
        if self._prints_steps:
            for record in records:
                self._view = update(self._view, record)
                if not self._streams(record):
                    for line in lines(self._view, record):
                        self._writer.line(line)
        else:
            self._view, _ = fold(self._view, records)
            for record in records:
                self._streams(record)
        return bool(records)

    def _streams(self, record: Record) -> bool:
        """Write it on, if it is a program's output."""
        event = record.event
        if self._kind in _STREAMING and isinstance(event, Output) and self._view.tasks[event.task].parent is None:
            self._writer.write(event.stream, event.data)
            return True
        return False

    def _conclude(self) -> None:
        """Where the body ended before it could say so, say it: no picture that stays may claim it still runs."""
        root = self._view.root()
        if root is None or root.is_finished:
            return
        # Of what goes on, and nobody waits for, the steps that run are not looked at any more either.
        steps = () if self._task.is_done else self._view.tasks.values()
        outcome, now = self._outcome(), self._view.time if self._task.is_done else time.time()
        for each in (*(step for step in steps if step.state == "running" and step is not root), root):
            self._view = update(self._view, Record(now, Finished(each.task, *outcome)))

    def _outcome(self) -> tuple[Outcome, str]:
        """How it ended, and why; what nobody waits for any more counts as cancelled."""
        if not self._task.is_done:
            return "cancelled", ""
        try:
            self._task.result()
        except Cancelled:
            return "cancelled", ""
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for the result
            return "failed", error.message if isinstance(error, NbcontainError) else type(error).__name__
        return "done", ""

    def _draw(self) -> Drawn:
        """Any thread: a view is a value."""
        view, now = self._view, time.time()
        if self._kind in _STREAMING:
            picture = run_picture(view, now, self._title, self._facts, is_interrupted=self._task.is_cancelled)
        else:
            picture = steps_picture(view, now, self._kind, self._title)
        is_stopping = self._task.is_cancelled
        now_label, then_label = ("Stop", "Stopping…") if self._kind in _STREAMING else ("Cancel", "Cancelling…")
        label = then_label if is_stopping else now_label
        action = Action("stop", label, self._title or self._task.name, not is_stopping)
        return Drawn(picture, (action,))

    def _act(self, action: str) -> None:
        """A click; main or subshell thread."""
        if action == "stop":
            self._task.cancel()
            if self._surface is not None:
                self._surface.mark()


def _result(task: Task[T]) -> T:
    """The task's result; `Interrupted` in place of whatever came of a task that was stopped, but for bugs."""
    if not task.is_done:
        raise Interrupted(f"{task.name} was interrupted", why="what it waits for may go on")
    try:
        result = task.result()
    except NbcontainError as error:
        if not task.is_cancelled:
            raise
        raise Interrupted(f"{task.name} was interrupted") from error
    if task.is_cancelled:
        raise Interrupted(f"{task.name} was interrupted")
    return result
