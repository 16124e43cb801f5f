"""A child by descriptor: pidfd_open(2), and what stands in for it where a kernel has none, as gVisor of 2022.

Such a kernel lets nobody inherit what its children leave behind either. There the descriptor is a pipe that is written
to at each SIGCHLD, by C, so that nobody who waits for it misses one; whether it was this child that ended is asked
then. Until it is waited for nobody else has its number.
"""

from __future__ import annotations

import errno
import os
import select
import signal

from nbcontain.linux import forks, syscalls
from nbcontain.linux.idmap import IdMap

_TOLD_S = 5

_STAND_INS: dict[int, tuple[int, int]] = {}
"""The pid of a child, and the end of the pipe that is written to; by the other end. It belongs to the process, as what
is done at signals does."""


def opened(pid: int) -> int:
    """A descriptor of a child, which can be read from when it may have ended. Raises OSError.

    A stand-in is told of nothing once another one is opened.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _STAND_INS[reading] = pid, writing
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # It may have ended before that.
    os.write(writing, b".")
    return reading


def is_stand_in(pidfd: int) -> bool:
    """Whether a descriptor is only this process's own word for a child."""
    return pidfd in _STAND_INS


def has_ended(pidfd: int) -> bool:
    """Whether the child has, whose descriptor can be read from; it is not waited for."""
    if pidfd not in _STAND_INS:
        return True
    try:
        os.read(pidfd, 4096)
        return os.waitid(os.P_PID, _STAND_INS[pidfd][0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except BlockingIOError:
        return False
    except ChildProcessError:
        return True


def send(pidfd: int, number: int) -> None:
    """Send a signal to the child, pidfd_send_signal(2). Raises ProcessLookupError for one that was waited for."""
    if pidfd in _STAND_INS:
        os.kill(_STAND_INS[pidfd][0], number)
    else:
        signal.pidfd_send_signal(pidfd, number)


def close(pidfd: int) -> None:
    """Close such a descriptor."""
    _, writing = _STAND_INS.pop(pidfd, (0, -1))
    if writing >= 0:
        told = signal.set_wakeup_fd(-1)
        if told != writing:
            signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        os.close(writing)
    os.close(pidfd)


def tried(uid: int, gid: int) -> tuple[bool, str]:
    """Whether a child can be had that is the first one in namespaces of its own, and is heard of when it ends; and what
    stopped it. As `runtime.stage` has it where nobody inherits anything."""
    told, telling = os.pipe()
    try:
        names = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        child = forks.fork(syscalls.CLONE_NEWUSER | names)
        if child == 0:
            os.close(telling)
            os._exit(os.getpid() if os.read(told, 1) else 2)
        os.close(told)
        try:
            end = opened(child)
            IdMap.single(uid, gid).write(child)
            os.write(telling, b".")
            os.close(telling)
            is_told = False
            while not is_told and select.select([end], [], [], _TOLD_S)[0]:
                is_told = has_ended(end)
            close(end)
        finally:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except OSError as error:
        return False, error.strerror or ""
    if not is_told:
        return False, "nobody tells of its end"
    return code == 1, "" if code == 1 else f"its number in there is {code}"
