"""Becoming the user's program: everything between the pivot and exec. Run by init, and by an exec's process.

From here on only what the user may do can be done: power goes first, and the kernel's calls last.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from nbcontain.errors import CommandNotExecutable, CommandNotFound, DirectoryNotFound, NbcontainError, SetupFailed
from nbcontain.linux import confine, forks
from nbcontain.oci.spec import Process
from nbcontain.runtime import console, identity
from nbcontain.runtime.annotations import DEFAULT_PATH, USER
from nbcontain.runtime.answerers import Answers
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import NoReturn

_FILE_LIMIT_BYTES = 1 << 20
_PASSWD, _GROUP = "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n"
"""To rehearse with."""
_NO_ANSWERS = Answers()


class Program:
    """What is about to be executed."""

    def __init__(self, path: str, env: dict[str, str], last: confine.Last) -> None:
        self.path = path
        self.env = env
        self._last: confine.Last | None = last

    @property
    def tells(self) -> bool:
        """Whether its filter hands calls on to somebody who listens."""
        return self._last is not None and confine.tells(self._last.seccomp)

    def calls(self, args: Sequence[str]) -> forks.Calls:
        """What a child of this process does to become it, as the leader of a session."""
        last = self._last.calls() if self._last is not None else []
        return forks.Calls(forks.lead_session(), *last, forks.execute(self.path, args, self.env))

    def raise_for(self, failure: forks.Failure, name: str) -> NoReturn:
        """Raises what hindered that child."""
        if failure.is_last:
            raise _not_executed(self.path, name, failure.errno)
        raise OSError(failure.errno, os.strerror(failure.errno))

    def enforce(self) -> None:
        """Take away what was kept until now."""
        if self._last is not None:
            self._last.enforce()
            self._last = None


def prepare(
    process: Process,
    annotations: Mapping[str, str],
    seccomp: bytes,
    answers: Answers = _NO_ANSWERS,
    *,
    path: str = DEFAULT_PATH,
    domain: str = "",
    is_first: bool = True,
    is_bound: bool = False,
) -> Program:
    """Become who runs it, with what that user may do, and find it. Raises SetupFailed, CommandNotFound and the like.

    `path` is PATH where its environment has none, and "" leaves it out; `domain` is the personality's. For the first
    program of a container its working directory is made if it is missing, as everywhere. `is_bound` as in
    `confine.become`.
    """
    confine.schedule(process)
    confine.appear_as(domain)
    # The files that are read below may be symlinks to what only the host's root may open, such as /proc/kmsg.
    confine.reduce(process)
    _take_own_null()
    who = identity.of_process(process, annotations, text_of("/etc/passwd"), text_of("/etc/group"))
    user = identity.with_own_group(who.user) if path else who.user
    env = dict(entry.partition("=")[::2] for entry in process.env)
    if path:
        env.setdefault("PATH", path)
    env.setdefault("HOME", who.home)
    entered = _enter_directory(process.cwd, may_fail=user.uid != 0, may_make=is_first)
    try:
        for number in (1, 2):
            # A program may open /dev/stdout anew, which asks the pipe who it belongs to.
            if user.uid and not answers.stand_in and stat.S_ISFIFO(os.fstat(number).st_mode):
                with suppress(PermissionError):  # gVisor gives a pipe away to nobody.
                    os.fchown(number, user.uid, user.gid)
        if process.terminal:
            with suppress(PermissionError):
                # Without CAP_CHOWN it stays root's: what it has open works, /dev/pts/0 by its name does not.
                os.fchown(0, user.uid, -1)
        _label(process)
        confine.limit(process.rlimits)
        # The link is there also for who sees the /proc of processes that it is none of, as a stage that waits.
        if path and not os.path.islink("/proc/self"):
            confine.limit_descriptors(process.rlimits)
        before = partial(answers.introduce, user) if answers.words else None
        if answers.stand_in:
            # All are root for the kernel; who it would be may at least not have more than it would have.
            process = process if user.uid == 0 else replace(process, capabilities=())
            user = replace(user, uid=0, gid=0, additional_gids=(0,))
        last = confine.become(process, user, seccomp=seccomp, before=before, is_bound=is_bound)
    except OSError as error:
        raise SetupFailed(
            f"cannot become user {annotations.get(USER) or user.uid}",
            errno=error.errno,
            why=f"{error.strerror}: only the ids that are mapped into this container exist",
        ) from error
    if not entered:
        _enter_directory(process.cwd, may_fail=False, may_make=is_first)
    return Program(_find(process.args, env.get("PATH", DEFAULT_PATH)), env, last)


def rehearse(process: Process, annotations: Mapping[str, str], seccomp: bytes) -> None:
    """What `prepare` and what follows do, without effect: memory that is written to is then this process's own.

    Run by a stage that waits, which is not in the container yet, and reads nothing of this machine's.
    """
    with suppress(NbcontainError):
        identity.with_own_group(identity.of_process(process, annotations, _PASSWD, _GROUP).user)
    env = dict(entry.partition("=")[::2] for entry in process.env)
    with suppress(NbcontainError):
        _find(process.args, env.get("PATH", DEFAULT_PATH))
    _take_own_null()
    text_of("")
    _enter_directory(os.getcwd(), may_fail=True, may_make=False)
    Program("", env, confine.rehearse(process, seccomp)).calls(process.args)


def _label(process: Process) -> None:
    try:
        confine.label_at_exec(process.apparmor, process.label)
    except OSError as error:
        what = process.apparmor or process.label
        raise SetupFailed(
            f"cannot run under {what}", errno=error.errno, path=error.filename, why=error.strerror or "",
            hint="load the profile first, or leave --security-opt out",
        ) from error


def _take_own_null() -> None:
    """The container's /dev/null in place of the host's, whose mode root inside could change through the descriptor.

    Where the container's is something else by now, an empty pipe.
    """
    null = os.makedev(1, 3)
    for number in (0, 1, 2):
        status = os.fstat(number)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != null:
            continue
        try:
            fd = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            fd = -1
        if fd < 0 or os.fstat(fd).st_rdev != null:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            os.dup2(writing if number else reading, number)
            os.close(reading)
            os.close(writing)
        else:
            os.set_blocking(fd, True)
            os.dup2(fd, number)
        if fd >= 0:
            os.close(fd)


def _enter_directory(path: str, *, may_fail: bool, may_make: bool) -> bool:
    """Go to the working directory; False if only the user itself may go there."""
    try:
        try:
            os.chdir(path)
        except FileNotFoundError:
            if not may_make:
                raise
            _make_directories(path)
            os.chdir(path)
        # A directory of the host's, through a leaked descriptor, has no path in here (CVE-2024-21626).
        if not os.getcwd().startswith("/"):
            raise SetupFailed(f"the working directory {path} is not in the container", path=path)
    except PermissionError:
        if may_fail:
            return False
        raise
    except OSError as error:
        raise DirectoryNotFound(
            f"cannot use {path} as the working directory", errno=error.errno, path=path, why=error.strerror or ""
        ) from error
    return True


def _make_directories(path: str) -> None:
    """`mkdir -p` with mode 0755, whatever umask the notebook's kernel has."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    if not os.path.isdir(path):
        os.mkdir(path)
        os.chmod(path, 0o755)


