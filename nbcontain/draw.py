"""Drawing a command's result on a terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TextIO

from nbcontain.display.harmless import sanitized
from nbcontain.display.table import USUAL_WIDTH, Table
from nbcontain.display.values import Board, Confirm, Document, InProgress, Interactive, Lines, Live, Log, Raw, Verdict
from nbcontain.errors import Interrupted
from nbcontain.events import Finished, Notice, Output, Started, encode
from nbcontain.magic_names import on_a_terminal
from nbcontain.oci.image import Image
from nbcontain.runtime.container import Container
from nbcontain.sig_proxy import ended_by, passing
from nbcontain.task import Task
from nbcontain.values import replace

_REDRAW_S = 0.1
_ENDING_S = 10.0
"""So long it is waited for the end of what was interrupted."""


def draw(value: object) -> int:
    """Print what a command gave, and give the exit status."""
    match value:
        case InProgress():
            return _attend(value)
        case Interactive():
            from nbcontain.terminal import attend

            return attend(value)
        case Table():
            value = replace(value, footer=on_a_terminal(value.footer))
            if (text := value.text(_columns() if value.below else USUAL_WIDTH)) or not value.is_plain:
                print(text)
        case Board():
            print(value.look().text())
        case Lines(lines=lines):
            for line in lines:
                print(sanitized(line) if sys.stdout.isatty() else line)
        case Document(value=document):
            is_read = sys.stdout.isatty()
            print(value.text() if is_read else json.dumps(document, indent=2, ensure_ascii=False))
        case Confirm():
            return _ask(value)
        case Raw(chunks=chunks):
            for chunk in chunks():
                _write(Output("", "stdout", chunk))
        case Live():
            _again_and_again(value)
        case Verdict():
            draw(value.value)
            return value.exit_status
        case Log():
            for record in value.records:
                if isinstance(record.event, Output):
                    _write(record.event)
        case Image():
            print(value.id)
        case Container():
            print(value.id)
        case None:
            pass
        case str():
            print(value)
        case _:
            print(on_a_terminal(str(value)))
    return 0


def _columns() -> int:
    """Those of $COLUMNS, or of the terminal; where what is drawn goes into a pipe or file, the usual ones."""
    import shutil

    return shutil.get_terminal_size((USUAL_WIDTH, 24)).columns


def _ask(question: Confirm) -> int:
    """docker's warning and docker's question; anything but y leaves all as it is."""
    for line in question.warning:
        print(line)
    try:
        answer = input("Are you sure you want to continue? [y/N] ")
    except EOFError:
        print()
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        print(f"{question.verb} was cancelled", file=sys.stderr)
        return 1
    return draw(question.act())


def _again_and_again(live: Live) -> None:
    """In place on a terminal, one after the other elsewhere; ctrl-C is how one has seen enough."""
    in_place = sys.stdout.isatty()
    try:
        while True:
            shown = live.look()
            if in_place:
                sys.stdout.write("\x1b[H\x1b[2J")
            draw(shown)
            sys.stdout.flush()
            time.sleep(live.every_s)
    except KeyboardInterrupt:
        return


def _warn(facts: Mapping[str, str]) -> None:
    """A red word for a container that nothing holds."""
    if what := facts.get("privileged"):
        word = "\033[1;31mprivileged\033[0m" if sys.stderr.isatty() else "privileged"
        print(f"{word}: {what}", file=sys.stderr)


def _attend(progress: InProgress[object]) -> int:
    """Show how something goes: a build's steps on standard error, a container's streams as they are."""
    task, proxy = progress.task, progress.signals
    ends = ended_by(signal.SIGTERM) if progress.stops else nullcontext()
    try:
        with passing(proxy.tell) if proxy is not None else ends:
            result = _followed(progress)
    except (KeyboardInterrupt, SystemExit) as end:
        if proxy is not None and (name := proxy.leave()):
            print(f"{name} goes on:  nbcontain attach {name}", file=sys.stderr)
        else:
            task.cancel()
            if progress.stops:
                print(f"stopping {progress.stops}; who interrupts once more leaves them", file=sys.stderr, flush=True)
            task.wait(0 if progress.goes_on else None if progress.stops else _ENDING_S)
        if isinstance(end, SystemExit):
            raise
        raise Interrupted(f"{task.name} was interrupted") from None
    if progress.is_mute or (progress.kind in ("run", "exec") and not isinstance(result, Container)):
        return getattr(result, "exit_code", 0)
    return draw(result)


def _followed(progress: InProgress[object]) -> object:
    """What it gives, once all of it was shown."""
    task = progress.task
    if progress.kind in ("run", "exec"):
        _warn(dict(progress.facts))
        for record in task.journal.follow():
            if isinstance(record.event, Output):
                _write(record.event)
            elif isinstance(record.event, Notice):
                from nbcontain.display.text import notice_lines

                print(on_a_terminal("\n".join(notice_lines(record.event))), file=sys.stderr)
            elif isinstance(record.event, Started | Finished) and record.event.task.startswith("pull "):
                what = "pulling" if isinstance(record.event, Started) else record.event.outcome
                print(f"{record.event.task}: {what}", file=sys.stderr)
    elif progress.kind in ("pull", "push") and progress.display != "rawjson" and _is_screen(progress):
        _attend_transfer(task)
    else:
        from nbcontain.display.text import lines as event_lines
        from nbcontain.display.text import notice_lines
        from nbcontain.display.view import View, update

        view = View()
        for record in task.journal.follow():
            if progress.display == "rawjson":
                sys.stderr.buffer.write(encode(record))
                sys.stderr.flush()
                continue
            view = update(view, record)
            if not progress.quiet and progress.kind in ("build", "pull", "push"):
                for line in event_lines(view, record):
                    # Of what a program says nothing is changed.
                    print(on_a_terminal(line) if isinstance(record.event, Notice) else line, file=sys.stderr)
            elif not progress.quiet and isinstance(record.event, Notice) and record.event.kind == "warning":
                print(on_a_terminal("\n".join(notice_lines(record.event))), file=sys.stderr)
    return task.result()


def _is_screen(progress: InProgress[object]) -> bool:
    """Whether bars can be drawn and drawn again where progress goes."""
    return sys.stderr.isatty() and not progress.quiet and os.environ.get("TERM", "dumb") != "dumb"


def _attend_transfer(task: Task[object]) -> None:
    """Layers as bars, drawn again in place; what is said besides stands below them at the end."""
    import shutil

    from nbcontain.display.text import notice_lines
    from nbcontain.display.transfers import bars
    from nbcontain.display.view import View, update

    view, height, drawn_at = View(), 0, 0.0

    def redraw() -> None:
        nonlocal height
        columns, rows = shutil.get_terminal_size()
        lines = bars(view, time.time(), columns, rows)
        above = f"\x1b[{height}A" if height else ""
        sys.stderr.write(above + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        sys.stderr.flush()
        height = len(lines)

    try:
        for record in task.journal.follow():
            view = update(view, record)
            if time.monotonic() - drawn_at >= _REDRAW_S:
                drawn_at = time.monotonic()
                redraw()
    finally:
        redraw()
    root = view.root()
    for notice in root.notices if root is not None else ():
        for line in notice_lines(notice):
            print(on_a_terminal(line), file=sys.stderr)


def _write(output: Output) -> None:
    """A container's bytes: as they are into a file or pipe, without control sequences on a terminal."""
    stream: TextIO = sys.stdout if output.stream == "stdout" else sys.stderr
    data = sanitized(output.data.decode(errors="replace")).encode() if stream.isatty() else output.data
    stream.buffer.write(data)
    stream.flush()
