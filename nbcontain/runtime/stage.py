"""The short-lived processes between a supervisor and what runs inside: they enter namespaces, fork, and exit.

A supervisor must never enter a namespace itself: init's pivot_root would move its root as well, and the
processes it forks later would be in the wrong pid namespace.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
from collections.abc import Callable, Sequence

from nbcontain.errors import SetupFailed
from nbcontain.linux import forks, syscalls, trees
from nbcontain.runtime.messages import Channel, Message, describe, error_of, is_readable
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import NoReturn


_TMPFS = 0x01021994
"""statfs(2)."""
_PUT_ASIDE: list[object] = []
"""What `freeze_imports` took away from the import system."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A process that was forked inside: its pid as the host counts, and the channel to it."""

    pid: int
    channel: Channel
    predecessor: int = 0
    """The process whose memory it has, and which ends, as a child of ours, when it has executed its program or ended
    (`forks.succeeded`); 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a process inside does, which is ready to be done."""

    calls: forks.Calls
    raise_for: Callable[[forks.Failure], NoReturn]


def tree_inside(pidfd: int, flags: int, path: str, attributes: int) -> int:
    """Supervisor: a detached copy of the mount at `path` in the container that `pidfd` is, as a descriptor.

    With MOUNT_ATTR_… `attributes`, which only who is of its user namespace may set.
    """
    return taken(lambda channel: _take_tree(pidfd, flags, path, attributes, channel), f"{path} of a container")[0]


def taken(body: Callable[[Channel], None], what: str) -> list[int]:
    """Supervisor: have a process forked to run `body`, which sends descriptors; gives them. Raises what it raised.

    `what` is what it is of, for errors.
    """
    ours, theirs = Channel.pair()
    stage = os.fork()
    if stage == 0:
        run(lambda: body(theirs), theirs)
    theirs.close()
    try:
        message, fds = ours.receive()
        if message is None or "error" in message or not fds:
            raise error_of(message or {"error": "SetupFailed", "message": f"{what} cannot be taken"})
        return fds
    finally:
        ours.close()
        os.waitpid(stage, 0)


def _take_tree(pidfd: int, flags: int, path: str, attributes: int, channel: Channel) -> None:
    freeze_imports()
    # Whoever is inside must not reach into us through /proc (CVE-2016-9962).
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.setns(pidfd, flags)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # Its program may have put a symlink there, or something else.
    found = trees.open_beneath(root, path.lstrip("/"), os.O_PATH | os.O_DIRECTORY)
    if syscalls.file_system_type(found) != _TMPFS:
        raise SetupFailed(f"{path} of that container is no memory", path=path)
    copy = syscalls.open_tree(found)
    syscalls.mount_setattr(copy, attributes)
    channel.send({"tree": True}, [copy])


def join(
    pidfd: int, flags: int, body: Callable[[Channel], None], stdio: tuple[int, int, int], kept: Sequence[int] = (),
    *, first: Callable[[], None] = lambda: None,
) -> Inside:  # fmt: skip
    """Supervisor: have a process forked inside the namespaces of the container that `pidfd` is, to run `body`.

    `first` is done outside still, by the one that forks it. `kept` are descriptors that are not closed in there. Raises
    ChildProcessError where the stage was killed: what it may have forked has no other end any more, and is ours.
    """

    def stages() -> None:
        first()
        enter(pidfd, flags, lambda: body, stdio, theirs, kept)

    ours, theirs = Channel.pair()
    stage = os.fork()
    if stage == 0:
        run(stages, theirs)
    theirs.close()
    try:
        return Inside(forked_by(stage, ours), ours)
    except BaseException:
        ours.close()
        raise
    finally:
        os.waitpid(stage, 0)


def enter(
    pidfd: int,
    flags: int,
    body: Callable[[], Callable[[Channel], None] | Ready],
    stdio: tuple[int, int, int],
    channel: Channel,
    kept: Sequence[int] = (),
) -> None:
    """Stage of an exec: become part of a running container, fork there, report the pid.

    `body` gives what is run there. It is called inside of all namespaces but that of processes, which only those who
    are born in it are in: until then nobody inside can see or reach this process. Told besides is whether what is
    forked waits for a word to go on; what is ready does not wait.
    """
    redirect(*stdio)
    if sys.meta_path:
        freeze_imports()
    # Before the door opens: whoever is inside must not reach into us through /proc (CVE-2016-9962).
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if flags:
        syscalls.setns(pidfd, flags)
    if flags & syscalls.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    keep_only(channel, *kept)
    found = body()
    # What is said is put together by hand: whoever waits for this waits for that.
    if isinstance(found, Ready):
        child = found.calls.fork(beside=True)
        channel.say(b'{"pid":%d,"waits":false}' % child.pid)
        for fd in (0, 1, 2):
            # Nobody is kept waiting meanwhile for the end of what this process has open too.
            os.close(fd)
        if failure := child.failure():
            found.raise_for(failure)
        channel.close()
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        run(lambda: found(channel), channel)
    channel.say(b'{"pid":%d,"waits":true}' % pid)


def attended(body: Callable[[Channel], None]) -> Inside:
    """Supervisor: have a process of its own kind forked to run `body`, and be heard from."""
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        run(lambda: body(theirs), theirs)
    theirs.close()
    return Inside(pid, ours)


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
    syscalls.close_others({channel.fileno(), *others})


def redirect(stdin: int, stdout: int, stderr: int) -> None:
    """Make these file descriptors 0, 1 and 2, in a process that uses no others below 3."""
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)


def freeze_imports() -> None:
    """Import nothing from here on: an import after the root changes would run the image's own .py as the engine.

    Files of the container must not even be read as source lines of a traceback, hence the hook.
    """
    # Put aside and not emptied: to forget thousands of names is to write to memory that is shared with the zygote.
    for name in ("path", "meta_path", "path_hooks", "path_importer_cache"):
        _PUT_ASIDE.append(getattr(sys, name))
        setattr(sys, name, type(_PUT_ASIDE[-1])())
    sys.excepthook = lambda *_: None
    gc.disable()


def raise_for(answer: Message | None) -> None:
    """Raise the error that init told of; a first process that says nothing at all is one too."""
    if answer is None:
        raise ChildProcessError("the container's first process ended without a word")
    if "error" in answer:
        raise error_of(answer)


def forked_by(stage: int, channel: Channel) -> int:
    """What a stage has forked, as it says itself.

    Whatever that is has the other end too, and waits for us: of a stage that was killed meanwhile nothing but its own
    end tells.
    """
    try:
        end = os.pidfd_open(stage)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        # Older releases of gVisor.
        return int(str(expect(channel, "pid")))
    try:
        poll = select.poll()
        for fd in (channel.fileno(), end):
            poll.register(fd, select.POLLIN)
        poll.poll()
    finally:
        os.close(end)
    if not is_readable(channel, 0):
        raise ChildProcessError("a process of the container's setup was killed")
    return int(str(expect(channel, "pid")))


def expect(channel: Channel, name: str) -> object:
    """What the next message has under that name. Raises what it tells of instead, or that there is none."""
    message, _ = channel.receive()
    if message is None:
        raise ChildProcessError("a process of the container's setup ended without a word")
    if "error" in message:
        raise error_of(message)
    return message[name]
