"""What runs inside: the first process of a container, and those of an exec. Run by init, and by an exec's process.

Each becomes the user's program, or runs one of our own functions, after which it ends. The order of the
steps matters; what may be done while the host's paths can be seen comes before the pivot, what takes
power away comes last.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbcontain.errors import CommandNotExecutable, CommandNotFound, SetupFailed
from nbcontain.linux import confine, syscalls, trees
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Linux, Mount, Process, Spec
from nbcontain.runtime import console, identity, roots
from nbcontain.runtime.annotations import DEFAULT_PATH, GROUPS, REAPER, USER
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import ROOTFS, Channel, Message, describe
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.stage import freeze_imports, keep_only, redirect
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import NoReturn

_FILE_LIMIT_BYTES = 1 << 20
_FILE_CAPABILITIES = tuple(
    f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
)
"""What files can ask for."""
_FULL = Rung()
_NO_ANSWERS = Answers()


_SAMPLE = json.dumps(
    spec_codec.spec_to_json(
        Spec(
            Process(("true",), (f"PATH={DEFAULT_PATH}",), capabilities=("CAP_CHOWN",)),
            mounts=(Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),) * 8,
            linux=Linux(("mount", "pid"), masked_paths=("/proc/kcore",)),
            annotations={USER: "root"},
        )
    )
)


def rehearse() -> None:
    """Init and supervisor, while they wait: do once, without effect, what a start will do.

    Memory is shared with the zygote until it is written to, and Python writes to what it merely looks at:
    the kernel copies some hundred pages now, instead of while somebody waits.
    """
    spec = spec_codec.spec_from_json(json.loads(_SAMPLE))
    identity.resolve("root", "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n")
    confine.capability_set(spec.process.capabilities)
    syscalls.capget()
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(trees.make_target(root_fd, "/", [], directory=True))
    os.close(root_fd)


def main(channel: Channel, rung: Rung = _FULL) -> None:
    """Init: wait for what to be; be it, shut in as `rung` says."""
    keep_only(channel)
    os.setsid()
    _leave_keyring()
    confine.default_signals()
    adopted, _ = channel.receive()
    if adopted is not None and adopted["rehearse"]:
        rehearse()
    # From here on init's life hangs on the supervisor's; should that have ended already, the next line is end-of-file.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    message, fds = channel.receive()
    if message is None:
        return
    try:
        if message["do"] == "program":
            freeze_imports()
            _be_container(channel, message, fds, rung)
        else:
            _be_function(channel, message, fds, rung)
    except BaseException as error:  # noqa: BLE001 - told to the supervisor, which raises it where it matters
        channel.tell(describe(error, message.get("where", "")))


def _be_container(channel: Channel, message: Message, fds: list[int], rung: Rung) -> None:
    """Init: make the container and become its program."""
    bundle = Bundle(Path(message["bundle"]))
    spec = bundle.spec
    if joined := message.get("joined"):
        # Of its run before: there is nothing to be made.
        kept = {**spec.linux.paths, **dict.fromkeys(joined, "kept")}
        spec = replace(spec, linux=replace(spec.linux, paths=kept))
    seccomp = bundle.seccomp(spec)
    if spec.process.oom_score_adj is not None:
        _set_oom_score(spec.process.oom_score_adj)
    redirect(*fds[:3])
    opened = dict(zip(message.get("opened", ()), fds[3:], strict=False))
    del fds[3 : 3 + len(opened)]
    answers = Answers(message["answers"], bundle.answers(), fds.pop() if message["is_answered"] else -1)
    volatile = message["volatile"]
    made, terminal, hidden = roots.made_for(bundle, spec, rung, fds[3:], opened, volatile=volatile)
    if terminal is None:
        keep_only(channel, *answers.kept)
    else:
        redirect(terminal.peer, terminal.peer, terminal.peer)
        keep_only(channel, terminal.master, *answers.kept)
    program = _prepare(spec.process, spec.annotations, seccomp, answers)
    program.env.update(hidden.env)
    channel.send({"ready": True, "made": made}, (terminal.master, 0) if terminal else ())
    if terminal is not None:
        os.close(terminal.master)
    if not message["start"] and channel.receive()[0] is None:
        return
    # A change of ids clears it, and so does fork.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.annotations.get(REAPER) == "true":
        _fork_and_reap(channel, is_root="user" not in spec.linux.namespaces)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    _execute(program, spec.process)


def be_process(channel: Channel, seccomp: bytes, root_fd: int = -1, answers: Answers = _NO_ANSWERS) -> None:
    """An exec's process, inside the container's namespaces: become the program that the channel tells of.

    `seccomp` is the container's filter, which the supervisor read: in here its file cannot be seen. `root_fd` is its
    root where that is only a chroot.
    """
    message, _ = channel.receive()
    if message is None:
        return
    os.setsid()
    _leave_keyring()
    confine.default_signals()
    process = spec_codec.process_from_json(message["process"])
    terminal = roots.entered_again(process, root_fd) if root_fd >= 0 else None
    if process.terminal:
        confine.reduce(process.capabilities, limits=bool(process.rlimits))
        terminal = terminal or console.inside(process.console_size)
        redirect(terminal.peer, terminal.peer, terminal.peer)
        channel.send({"console": True}, (terminal.master, 0))
        terminal.close()
    program = _prepare(process, {USER: message["user"], GROUPS: message.get("groups", "")}, seccomp, answers)
    _execute(program, process)


def _be_function(channel: Channel, message: Message, fds: list[int], rung: Rung) -> None:
    """Init: run one of our own functions with the given root file system as its whole world."""
    # The zygote has them already, unless this is the first thing that it is asked for.
    for name in message["modules"]:
        importlib.import_module(name)
    freeze_imports()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    function = sys.modules[ROOTFS].FUNCTIONS[message["function"]]
    arguments = message["arguments"]
    rootfs = spec_codec.mounts_from_json(message["rootfs"])
    source = spec_codec.mounts_from_json(message["source"]) if message["source"] else ()
    fds += roots.made_of(rootfs, source, rung)
    os.umask(0)
    channel.send({"result": function(arguments, fds)})


def be_caller(channel: Channel) -> None:
    """A supervisor's, in the mount namespace of its container: run one of our own functions there."""
    message, fds = channel.receive()
    if message is None:
        return
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    confine.reduce(_FILE_CAPABILITIES, limits=False)
    os.chdir("/")
    os.umask(0)
    channel.send({"result": sys.modules[ROOTFS].FUNCTIONS[message["function"]](message["arguments"], fds)})


