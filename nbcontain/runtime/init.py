"""What runs inside: the first process of a container, and those of an exec. Run by init, and by an exec's process.

Each becomes the user's program, or runs one of our own functions, after which it ends. The order of the
steps matters; what may be done while the host's paths can be seen comes before the pivot, what takes
power away comes last.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nbcontain.linux import confine, syscalls
from nbcontain.oci import spec_codec
from nbcontain.runtime import console, programs, roots
from nbcontain.runtime.annotations import GROUPS, REAPER, USER
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import ROOTFS, Channel, Message, describe
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.stage import freeze_imports, keep_only, redirect
from nbcontain.values import replace

Body = Callable[[Channel, Message, list[int]], None]
_FILE_CAPABILITIES = tuple(
    f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
)
"""What files can ask for."""
_FULL = Rung()
_NO_ANSWERS = Answers()


def main(
    channel: Channel,
    rung: Rung = _FULL,
    kept: Sequence[int] = (),
    told: Body | None = None,
    rehearse: Callable[[], None] = lambda: None,
) -> None:
    """Init: wait for what to be; be it, shut in as `rung` says.

    `kept` are descriptors that go on to the program; `told` makes a container of somebody else's bundle; `rehearse` is
    done where there is time for it.
    """
    keep_only(channel, *kept)
    os.setsid()
    leave_keyring()
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
        elif message["do"] == "told" and told is not None:
            freeze_imports()
            told(channel, message, fds)
        else:
            _be_function(channel, message, fds, rung)
    except BaseException as error:  # noqa: BLE001 - told to the supervisor, which raises it where it matters
        channel.tell(describe(error, message.get("where", "")))


def _be_container(channel: Channel, message: Message, fds: list[int], rung: Rung) -> None:
    """Init: make the container and become its program."""
    bundle = Bundle(Path(message["bundle"]))
    first = 3 + len(message["opened"])
    texts = dict(zip(message["texts"], fds[first:], strict=False))
    del fds[first : first + len(texts)]
    if texts:
        # Its supervisor has imported it, and forked us.
        from nbcontain.runtime.shifted import Handed

        bundle = Handed(bundle, texts)
    spec = bundle.spec
    if joined := message.get("joined"):
        # Of its run before: there is nothing to be made.
        kept = {**spec.linux.paths, **dict.fromkeys(joined, "kept")}
        spec = replace(spec, linux=replace(spec.linux, paths=kept))
    seccomp = bundle.seccomp(spec)
    if spec.process.oom_score_adj is not None:
        confine.set_oom_score(spec.process.oom_score_adj)
    redirect(*fds[:3])
    opened = dict(zip(message["opened"], fds[3:], strict=False))
    del fds[3 : 3 + len(opened)]
    answers = Answers.of_init(bundle, message["answers"], spec, fds.pop() if message["is_answered"] else -1)
    volatile = message["volatile"]
    spaces = _open_spaces() if message["holds"] else -1
    made, terminal, hidden = roots.made_for(bundle, spec, rung, fds[3:], opened, volatile=volatile)
    names = message["holds"] if spaces >= 0 else []
    held = [os.open(each, os.O_RDONLY | os.O_CLOEXEC, dir_fd=spaces) for each in names]
    if terminal is None:
        keep_only(channel, *answers.kept, *held)
    else:
        redirect(terminal.peer, terminal.peer, terminal.peer)
        keep_only(channel, terminal.master, *answers.kept, *held)
    program = programs.prepare(spec.process, spec.annotations, seccomp, answers)
    program.env.update(hidden.env)
    handed = [*held, *((terminal.master, 0) if terminal else ())]
    channel.send({"ready": True, "made": made, "held": names}, handed)
    for fd in handed:
        if fd:
            os.close(fd)
    if not message["start"] and channel.receive()[0] is None:
        return
    # A change of ids clears it, and so does fork.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.annotations.get(REAPER) == "true":
        program.enforce()
        _fork_and_reap(channel, is_root="user" not in spec.linux.namespaces)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    programs.execute(program, spec.process)


def _open_spaces() -> int:
    """The own namespaces, as a directory that can be opened while the host's /proc is there; -1 where it is not."""
    try:
        return os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError):
        return -1


def be_process(channel: Channel, seccomp: bytes, root_fd: int = -1, answers: Answers = _NO_ANSWERS) -> None:
    """An exec's process, inside the container's namespaces: become the program that the channel tells of.

    `seccomp` is the container's filter, which the supervisor read: in here its file cannot be seen. `root_fd` is its
    root where that is only a chroot.
    """
    message, _ = channel.receive()
    if message is None:
        return
    os.setsid()
    leave_keyring()
    confine.default_signals()
    process = spec_codec.process_from_json(message["process"])
    terminal = roots.entered_again(process, root_fd) if root_fd >= 0 else None
    if process.terminal:
        confine.reduce(process)
        terminal = terminal or console.inside(process.console_size)
        redirect(terminal.peer, terminal.peer, terminal.peer)
        channel.send({"console": True}, (terminal.master, 0))
        terminal.close()
    program = programs.prepare(process, {USER: message["user"], GROUPS: message.get("groups", "")}, seccomp, answers)
    programs.execute(program, process)


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
    fds += roots.made_of(rootfs, source, rung, fds)
    os.umask(0)
    channel.send({"result": function(arguments, fds)})


def be_caller(channel: Channel) -> None:
    """A supervisor's, in the mount namespace of its container: run one of our own functions there."""
    message, fds = channel.receive()
    if message is None:
        return
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    kept = confine.capability_set(_FILE_CAPABILITIES) & syscalls.capget()[1]
    syscalls.capset(kept, kept, 0)
    os.chdir("/")
    os.umask(0)
    channel.send({"result": sys.modules[ROOTFS].FUNCTIONS[message["function"]](message["arguments"], fds)})


def hide_words() -> None:
    """Where the interpreter lies on this machine is no container's business."""
    try:
        syscalls.overwrite_words(b"nbcontain-init")
    except (OSError, ValueError, IndexError):
        # A /proc that is masked, or another kernel's: then nothing can be read there by anybody else either.
        pass


def _hide_reaper(*, is_root: bool) -> None:
    """What stays behind is not to be looked into.

    Without a user namespace nobody inside may look at this process at all from here on. In one, the supervisor of an
    ordinary user could not either, and would not get in for an exec; a change of user, and birth into a namespace that
    others are in, have forbidden it until now.
    """
    hide_words()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0 if is_root else 1)


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


def leave_keyring() -> None:
    """Init and an exec's process: have no keys of whoever started us."""
    try:
        syscalls.new_session_keyring()
    except OSError:
        # Not built into this kernel, or denied by an outer container: then there are no keys to be seen either.
        return