def _find(args: tuple[str, ...], path: str) -> str:
    """Where the program is, as its user sees it. Raises CommandNotFound and CommandNotExecutable."""
    if not args or not args[0]:
        raise CommandNotFound(
            "there is no command to run", hint="give one after the image's name, or set CMD in the image"
        )
    name = args[0]
    candidates = [name] if "/" in name else [f"{each or '.'}/{name}" for each in path.split(":")]
    unusable = ""
    for candidate in candidates:
        try:
            status = os.stat(candidate)
        except NotADirectoryError:
            continue
        except FileNotFoundError:
            continue
        except OSError as error:
            unusable = unusable or f"{candidate}: {error.strerror}"
            continue
        if stat.S_ISREG(status.st_mode) and os.access(candidate, os.X_OK):
            return candidate
        kind = "is a directory" if stat.S_ISDIR(status.st_mode) else "is not executable for this user"
        unusable = unusable or f"{candidate} {kind}"
    if unusable:
        raise CommandNotExecutable(f"{name} cannot be executed", path=name, why=unusable)
    raise not_found(name, path)


def not_found(name: str, path: str) -> CommandNotFound:
    """What is wrong where no program of that name is, in what PATH says."""
    where = "" if "/" in name else f"not in PATH={path}"
    return CommandNotFound(
        f"there is no command {name} in the container", errno=errno.ENOENT, path=name, why=where,
        hint="a line for a shell is said by:  sh -c 'LINE'" if " " in name else "",
    )  # fmt: skip


def execute(program: Program, process: Process) -> NoReturn:
    """Become the program. Raises what hinders it; the channel is close-on-exec, so its end means success."""
    if process.terminal:
        console.take()
    program.enforce()
    try:
        os.execve(program.path, process.args, program.env)
    except OSError as error:
        raise _not_executed(program.path, process.args[0], error.errno or 0) from error


def _not_executed(path: str, name: str, number: int) -> SetupFailed:
    if number == errno.ENOENT:
        why = "the file is there, but not the interpreter or loader that it names"
        return CommandNotFound(f"{name} cannot be started", errno=number, path=path, why=why)
    is_foreign = number == errno.ENOEXEC
    reason = "it is no program for this machine (exec format error)" if is_foreign else os.strerror(number)
    return CommandNotExecutable(f"{name} cannot be executed", errno=number, path=path, why=reason)


def text_of(path: str) -> str:
    """A small regular file of the container's; "" if it is anything else (CVE-2024-9676)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _FILE_LIMIT_BYTES:
            return ""
        return os.read(fd, _FILE_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
