"""`run` and `exec` that wait for their program: its end, signals to it, and its terminal. Run by the command."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

from nbcontain.linux import syscalls
from nbcontain.runtime import console
from nbcontain.runtime.signals import exit_code

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_BYTES = 1 << 16
_NOT_PASSED_ON = {
    *(signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
}


def adopt() -> None:
    """What is made from here on is our child, in whose place the stage made it: only so we hear how it ended."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def attend(pid: int, master: int) -> int:
    """Until the process has ended: pass signals on to it, and what is typed to its terminal. Gives its exit code."""
    pidfd = os.pidfd_open(pid)
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in signal.valid_signals() - _NOT_PASSED_ON:
        if number < 32:
            with suppress(OSError, ValueError):
                signal.signal(number, lambda *_: None)
    if master >= 0:
        signal.signal(signal.SIGWINCH, lambda *_: None)
    before = _raw() if master >= 0 else None
    try:
        _relay(pidfd, reading, master)
    finally:
        if before is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.close(pidfd)
    return exit_code(os.waitpid(pid, 0)[1])


def _raw() -> list[Any] | None:
    """Standard input as a terminal that takes every key; gives how it was, or None where it is none."""
    if not os.isatty(0):
        return None
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    return before


def _relay(pidfd: int, signals: int, master: int) -> None:
    poll = select.poll()
    for fd in (pidfd, signals, *((master, 0) if master >= 0 else ())):
        poll.register(fd, select.POLLIN)
    if master >= 0:
        _resize(master)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if signals in ready:
            for number in os.read(signals, 64):
                if number == signal.SIGWINCH:
                    _resize(master)
                elif number not in _NOT_PASSED_ON:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, number)
        if master in ready and not _copy(master, 1):
            poll.unregister(master)
            master = -1
        if 0 in ready and (master < 0 or not _copy(0, master)):
            poll.unregister(0)
        if pidfd in ready:
            while master >= 0 and select.select([master], [], [], 0)[0] and _copy(master, 1):
                pass
            return


def _copy(source: int, target: int) -> bool:
    """False at the end of the source, or where nobody takes it."""
    try:
        data = memoryview(os.read(source, _BYTES))
        if not data:
            return False
        while data:
            data = data[os.write(target, data) :]
    except OSError:
        return False
    return True


def _resize(master: int) -> None:
    if sys.stdin is not None and os.isatty(0):
        size = os.get_terminal_size(0)
        console.resize(master, (size.lines, size.columns))
