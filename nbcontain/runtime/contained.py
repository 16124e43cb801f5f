"""The first process of a container of ours: from its bundle to its program. Run by init.

The order of the steps matters; what may be done while the host's paths can be seen comes before the pivot, what takes
power away comes last.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbcontain.linux import confine, fakechroot, syscalls
from nbcontain.runtime import init, programs, roots, translated
from nbcontain.runtime.annotations import REAPER
from nbcontain.runtime.answerers import Answers
from nbcontain.runtime.beforehand import Beforehand
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import Channel, Message, is_readable
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.signals import exit_code
from nbcontain.runtime.stage import keep_only, redirect
from nbcontain.values import replace

_FULL = Rung()


def main(channel: Channel, rung: Rung = _FULL, rehearse: Callable[[], None] = lambda: None) -> None:
    """Init of ours: wait for what to be; be it, shut in as `rung` says. `rehearse` is done where there is time."""
    done = Beforehand()

    def wait() -> None:
        rehearse()
        # Whoever has come meanwhile does not wait for what is faster made with the rest.
        if not is_readable(channel, 0):
            done.prepare(rung)

    init.main(channel, partial(_be_container, done), rung, rehearse=wait, begin=done.begin, enter=done.enter)


def _be_container(done: Beforehand, channel: Channel, message: Message, fds: list[int], rung: Rung) -> None:
    """Init: make the container and become its program."""
    doors = len(fds) - message["doors"]
    confine.enter_groups(fds[doors:])
    del fds[doors:]
    done.settle()
    bundle = Bundle(Path(message["bundle"]))
    first = 3 + len(message["opened"])
    texts = dict(zip(message["texts"], fds[first:], strict=False))
    del fds[first : first + len(texts)]
    if texts:
        # Its supervisor has imported it, and forked us.
        from nbcontain.runtime.shifted import Handed

        bundle = Handed(bundle, texts)
    spec = done.spec or bundle.spec
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
    opened |= done.taken(spec)
    answers = Answers.of_init(bundle, message["answers"], spec, fds.pop() if message["is_answered"] else -1)
    volatile = message["volatile"]
    spaces = _open_spaces() if message["holds"] else -1
    place = None if rung.enters else translated.Place.of(spec, bundle.rootfs, str(bundle.path / "rootfs"))
    made, terminal, hidden = roots.made_for(
        bundle, spec, rung, fds[3:], opened, volatile=volatile, left=done.left, trees=done.trees,
        begun=done.furniture, place=place, is_plain=message["plain"],
    )  # fmt: skip
    names = message["holds"] if spaces >= 0 else []
    held = [os.open(each, os.O_RDONLY | os.O_CLOEXEC, dir_fd=spaces) for each in names]
    if terminal is None:
        keep_only(channel, *answers.kept, *held, *done.unwanted)
    else:
        redirect(terminal.peer, terminal.peer, terminal.peer)
        keep_only(channel, terminal.master, *answers.kept, *held, *done.unwanted)
    process = spec.process
    if place is None:
        program = programs.prepare(process, spec.annotations, seccomp, answers)
    else:
        program, process = translated.prepare(place, process, spec.annotations, seccomp, answers)
    program.env.update(hidden.env if place is None else fakechroot.without_ours(hidden.env))
    handed = [*held, *done.unwanted, *((terminal.master, 0) if terminal else ())]
    channel.send({"ready": True, "made": made, "held": names, "unwanted": len(done.unwanted)}, handed)
    for fd in handed:
        if fd:
            os.close(fd)
    if not message["start"] and channel.receive()[0] is None:
        return
    # A change of ids clears it, and so does fork.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    is_traced = place is not None and not place.is_preloaded
    if is_traced or spec.annotations.get(REAPER) == "true":
        program.enforce()
        # PRoot hears no signals: its child is who they are for.
        whom = translated.child_of if is_traced else None
        _fork_and_reap(channel, is_root="user" not in spec.linux.namespaces, whom=whom)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    programs.execute(program, process)


def _open_spaces() -> int:
    """The own namespaces, as a directory that can be opened while the host's /proc is there; -1 where it is not."""
    try:
        return os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError):
        return -1


def _hide_reaper(*, is_root: bool) -> None:
    """What stays behind is not to be looked into.

    Without a user namespace nobody inside may look at this process at all from here on. In one, the supervisor of an
    ordinary user could not either, and would not get in for an exec; a change of user, and birth into a namespace that
    others are in, have forbidden it until now.
    """
    init.hide_words()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0 if is_root else 1)


def _fork_and_reap(channel: Channel, *, is_root: bool, whom: Callable[[int], int] | None = None) -> None:
    """Init with --init: fork the program and stay, reaping and passing signals on. Returns in the program only.

    `whom` says whom they are for, of the program's pid; 0 for nobody.
    """
    forwarded = set(range(1, 65)) - {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, 32, 33}
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    _hide_reaper(is_root=is_root)
    with suppress(OSError):
        # Orphans are its own also where it is not the first of a namespace of processes; gVisor has no such word.
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
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
            if target := whom(child) if whom else child:
                os.kill(target, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if pid == 0:
                break
            if pid == child:
                os._exit(exit_code(status))
