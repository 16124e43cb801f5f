"""Pipes between who writes a tar and who reads it, each at work at the same time."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

from nbcontain.task import Task

_READ_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
_Given = TypeVar("_Given")


def piped(work: Callable[[int], Mapping[str, Any]], read: Callable[[int], object]) -> Mapping[str, Any]:
    """Have `work`, on a thread of its own, write to a pipe, which `read` reads to its end. Gives what `work` gives.

    Where both fail, what the writer raises is the cause, unless it is that nobody reads any more.
    """
    source, sink = _pipe()
    with ExitStack() as sources, ExitStack() as sinks:
        sources.callback(os.close, source)
        sinks.callback(os.close, sink)

        # From here on each closes its own: also if who waits for both is interrupted.
        def working() -> Mapping[str, Any]:
            with sinks.pop_all():
                return work(sink)

        def reading() -> None:
            with sources.pop_all():
                read(source)

        return alongside(working, reading)


def alongside(work: Callable[[], _Given], read: Callable[[], object]) -> _Given:
    """Have `work`, on a thread of its own, write what `read` reads; each closes its end. Raises like `piped`."""
    answers: list[_Given | BaseException] = []

    def working() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below
            answers.append(error)

    thread = threading.Thread(target=working, name="nbcontain pipe", daemon=True)
    thread.start()
    failure: BaseException | None = None
    try:
        read()
    except BaseException as error:  # noqa: BLE001 - raised again below
        failure = error
    finally:
        thread.join()
    [answer] = answers
    if isinstance(answer, BaseException) and not (failure and getattr(answer, "errno", None) == errno.EPIPE):
        raise answer from failure
    if failure is not None:
        raise failure
    assert not isinstance(answer, BaseException)
    return answer


def pieces(begin: Callable[[int], Task[Any]], size_bytes: int) -> Iterator[bytes]:
    """What a task writes to the pipe that `begin` is given, in pieces of this size.

    It begins when the first is asked for, and is cancelled when nobody asks any more. Raises what it raised.
    """
    source, sink = _pipe()
    with open(source, "rb") as reader:
        try:
            task = begin(sink)
        except BaseException:
            os.close(sink)
            raise
        task.on_done(lambda: os.close(sink))
        try:
            while piece := reader.read(size_bytes):
                yield piece
        finally:
            # Of one that has ended this is nothing. Who writes on meets a pipe that nobody reads.
            task.cancel()
        task.result()


def poured(write: Callable[[bytes], object]) -> Callable[[int], None]:
    """Reads a pipe to its end, for `piped`: all of it goes to `write`."""

    def pour(source: int) -> None:
        while chunk := os.read(source, _READ_BYTES):
            write(chunk)

    return pour


def _pipe() -> tuple[int, int]:
    """A pipe that holds a megabyte, where that may be: fewer changes between who writes and who reads."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except PermissionError:
        pass
    return reading, writing
