"""The user's own terminal while a program in a container has it: raw, and put back as it was however that ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

from nbcontain.consoles import Session, Size
from nbcontain.detach_keys import DetachKeys, parse
from nbcontain.display.harmless import sanitized
from nbcontain.display.values import Interactive
from nbcontain.errors import UsageError
from nbcontain.events import Event, Finished, Started
from nbcontain.sig_proxy import passing

_READ_BYTES = 1 << 12
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def attend(wanted: Interactive) -> int:
    """Begin it and hand the terminal over until it ends or is detached from. Raises what it ended with."""
    keys = DetachKeys(parse(wanted.detach_keys))
    if wanted.types and wanted.is_raw and not os.isatty(0):
        raise UsageError(
            "the input device is not a TTY",
            why="-t gives the program a terminal, and with -i yours is to be its keyboard",
            hint="leave out -t: -i alone passes on what is piped in",
        )
    session = wanted.begin(_size(), _say)
    try:
        said = _converse(session, keys, wanted)
    finally:
        session.close()
    if said:
        print(said, file=sys.stderr)
        return 0
    session.result()
    return 0


def _converse(session: Session, keys: DetachKeys, wanted: Interactive) -> str:
    """Until it has ended: "", or what to say of one that was detached from."""
    over, is_over = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def listen() -> None:
        try:
            for output in session.output():
                _show(output.stream, output.data, is_raw=is_raw)
        except BaseException as error:  # noqa: BLE001 - raised where the terminal is attended
            failures.append(error)
        finally:
            os.close(is_over)

    poll = select.poll()
    poll.register(over, select.POLLIN)
    # Raw even for a program that has ended already: what it said went through a terminal once.
    is_raw = wanted.is_raw
    typing = wanted.types and is_raw
    if typing:
        kept: AbstractContextManager[None] = _raw(0)
    else:
        kept = nullcontext() if is_raw else passing(session.signal if wanted.passes_signals else lambda _: False)
    with _woken_by_signals() as signals, kept, _resizing(session):
        poll.register(signals, select.POLLIN)
        if wanted.types and session.master >= 0:
            poll.register(0, select.POLLIN)
        threading.Thread(target=listen, name="nbcontain listening", daemon=True).start()
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if over in ready:
                break
            if signals in ready:
                # What is to be done about it was done by its handler, between this line's steps and the last one's.
                os.read(signals, _READ_BYTES)
            if 0 not in ready:
                continue
            data = os.read(0, _READ_BYTES)
            if not data:
                poll.unregister(0)
                continue
            passed, leaves = keys.feed(data) if is_raw else (data, False)
            _type(session.master, passed, over)
            if leaves:
                return "\r\n" * typing + _in_words(session.detach())
    os.close(over)
    if failures:
        raise failures[0]
    return ""


def _type(master: int, data: bytes, over: int) -> None:
    """Write what was typed; a program that reads nothing may be killed meanwhile, or end."""
    poll = select.poll()
    poll.register(master, select.POLLOUT)
    poll.register(over, select.POLLIN)
    while data:
        try:
            data = data[os.write(master, data) :]
        except BlockingIOError:
            if any(fd == over for fd, _ in poll.poll()):
                return
        except OSError:
            # It has ended, which is about to be told.
            return


def _show(stream: str, data: bytes, *, is_raw: bool) -> None:
    """What a program at a terminal says goes to the terminal as it is, as with docker; other text without commands."""
    fd = 2 if stream == "stderr" else 1
    if not is_raw and os.isatty(fd):
        data = sanitized(data.decode(errors="replace")).encode()
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Something to poll that a signal makes readable.

    A poll that has begun is interrupted by one; one that comes a moment before it, while the
    interpreter is on its way there, would be attended to only when the poll is over.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Every key to the program, and none to this terminal's own line editing; put back afterwards in any case."""
    before = termios.tcgetattr(fd)

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def again(*_: Any) -> None:
        # Stopped by somebody's SIGSTOP, a shell has taken the terminal back meanwhile.
        tty.setraw(fd, termios.TCSADRAIN)

    handlers: dict[int, Any] = {number: signal.signal(number, end) for number in _ENDING}
    handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, again)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _resizing(session: Session) -> Iterator[None]:
    """The program's terminal is as large as ours, and says so when ours changes."""
    before = signal.signal(signal.SIGWINCH, lambda *_: session.resize(_size()))
    try:
        session.resize(_size())
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _size() -> Size:
    for fd in (1, 0, 2):
        try:
            found = os.get_terminal_size(fd)
        except OSError:
            continue
        return found.lines, found.columns
    return 0, 0


def _say(event: Event) -> None:
    """What happens before it begins: an image that is fetched first."""
    if isinstance(event, Started | Finished) and event.task.startswith("pull "):
        print(f"{event.task}: {'pulling' if isinstance(event, Started) else event.outcome}", file=sys.stderr)


def _in_words(text: str) -> str:
    return text.replace("%container ", "nbcontain ")
