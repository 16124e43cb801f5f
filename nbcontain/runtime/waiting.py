"""The stage of a container's next further program, forked before anybody has asked for that. Run by the supervisor.

It waits outside of the container's namespaces, where nobody inside can see or reach it, with nothing in its hands but
the container's pidfd; told what is to run, it does what any stage does.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from functools import partial

from nbcontain.linux import confine, forks, syscalls
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Process
from nbcontain.runtime import init, programs, stage
from nbcontain.runtime.annotations import GROUPS, USER
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.messages import Channel, Message

_NO_ANSWERS = Answers()


def program(
    message: Message, seccomp: bytes, root_fd: int = -1, answers: Answers = _NO_ANSWERS
) -> partial[None]:
    """What an exec's process does, as a message wants it. Before the fork: each page written to after it is copied."""
    process = spec_codec.process_from_json(message["process"])
    annotations = {USER: str(message["user"]), GROUPS: str(message.get("groups", ""))}
    return partial(
        init.be_process, process=process, annotations=annotations,
        seccomp=b"" if message.get("privileged") else seccomp, root_fd=root_fd, answers=answers,
    )  # fmt: skip


class Waiting:
    """One such stage, for the container that `pidfd` is."""

    def __init__(self, pidfd: int, flags: int, seccomp: bytes, like: Message, *, ends: bool) -> None:
        """`like` is the last message: the next one's pages are made its own with it, while nobody waits.

        `ends` is whether what it forks ends when this process does, also if it is not told to.
        """
        self._ends = ends
        self._bound = like["process"].get("capabilities")
        """What its program may ever gain is decided."""
        self._stage = stage.attended(partial(_wait, pidfd, flags, seccomp, like))
        _rehearse_message(like)

    def join(self, message: Message, fds: list[int], *, limited: bool) -> stage.Inside | None:
        """This very stage, which is on its way: what it sends is the pid of what it forks inside, or what hindered it.

        `fds` are the three of the program, and doors to control groups that it enters before anything else. What it
        forks is put into a group by somebody else if it is `limited`, and does nothing before, but waits until it is
        told to go on. None if it is dead, or has given up what is wanted now.
        """
        if message["process"].get("capabilities") != self._bound:
            self.end()
            return None
        try:
            self._stage.channel.send({**message, "limited": limited, "ends": self._ends}, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.end()
            return None
        return self._stage

    def end(self) -> None:
        """It is not wanted."""
        self._stage.channel.close()
        # Nobody else waits for it, so that this is its number, be it dead.
        os.kill(self._stage.pid, signal.SIGKILL)
        os.waitpid(self._stage.pid, 0)


def _wait(pidfd: int, flags: int, seccomp: bytes, like: Message, channel: Channel) -> None:
    """Stage: wait for what is to run."""
    stage.keep_only(channel, pidfd)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    _rehearse_message(like)
    given = program(like, seccomp).keywords
    programs.rehearse(given["process"], given["annotations"], given["seccomp"])
    is_quick = forks.is_possible()
    stage.freeze_imports()
    confine.default_signals()
    take_score(given["process"])
    # Who enters another user namespace can gain everything there again.
    is_bound = not flags & syscalls.CLONE_NEWUSER
    if is_bound:
        confine.bound(given["process"].capabilities)
    message, fds = channel.receive()
    if message is None:
        return
    confine.enter_groups(fds[3:])
    body = program(message, seccomp)
    stdio = fds[0], fds[1], fds[2]
    stage.enter(
        pidfd, flags, lambda: _inside(body, message, is_bound=is_bound) if is_quick else body, stdio, channel
    )


def take_score(process: Process) -> None:
    """Stage, outside still: have the container's oom score, for what it forks, which may not write its own in there."""
    if process.oom_score_adj is not None:
        confine.set_oom_score(process.oom_score_adj)


def _rehearse_message(like: Message) -> None:
    """Whoever forks, and who is forked, shares all memory with the other until it is written to."""
    ours, theirs = Channel.pair()
    ours.send(like, [theirs.fileno()])
    _, fds = theirs.receive()
    known, end = Channel.of(os.dup(ours.fileno())), os.pidfd_open(os.getpid())
    known.peer_uid()
    poll = select.poll()
    for each in (known.fileno(), end):
        poll.register(each, select.POLLIN)
    poll.poll(0)
    for fd in (*fds, end):
        os.close(fd)
    for channel in (ours, theirs, known):
        channel.close()


def _inside(body: partial[None], message: Message, *, is_bound: bool) -> Callable[[Channel], None] | stage.Ready:
    """Stage, inside of all namespaces but that of processes: what its child does there. Most of it is done here, but
    for what has to be the process's own."""
    process: Process = body.keywords["process"]
    if not message["ends"] or message["limited"] or not is_plain(process) or not _may_set_groups():
        return body
    given = body.keywords
    return init.prepared_process(process, given["annotations"], given["seccomp"], is_bound=is_bound)


def is_plain(process: Process) -> bool:
    """Whether nothing about it is a process's own: limits, labels, a terminal and the like."""
    own = (process.terminal, process.rlimits, process.scheduler, process.io_priority, process.apparmor, process.label)
    return not any(own)


def _may_set_groups() -> bool:
    """What is denied is asked of /proc, where no process from outside of the container is itself."""
    try:
        os.setgroups(())
    except PermissionError:
        return False
    return True
