"""The short-lived processes between a supervisor and what runs inside: they enter namespaces, fork, and exit.

A supervisor must never enter a namespace itself: init's pivot_root would move its root as well, and the
processes it forks later would be in the wrong pid namespace.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable

from nbcontain.linux import syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import isolation
from nbcontain.runtime.messages import Channel, describe, error_of
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Inside:
    """A process that was forked inside: its pid as the host counts, and the channel to it."""

    pid: int
    channel: Channel


def form(
    ids: IdMap, init: Callable[[Channel], None], is_awaited: Callable[[], bool] = lambda: True, *, user: int = -1
) -> Inside:
    """Supervisor: have a process forked in new pid, ipc, uts (and user) namespaces, to run `init`.

    `user` is a user namespace to be in instead of a new one: that of the container's run before. The pid namespace's
    first process waits for messages: it does not know yet what it will be. Unless somebody awaits it already, it has
    time to rehearse.
    """
    ours, theirs = Channel.pair()
    stage = os.fork()
    if stage == 0:
        run(lambda: _separate(ids, init, theirs, user), theirs)
    theirs.close()
    try:
        if not ids.is_identity and user < 0:
            _expect(ours, "separated")
            ids.write(stage)
            ours.send({"mapped": True})
        pid = int(str(_expect(ours, "pid")))
    finally:
        os.waitpid(stage, 0)
    # The stage is gone, so the subreaper, which is us, is now init's parent, and init may tie its life to ours.
    ours.send({"adopted": True, "rehearse": not is_awaited()})
    return Inside(pid, ours)


def _separate(ids: IdMap, init: Callable[[Channel], None], channel: Channel, user: int) -> None:
    """Stage: leave the host's namespaces, fork init there, report its pid."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if user >= 0:
        syscalls.setns(user, syscalls.CLONE_NEWUSER)
    keep_only(channel)
    if not ids.is_identity:
        if user < 0:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            channel.send({"separated": True})
            _expect(channel, "mapped")
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if not ids.is_single:
            os.setgroups(())
    syscalls.unshare(isolation.AT_BIRTH)
    pid = os.fork()
    if pid == 0:
        run(lambda: init(channel), channel)
    channel.send({"pid": pid})


def join(pidfd: int, flags: int, body: Callable[[Channel], None], stdio: tuple[int, int, int]) -> Inside:
    """Supervisor: have a process forked inside the namespaces of the container that `pidfd` is, to run `body`."""
    ours, theirs = Channel.pair()
    stage = os.fork()
    if stage == 0:
        run(lambda: _enter(pidfd, flags, body, stdio, theirs), theirs)
    theirs.close()
    try:
        return Inside(int(str(_expect(ours, "pid"))), ours)
    finally:
        os.waitpid(stage, 0)


def _enter(
    pidfd: int, flags: int, body: Callable[[Channel], None], stdio: tuple[int, int, int], channel: Channel
) -> None:
    """Stage of an exec: become part of a running container, fork there, report the pid."""
    redirect(*stdio)
    freeze_imports()
    # Before the door opens: whoever is inside must not reach into us through /proc (CVE-2016-9962).
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.setns(pidfd, flags)
    if flags & syscalls.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    keep_only(channel)
    pid = os.fork()
    if pid == 0:
        run(lambda: body(channel), channel)
    channel.send({"pid": pid})


def run(body: Callable[[], None], channel: Channel | None = None) -> NoReturn:
    """Any forked process: run `body` and end, without Python's farewell, which would touch what the parent shares.

    What goes wrong is told on the channel.
    """
    status = 0
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - a forked process has nobody above it
        status = 1
        if channel is not None:
            channel.tell(describe(error))
    finally:
        os._exit(status)


def keep_only(channel: Channel, *others: int) -> None:
    """Close every file descriptor but 0, 1, 2, the channel's and these."""
    close_others({channel.fileno(), *others})


def close_others(kept: Iterable[int]) -> None:
    """Close every file descriptor but 0, 1, 2 and these."""
    start = 3
    for fd in sorted(kept):
        if fd > start:
            syscalls.close_range(start, fd - 1)
        start = max(start, fd + 1)
    syscalls.close_range(start)


def redirect(stdin: int, stdout: int, stderr: int) -> None:
    """Make these file descriptors 0, 1 and 2, in a process that uses no others below 3."""
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)


def freeze_imports() -> None:
    """Import nothing from here on: an import after the root changes would run the image's own .py as the engine.

    Files of the container must not even be read as source lines of a traceback, hence the hook.
    """
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()
    sys.excepthook = lambda *_: None
    gc.disable()


def _expect(channel: Channel, name: str) -> object:
    message, _ = channel.receive()
    if message is None:
        raise ChildProcessError("a process of the container's setup ended without a word")
    if "error" in message:
        raise error_of(message)
    return message[name]
