"""The stage of a container's next further program, forked before anybody has asked for that. Run by the supervisor.

It waits outside of the container's namespaces, where nobody inside can see or reach it, with nothing in its hands but
the container's pidfd; told what is to run, it does what any stage does.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from nbcontain.linux import syscalls
from nbcontain.oci import spec_codec
from nbcontain.runtime import init, stage
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

    def __init__(self, pidfd: int, flags: int, seccomp: bytes, like: Message) -> None:
        """`like` is the last message: the next one's pages are made its own with it, while nobody waits."""
        self._stage = stage.attended(partial(_wait, pidfd, flags, seccomp, like))

    def join(self, message: Message, fds: list[int]) -> stage.Inside | None:
        """As `stage.join`, of this very stage; None if it is dead, or was killed over it."""
        try:
            self._stage.channel.send(message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.end()
            return None
        try:
            return stage.joined(self._stage)
        except ChildProcessError:
            self._stage.channel.close()
            return None

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
    program(like, seccomp)
    message, fds = channel.receive()
    if message is not None:
        stage.enter(pidfd, flags, program(message, seccomp), (fds[0], fds[1], fds[2]), channel)
