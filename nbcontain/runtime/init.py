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
from collections.abc import Callable, Mapping, Sequence

from nbcontain.errors import Unavailable
from nbcontain.linux import confine, syscalls
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Process
from nbcontain.runtime import console, isolation, namespaces, programs, roots, translated
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.messages import ROOTFS, Channel, Message, describe
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.stage import Ready, freeze_imports, keep_only, redirect
from nbcontain.runtime.translated import Place

Body = Callable[[Channel, Message, list[int], Rung], None]
_FILE_CAPABILITIES = tuple(f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"))
"""What files can ask for."""
_FULL = Rung()
_NO_ANSWERS = Answers()


def main(
    channel: Channel,
    be_container: Body,
    rung: Rung = _FULL,
    kept: Sequence[int] = (),
    rehearse: Callable[[], None] = lambda: None,
    begin: Callable[[Message, Rung], None] = lambda message, rung: None,
    enter: Callable[[int], int] = lambda wanted: 0,
) -> None:
    """Init: wait for what to be; be it, shut in as `rung` says.

    `be_container` makes a container, of a bundle of ours or of somebody else's, and becomes its program; `kept` are
    descriptors that go on to that; `rehearse` is done where there is time for it, and `begin` what can be done of a
    container that is told of before it is there; `enter` goes to what is there already of CLONE_NEW…, and gives that.
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
    while message is not None and message["do"] == "begin":
        freeze_imports()
        begin(message, rung)
        message, fds = channel.receive()
    if message is None:
        return
    try:
        if message["do"] == "program":
            freeze_imports()
            be_container(channel, message, fds, rung)
        else:
            _be_function(channel, message, fds, rung, enter)
    except BaseException as error:  # noqa: BLE001 - told to the supervisor, which raises it where it matters
        channel.tell(describe(error, message.get("where", "")))


def be_process(
    channel: Channel, process: Process, annotations: Mapping[str, str], seccomp: bytes, root_fd: int = -1,
    answers: Answers = _NO_ANSWERS, place: Place | None = None,
) -> None:  # fmt: skip
    """An exec's process, inside the container's namespaces: become this program, when the channel says so.

    `seccomp` is the container's filter, which the supervisor read: in here its file cannot be seen. `root_fd` is its
    root where that is only a chroot, and `place` where its paths are translated.
    """
    if channel.receive()[0] is None:
        return
    os.setsid()
    leave_keyring()
    confine.default_signals()
    terminal = roots.entered_again(process, root_fd, place) if root_fd >= 0 else None
    if process.terminal:
        confine.reduce(process)
        terminal = terminal or console.inside(process.console_size)
        redirect(terminal.peer, terminal.peer, terminal.peer)
        channel.send({"console": True}, (terminal.master, 0))
        terminal.close()
    if place is None:
        program = programs.prepare(process, annotations, seccomp, answers, is_first=False)
    else:
        program, process = translated.prepare(place, process, annotations, seccomp, answers)
    programs.execute(program, process)


def prepared_process(
    process: Process, annotations: Mapping[str, str], seccomp: bytes, *, is_bound: bool
) -> Ready:
    """The stage of an exec, inside of all namespaces but that of processes: all of `be_process` that need not be done
    by a process in there. Gives what that does, without waiting for anybody."""
    leave_keyring()
    program = programs.prepare(process, annotations, seccomp, is_first=False, is_bound=is_bound)
    return Ready(program.calls(process.args), lambda failure: program.raise_for(failure, process.args[0]))


def _be_function(
    channel: Channel, message: Message, fds: list[int], rung: Rung, enter: Callable[[int], int]
) -> None:  # fmt: skip
    """Init: run one of our own functions with the given root file system as its whole world."""
    # The zygote has them already, unless this is the first thing that it is asked for.
    for name in message["modules"]:
        importlib.import_module(name)
    freeze_imports()
    # No program follows in this process: who does not read any more is an error like others, and ends nobody.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    function = sys.modules[ROOTFS].FUNCTIONS[message["function"]]
    if not rung.enters and function.__module__ != ROOTFS:
        raise Unavailable(
            f"the files of a container cannot be reached from outside with isolation {rung.name}",
            why="nothing of ours can have its root for its own", hint="COPY, and tar or cat in the container",
        )
    rootfs = spec_codec.mounts_from_json(message["rootfs"])
    source = spec_codec.mounts_from_json(message["source"]) if message["source"] else ()
    if rung.mounts:
        late = namespaces.flags_of(rung.namespaces, namespaces.LATE)
        isolation.separate(late & ~enter(late))
    fds += roots.made_of(rootfs, source, rung, fds)
    os.umask(0)
    sys.modules[ROOTFS].run(channel, message["function"], message["arguments"], fds)


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
    sys.modules[ROOTFS].run(channel, message["function"], message["arguments"], fds)


def hide_words() -> None:
    """Where the interpreter lies on this machine is no container's business."""
    try:
        syscalls.overwrite_words(b"nbcontain-init")
    except (OSError, ValueError, IndexError):
        # A /proc that is masked, or another kernel's: then nothing can be read there by anybody else either.
        pass


def leave_keyring() -> None:
    """Init and an exec's process: have no keys of whoever started us."""
    try:
        syscalls.new_session_keyring()
    except OSError:
        # Not built into this kernel, or denied by an outer container: then there are no keys to be seen either.
        return