# --- becoming a program ---------------------------------------------------------------------------


class _Program:
    """What is about to be executed."""

    def __init__(self, path: str, env: dict[str, str]) -> None:
        self.path = path
        self.env = env


def _prepare(process: Process, annotations: Mapping[str, str], seccomp: bytes, answers: Answers) -> _Program:
    """Everything between the pivot and exec; from here on only what the user may do can be done."""
    # The files that are read below may be symlinks to what only the host's root may open, such as /proc/kmsg.
    confine.reduce(process.capabilities, limits=bool(process.rlimits))
    _take_own_null()
    words, groups = annotations.get(USER, ""), annotations.get(GROUPS, "")
    who = identity.resolve(words, text_of("/etc/passwd"), text_of("/etc/group"), groups)
    user = who.user if words or groups else process.user
    env = dict(entry.partition("=")[::2] for entry in process.env)
    env.setdefault("PATH", DEFAULT_PATH)
    env.setdefault("HOME", who.home)
    entered = _enter_directory(process.cwd, may_fail=user.uid != 0)
    try:
        for number in (1, 2):
            # A program may open /dev/stdout anew, which asks the pipe who it belongs to.
            if user.uid and not answers.stand_in and stat.S_ISFIFO(os.fstat(number).st_mode):
                os.fchown(number, user.uid, user.gid)
        if process.terminal:
            with suppress(PermissionError):
                # Without CAP_CHOWN it stays root's: what it has open works, /dev/pts/0 by its name does not.
                os.fchown(0, user.uid, -1)
        _label(process)
        confine.limit(process.rlimits)
        capabilities = process.capabilities if user.uid == 0 else ()
        confine.become(
            replace(user, uid=0, gid=0, additional_gids=()) if answers.stand_in else user,
            capabilities if answers.stand_in else process.capabilities,
            no_new_privileges=process.no_new_privileges, seccomp=seccomp,
            before=partial(answers.introduce, user) if answers.words else None,
        )  # fmt: skip
    except OSError as error:
        raise SetupFailed(
            f"cannot become user {words or user.uid}",
            errno=error.errno,
            why=f"{error.strerror}: only the ids that are mapped into this container exist",
        ) from error
    if not entered:
        _enter_directory(process.cwd, may_fail=False)
    return _Program(_find(process.args, env["PATH"]), env)


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


def _enter_directory(path: str, *, may_fail: bool) -> bool:
    """Go to the working directory, which is made if it is missing; False if only the user itself may go there."""
    try:
        try:
            os.chdir(path)
        except FileNotFoundError:
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
        raise SetupFailed(
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
    where = "" if "/" in name else f"not in PATH={path}"
    raise CommandNotFound(f"there is no command {name} in the container", errno=2, path=name, why=where)


def _execute(program: _Program, process: Process) -> NoReturn:
    """Become the program. Raises what hinders it; the channel is close-on-exec, so its end means success."""
    if process.terminal:
        console.take()
    try:
        os.execve(program.path, process.args, program.env)
    except OSError as error:
        if error.errno == 2:
            raise CommandNotFound(
                f"{process.args[0]} cannot be started",
                errno=2,
                path=program.path,
                why="the file is there, but not the interpreter or loader that it names",
            ) from error
        reason = "it is no program for this machine (exec format error)" if error.errno == 8 else error.strerror or ""
        raise CommandNotExecutable(
            f"{process.args[0]} cannot be executed", errno=error.errno, path=program.path, why=reason
        ) from error


def _hide_reaper(*, is_root: bool) -> None:
    """Where the interpreter lies on this machine is no container's business.

    Without a user namespace nobody inside may look at this process at all from here on. In one, the supervisor of an
    ordinary user could not either, and would not get in for an exec.
    """
    try:
        syscalls.overwrite_words(b"nbcontain-init")
    except (OSError, ValueError, IndexError):
        # A /proc that is masked, or another kernel's: then nothing can be read there by anybody else either.
        pass
    if is_root:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _fork_and_reap(channel: Channel, *, is_root: bool) -> None:
    """Init with --init: fork the program and stay, reaping and passing signals on. Returns in the program only."""
    forwarded = set(range(1, 65)) - {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, 32, 33}
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    _hide_reaper(is_root=is_root)
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    channel.close()
    for number in (0, 1, 2):
        os.close(number)
    while True:
        number = signal.sigwait(forwarded | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


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


def _set_oom_score(number: int) -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % number)
        finally:
            os.close(fd)
    except OSError as error:
        raise SetupFailed(
            f"cannot make the oom score {number}", errno=error.errno, why="only root of the machine may lower it"
        ) from error


def _leave_keyring() -> None:
    try:
        syscalls.new_session_keyring()
    except OSError:
        # Not built into this kernel, or denied by an outer container: then there are no keys to be seen either.
        return
