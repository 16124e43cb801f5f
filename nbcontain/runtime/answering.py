"""The process that answers calls of one container's programs for the kernel (seccomp_unotify(2)). Run by the answerer.

It stands in the container's user namespace and root, with the host's /proc in hand, and keeps in mind whom each process
has become and whom each file was given to (`store.owners`). Where no /proc and /dev are mounted it opens what is on
`served`'s list and hands the descriptor over. It gives no permission: what it lets through the kernel decides, and what
it does itself it does to an open descriptor, so that nothing can be put in the place of what was looked at.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence

from nbcontain.linux import notify, swaps, syscalls
from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import Asked
from nbcontain.runtime.connect_answers import ConnectAnswers
from nbcontain.runtime.guard_answers import GuardAnswers
from nbcontain.runtime.id_answers import IdAnswers
from nbcontain.runtime.kept_ids import Ids, People, looker
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.mode_answers import ModeAnswers
from nbcontain.runtime.open_answers import OpenAnswers
from nbcontain.runtime.owner_answers import OwnerAnswers
from nbcontain.runtime.stage import freeze_imports, keep_only
from nbcontain.runtime.stray_answers import StrayAnswers
from nbcontain.store import files
from nbcontain.store.makers import Notes
from nbcontain.store.owners import Ledger

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    "getuid": (102, 174), "getgid": (104, 176), "setuid": (105, 146), "setgid": (106, 144), "geteuid": (107, 175),
    "getegid": (108, 177), "setreuid": (113, 145), "setregid": (114, 143), "getgroups": (115, 158),
    "setgroups": (116, 159), "setresuid": (117, 147), "getresuid": (118, 148), "setresgid": (119, 149),
    "getresgid": (120, 150), "setfsuid": (122, 151), "setfsgid": (123, 152), "chown": (92, -1), "fchown": (93, 55),
    "lchown": (94, -1), "fchownat": (260, 54), "mknod": (133, -1), "mknodat": (259, 33), "open": (2, -1),
    "openat": (257, 56), "fchmod": (91, 52), "fsetxattr": (190, 7), "fremovexattr": (199, 16), "connect": (42, 203),
    "listen": (50, 201), "prctl": (157, 167), "chmod": (90, -1), "fchmodat": (268, 53), "truncate": (76, 45),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "removexattr": (197, 14), "lremovexattr": (198, 15),
}  # fmt: skip
_OF_32_BITS = {
    "x86_64": (
        0x40000003,
        {
            "connect": 362, "listen": 363, "socketcall": 102, "fchownat": 298, "fchmodat": 306, "futimesat": 299,
            "utimensat": 320, "utimes": 271,
        },
    ),
    "aarch64": (
        0x40000028,
        {
            "connect": 283, "listen": 284, "fchownat": 325, "fchmodat": 333, "futimesat": 326, "utimensat": 348,
            "utimes": 269,
        },
    ),
}  # fmt: skip
"""Calls of other programs that these machines run, whose arguments are the same."""
_GUARDED_OF_32_BITS = {"fchmod": 94, "fchown_16": 95, "fchown32": 207, "fsetxattr": 228, "fremovexattr": 237}
_BY_PATH_OF_32_BITS = {
    "chmod": 15, "utime": 30, "truncate": 92, "setxattr": 226, "lsetxattr": 227, "removexattr": 235,
    "lremovexattr": 236, "utimensat_time64": 412,
}  # fmt: skip
"""And those that nobody may go round, on both."""
Doing = Callable[[Call], None]


def main(
    channel: Channel, pidfd: int, namespaces: int, opened: Mapping[str, int], ledger_fd: int, lines: bytes,
    makers_fd: int, record: tuple[int, str], library: str = "",
) -> None:  # fmt: skip
    """Answerer: learn whom to answer, go where they are, and answer until the last of them has ended.

    `namespaces` are CLONE_NEW… of the container that `pidfd` is; where that is -1, its first process sends them along,
    as whoever asks sends its root. `opened` are files of ours by their paths inside; `ledger_fd` takes what no
    attribute can hold, -1 for nothing, and `lines` it has already; `makers_fd` takes who the programs are. `record` is
    the directory and the name of what is known of its networks; -1 where that is not asked. `library` is what
    translates their paths.
    """
    freeze_imports()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    outside = {name: os.open(f"/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for name in ("dev", "sys")}
    kept = (fd for fd in (pidfd, ledger_fd, makers_fd, record[0]) if fd >= 0)
    keep_only(channel, proc, *outside.values(), *opened.values(), *kept)
    message, fds = channel.receive()
    if message is None:
        return
    words = message["words"].split()
    route = swaps.socket_of(fds.pop()) if "net" in words else None
    listener, root, *spaces = fds
    # Before the door opens: whoever is inside must not look into us, or write.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    is_first = pidfd < 0
    if is_first:
        for fd in spaces:
            # Of whatever kind it is: their owner comes first.
            syscalls.setns(fd, 0)
            os.close(fd)
    else:
        if namespaces:
            syscalls.setns(pidfd, namespaces)
        os.close(pidfd)
    if namespaces & syscalls.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    top = "/"
    if "translated" in words:
        top = os.readlink(f"/proc/self/fd/{root}")
    elif not namespaces & syscalls.CLONE_NEWNS:
        os.fchdir(root)
        os.chroot(".")
    os.close(root)
    # So that "self/fd/7" names what is open here.
    os.fchdir(proc)
    os.umask(0)
    notify.hurry(listener)
    first = Ids.of(message["uid"], message["gid"], tuple(message["groups"]))
    asked, people = Asked(listener, proc), People(first, looker(proc))
    ledger = Ledger(lines, (lambda line: files.write(ledger_fd, line)) if ledger_fd >= 0 else None)
    notes = Notes.to(makers_fd, (message["uid"], message["gid"]), is_first=is_first)
    opening = OpenAnswers(asked, people, outside, opened, is_root="guard" in words)
    parts: list[object] = [StrayAnswers(asked, people, top, library) if "strays" in words else opening]
    if "ids" in words:
        owners = OwnerAnswers(asked, people, ledger, notes.makers, top)
        parts += [IdAnswers(asked, people, notes), owners]
        parts += [ModeAnswers(asked, owners.has)] if "translated" in words else []
    parts += [GuardAnswers(asked)] if "guard" in words and opening.lends_devices else []
    poll = select.poll()
    connecting = None
    if route is not None:
        connecting = ConnectAnswers(asked, poll, route, record)
        parts.append(connecting)
    channel.send({"answering": True})
    channel.close()
    answer_all(asked, poll, table(parts), connecting)


def table(parts: Sequence[object]) -> dict[tuple[int, int], Doing]:
    """Who answers which call, by what the kernel calls the machine, and its number there."""
    machine = os.uname().machine
    column = list(_ARCHITECTURES).index(machine)
    own = {name: numbers[column] for name, numbers in _NUMBERS.items()}
    doing = {}
    foreign, others = _OF_32_BITS[machine]
    others = others | _GUARDED_OF_32_BITS | _BY_PATH_OF_32_BITS
    for architecture, calls in ((_ARCHITECTURES[machine], own), (foreign, others)):
        for name, number in calls.items():
            for part in parts:
                if number >= 0 and hasattr(part, name):
                    doing[architecture, number] = getattr(part, name)
    return doing


def answer_all(
    asked: Asked, poll: select.poll, known: Mapping[tuple[int, int], Doing], connecting: ConnectAnswers | None
) -> None:
    """Until nobody is left who could ask. `poll` has what some answers wait for."""
    poll.register(asked.listener, select.POLLIN)
    wait_ms = None
    while True:
        for fd, event in poll.poll(wait_ms):
            if fd != asked.listener:
                if connecting is not None:
                    connecting.serve(fd)
            elif not event & select.POLLIN:
                return
            elif (call := notify.receive(asked.listener)) is not None:
                _answer(asked, call, known.get((call.machine, call.number)))
        if connecting is not None:
            wait_ms = connecting.tick()


def _answer(asked: Asked, call: Call, doing: Doing | None) -> None:
    """One answer, whatever happens: who is left without one waits for ever."""
    if doing is None:
        asked.let_through(call)
        return
    try:
        doing(call)
    except OSError as error:
        asked.fail(call, error.errno or errno.EIO)
    except ValueError:
        asked.fail(call, errno.EINVAL)
    except Exception:  # noqa: BLE001 - an answerer that ends takes the container with it
        asked.fail(call, errno.EIO)
