"""Signals that reach a terminal's command, passed on to the program that it shows (docker's --sig-proxy)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from nbcontain.errors import NbcontainError
from nbcontain.runtime.signals import is_heeded

if TYPE_CHECKING:
    from nbcontain.runtime.container import Container

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED = (
    *_ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)  # fmt: skip
"""Not those of job control, which are this command's own, nor SIGWINCH, which some servers take for a wish to end."""
_PATIENCE = 3
"""As often somebody asks who means it, as with docker."""


class SignalProxy:
    """Where a command's signals go: to a container's program, once there is one."""

    def __init__(self, container: Container | None = None, *, passes: bool = True) -> None:
        """Without `passes` nothing is passed on: who is interrupted leaves the container alone (--sig-proxy=false)."""
        self.container = container
        self.passes = passes
        self._asked = 0

    @contextmanager
    def around(self, container: Container) -> Iterator[None]:
        """The container is there from here on."""
        self.container = container
        yield

    def tell(self, number: int) -> bool:
        """Pass a signal on. False for one that is to end the program where that does not heed it, as a first process
        does not without a handler of its own; and for the third wish of that kind."""
        container = self.container
        if not self.passes or container is None:
            return False
        if number in _ENDING:
            self._asked += 1
            if self._asked >= _PATIENCE or not is_heeded(container.state().pid, number):
                return False
        try:
            container.send_signal(number)
        except NbcontainError:
            # It has ended, which is about to be told; or is not started yet.
            return number not in _ENDING
        return True

    def leave(self) -> str:
        """Have the container go on without us, if that is wanted; gives its name, "" where there is none."""
        container = self.container
        if self.passes or container is None:
            return ""
        try:
            container.keep()
        except NbcontainError:
            return ""
        return container.name


@contextmanager
def passing(tell: Callable[[int], bool]) -> Iterator[None]:
    """Signals go to `tell`. What it does not pass on ends what is done here: KeyboardInterrupt, or SystemExit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _: FrameType | None) -> None:
        if not tell(number) and number in _ENDING:
            _end(number)

    # What is ignored stays so: nohup, and the background jobs of a shell. None is another's, not Python's, and could
    # not be put back.
    heard = [number for number in _PASSED if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by(number: int) -> Iterator[None]:
    """That signal is SystemExit, as SIGINT is KeyboardInterrupt; where it is ignored, it stays so."""
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    if is_ours:
        signal.signal(number, lambda number, _: _end(number))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
