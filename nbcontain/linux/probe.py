"""Tries what this machine allows, each thing in a child, and prints the answers as JSON. An executed child of `host`.

Sysctls and the success of unshare(2) alone say little: on some hosts a user namespace can be made and is
good for nothing. So what is wanted is done, where it will have to be done.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from nbcontain.linux import fakechroot, landlock, loopback, notify, pidfds, proot, syscalls
from nbcontain.linux.idmap import IdMap, subordinate

_FAILED = 1
_NAMES = syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
Answer = tuple[bool, str]
KILLED = "the trial was killed"
IDLE = "nobody tried it: there is no program that it would be for"
"""The answers where nothing was found out."""
NOT_FOR_USERS = "kernel.unprivileged_userns_clone is 0"
NO_MORE = "user.max_user_namespaces is reached"
IN_CHROOT = "a process in a chroot may make none"
FILTERED = "a filter of calls (seccomp), as containers have it, lies around this place"
NO_MOUNTS = "a security module (AppArmor, SELinux), as containers have it, refuses mounts"
NO_GAIN = "newuidmap would have to gain privileges, and nothing here may (no_new_privs)"
NO_SYSTEMD = "no systemd runs here"
NOT_TRACED = "nor may programs be traced here (ptrace), without which it does nothing"
"""Ends of reasons, by which advice goes."""


def main(words: list[str]) -> None:
    """`words`: the store's directory, the user's name. Prints {"ability": [works, why]}."""
    root, name = Path(words[0]), words[1]
    uid, gid = os.geteuid(), os.getegid()
    single = IdMap.identity() if uid == 0 else IdMap.single(uid, gid)
    ranges = IdMap.ranges(uid, gid, subordinate("/etc/subuid", uid, name), subordinate("/etc/subgid", uid, name))
    translator = proot.tried() if uid else (False, "you are root")
    library = fakechroot.tried() if uid else (False, "you are root")
    # Those that wait in a child of their own all wait at once.
    found: dict[str, Answer | Callable[[], Answer]] = {
        "ADMIN": begun(_mount_tmpfs, single, syscalls.CLONE_NEWNS) if uid == 0 else (False, "you are not root"),
        "USER_NAMESPACES": begun(lambda: _mount_tmpfs(), IdMap.single(uid, gid), syscalls.CLONE_NEWNS),
        "ID_RANGES": _id_ranges(ranges, uid),
        "OVERLAY": begun(lambda: _overlay(root, more=",userxattr" * (uid != 0)), single, syscalls.CLONE_NEWNS),
        "PIVOT": begun(_pivot, single, syscalls.CLONE_NEWNS),
        "KERNEL": _kernel(),
        "CHILDREN": pidfds.tried(uid, gid),
        "MOVE_ROOT": begun(_move, single, syscalls.CLONE_NEWNS),
        "USERNS_CHROOT": begun(lambda: os.chroot(root), IdMap.single(uid, gid), syscalls.CLONE_NEWPID | _NAMES),
        "CHROOT": begun(lambda: os.chroot(root), single, 0) if uid == 0 else (False, "you are not root"),
        "PROOT": translator, "PRELOAD": library,
        "NOTIFY": begun(_answer, single, 0),
        # Whoever is root of a namespace may look into what is in it; outside, the host may say that only parents may.
        "NOTIFY_OUTSIDE": begun(_answer, IdMap.identity(), 0) if translator[0] or library[0] else (False, IDLE),
        "LANDLOCK": _landlock(),
        "REFLINKS": _in_store(root, _reflink),
        "ATTRIBUTES": _in_store(root, _attribute),
        "OWNERS": _owners(root, ranges, uid),
        "FRESH_PROC": begun(_fresh_proc, single, syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID),
        "CGROUPS": _cgroups(),
        "NET_NAMESPACE": begun(loopback.bring_up, single, syscalls.CLONE_NEWNET),
        "NET_ADMIN": _net_admin() if uid == 0 else begun(_bridge, IdMap.single(uid, gid), syscalls.CLONE_NEWNET),
    }
    answers = {ability: each() if callable(each) else each for ability, each in found.items()}
    print(json.dumps(answers | {name: told(*answers[name]) for name, told in _TOLD.items()}))


def _of_user_namespaces(ok: bool, why: str) -> Answer:
    """Who refuses them, where the kernel's word for it says nothing: each takes something else to be changed."""
    if why != os.strerror(errno.EPERM):
        known = {os.strerror(errno.ENOSPC): NO_MORE, f"/: {os.strerror(errno.EACCES)}": NO_MOUNTS}
        return ok, f"{why}: {known[why]}" if why in known else why
    if _text("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return ok, f"{why}: {NOT_FOR_USERS}"
    if is_chroot(_text("/proc/self/mountinfo")):
        return ok, f"{why}: {IN_CHROOT}"
    return ok, f"{why}: {FILTERED}" if "\nSeccomp:\t2\n" in _text("/proc/self/status") else why


def is_chroot(mountinfo: str) -> bool:
    """Whether this process's root is no mount (proc_pid_mountinfo(5)), so that a chroot made it the root. Pure."""
    places = [line.split(" ")[4] for line in mountinfo.splitlines() if line.count(" ") > 4]
    return bool(places) and "/" not in places


def _of_id_ranges(ok: bool, why: str) -> Answer:
    return (ok, why) if ok or "\nNoNewPrivs:\t1\n" not in _text("/proc/self/status") else (ok, f"{why}; {NO_GAIN}")


def _of_cgroups(ok: bool, why: str) -> Answer:
    return (ok, why) if ok or Path("/run/systemd/system").is_dir() else (ok, f"{why}; {NO_SYSTEMD}")


def _of_proot(ok: bool, why: str) -> Answer:
    """Whoever installs one has nothing of it where that is refused."""
    if why != proot.MISSING or tried(syscalls.let_trace, IdMap.identity(), 0)[0]:
        return ok, why
    return ok, f"{why}; {NOT_TRACED}"


_TOLD: dict[str, Callable[[bool, str], Answer]] = {
    "USER_NAMESPACES": _of_user_namespaces, "ID_RANGES": _of_id_ranges, "CGROUPS": _of_cgroups,
    "PROOT": _of_proot,
}  # fmt: skip


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def tried(attempt: Callable[[], None], ids: IdMap, flags: int) -> Answer:
    """Whether a child in new namespaces can do this, and what stopped it."""
    return begun(attempt, ids, flags)()


def begun(attempt: Callable[[], None], ids: IdMap, flags: int) -> Callable[[], Answer]:
    """The same, of which the answer is asked for later."""
    ready, is_ready = os.pipe()
    go, may_go = os.pipe()
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(may_go)
        os._exit(_attempt(attempt, ids, flags, is_ready, go, telling))
    for fd in (is_ready, go, telling):
        os.close(fd)

    def answer() -> Answer:
        why = ""
        if os.read(ready, 1) and not ids.is_identity:
            try:
                ids.write(child)
            except OSError as error:
                why = f"writing the id map: {error.strerror}"
        try:
            if why:
                # Others that were begun later have its pipe, too, and would not let it end.
                os.kill(child, signal.SIGKILL)
            else:
                os.write(may_go, b".")
        except (BrokenPipeError, ProcessLookupError):
            pass
        os.close(may_go)
        with os.fdopen(told, errors="replace") as said:
            text = said.read()
        os.close(ready)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and not why:
            return False, KILLED
        return status == 0 and not why, why or text

    return answer


def _attempt(attempt: Callable[[], None], ids: IdMap, flags: int, is_ready: int, go: int, telling: int) -> int:
    """The child. Gives its exit status."""
    try:
        if ids.is_identity:
            if flags:
                syscalls.unshare(flags)
        else:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(is_ready, b".")
        if not os.read(go, 1):
            return _FAILED
        if not ids.is_identity and flags:
            syscalls.unshare(flags)
        if flags & syscalls.CLONE_NEWNS:
            syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        attempt()
    except OSError as error:
        what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        os.write(telling, f"{what}{error.strerror}".encode())
        return _FAILED
    return 0


def _mount_tmpfs() -> None:
    syscalls.mount("tmpfs", "/tmp" if Path("/tmp").is_dir() else "/", "tmpfs", 0)


def _pivot() -> None:
    """As `runtime.isolation` does it. Some refuse this call alone."""
    _mount_tmpfs()
    os.chdir("/tmp" if Path("/tmp").is_dir() else "/")
    syscalls.pivot_root(".", ".")


def _move() -> None:
    """The same without that call."""
    place = "/tmp" if Path("/tmp").is_dir() else "/"
    syscalls.mount("tmpfs", place, "tmpfs", 0)
    os.chdir(place)
    syscalls.mount(".", "/", "", syscalls.MS_MOVE)
    os.chroot(".")


def _kernel() -> tuple[bool, str]:
    """gVisor, for one, calls itself Linux and has not all of it."""
    doing = "pidfd_open"
    try:
        os.close(os.pidfd_open(os.getpid()))
        doing = "openat2"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        os.close(syscalls.openat2(root, ".", os.O_PATH, 0, syscalls.RESOLVE_IN_ROOT))
        os.close(root)
        doing = "PR_SET_CHILD_SUBREAPER"
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
    except OSError as error:
        return False, f"{doing}: {error.strerror}"
    return True, ""


def _landlock() -> tuple[bool, str]:
    known = landlock.version()
    return known > 0, "" if known else "this kernel has none"


def _answer() -> None:
    """As `runtime.answering` does it: a process opens a file, another one, not its parent, gives it a descriptor."""
    ours, theirs = socket.socketpair()
    is_arm = os.uname().machine == "aarch64"
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    caller = os.fork()
    if caller == 0:
        os._exit(_called(theirs, 56 if is_arm else 257))
    answering = os.fork()
    if answering == 0:
        theirs.close()
        os._exit(_answered(ours, proc))
    ours.close()
    theirs.close()
    found = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (answering, caller)]
    for code in found:
        if code:
            raise OSError(abs(code), os.strerror(abs(code)))


def _called(channel: socket.socket, openat: int) -> int:
    load, is_equal, give, allow, notify = 0x20, 0x15, 0x06, 0x7FFF_0000, 0x7FC0_0000
    steps = ((load, 0, 0, 0), (is_equal, 0, 1, openat), (give, 0, 0, notify), (give, 0, 0, allow))
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    try:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        listener = syscalls.seccomp(program, syscalls.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        socket.send_fds(channel, [b"."], [listener])
        os.close(listener)
        channel.close()
        return 0 if os.read(os.open("/nbcontain probe", os.O_RDONLY), 1) == b"\0" else errno.EIO
    except OSError as error:
        return error.errno or errno.EIO


def _answered(channel: socket.socket, proc: int) -> int:
    try:
        _, fds, *_ = socket.recv_fds(channel, 1, 1)
        if not fds:
            return 0  # the other one tells why
        call = notify.receive(fds[0])
        assert call is not None
        try:
            memory = notify.memory(proc, call.pid)
            if notify.text(memory, call.arguments[1]) != b"/nbcontain probe":
                raise OSError(errno.EIO, "")
            if not notify.is_waiting(fds[0], call):
                raise OSError(errno.ESRCH, "")
            notify.give(fds[0], call, os.open("/dev/zero", os.O_RDONLY), close_on_exec=True)
        except OSError as error:
            notify.answer(fds[0], call, error=error.errno or errno.EIO)
            return error.errno or errno.EIO
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _in_store(root: Path, attempt: Callable[[Path], None]) -> tuple[bool, str]:
    """Whether something can be done to files of the store. Nothing but the store is touched, so it is done here."""
    try:
        _try_in_store(root, attempt)
    except OSError as error:
        return False, error.strerror or ""
    return True, ""


def _try_in_store(root: Path, attempt: Callable[[Path], None]) -> None:
    place = root / "tmp" / f".tmp-probe-{os.getpid()}"
    place.mkdir(0o700, parents=True)
    try:
        attempt(place)
    finally:
        _remove(place)


def _reflink(place: Path) -> None:
    import fcntl

    clone = 0x40049409  # FICLONE (ioctl_ficlone(2))
    with open(place / "one", "w+b") as one, open(place / "other", "wb") as other:
        one.write(bytes(4096))
        one.flush()
        fcntl.ioctl(other.fileno(), clone, one.fileno())


def _attribute(place: Path) -> None:
    os.setxattr(place, b"user.nbcontain", b"")


def _owners(root: Path, ranges: IdMap, uid: int) -> Answer:
    """A server on a network may take root for nobody (exports(5), root_squash), or everybody for one (sshfs, SMB)."""
    if uid == 0:
        return _in_store(root, _give_away)
    if len(ranges.uids) < 2 or len(ranges.gids) < 2:
        return False, "there is one id only"
    return tried(lambda: _try_in_store(root, _give_away), ranges, 0)


def _give_away(place: Path) -> None:
    (file := place / "file").touch()
    os.chown(file, 1, 1)
    if file.stat()[stat.ST_UID : stat.ST_GID + 1] != (1, 1):
        raise OSError(errno.EPERM, "owners that are given to files are not kept")


def _id_ranges(ranges: IdMap, uid: int) -> tuple[bool, str]:
    if uid == 0:
        return True, "root has all ids"
    if len(ranges.uids) < 2 or len(ranges.gids) < 2:
        return False, "/etc/subuid and /etc/subgid give you no range"
    return tried(lambda: os.setresuid(1, 1, 1), ranges, 0)


def _overlay(root: Path, more: str) -> None:
    """In the store itself: it may lie on a file system that no overlay can stand on."""

    def lay(place: Path) -> None:
        lower, upper, work, merged = names = [place / name for name in ("lower", "upper", "work", "merged")]
        for name in names:
            name.mkdir()
        (lower / "file").touch()
        syscalls.mount("overlay", str(merged), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}{more}")
        # A deletion needs a whiteout in the upper directory, which some file systems refuse.
        (merged / "file").unlink()
        syscalls.umount(str(merged))

    _try_in_store(root, lay)


def _remove(place: Path) -> None:
    for directory, names, files in os.walk(place, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in names:
            os.rmdir(os.path.join(directory, name))
    place.rmdir()


def _fresh_proc() -> None:
    child = os.fork()
    if child == 0:
        try:
            syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        except OSError as error:
            os._exit(error.errno or _FAILED)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(code), "mounting /proc")


def _cgroups() -> tuple[bool, str]:
    """Whether a group can be made below our own."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError as error:
        return False, error.strerror or ""
    why = "no cgroup file system is mounted"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounted = Path("/sys/fs/cgroup")
        if controllers:
            mounted /= controllers.removeprefix("name=")
        elif (mounted / "unified").is_dir():
            mounted /= "unified"
        place = mounted / path.lstrip("/") / f"nbcontain-probe-{os.getpid()}"
        if not place.parent.is_dir():
            continue
        try:
            place.mkdir()
            place.rmdir()
            return True, ""
        except OSError as error:
            why = f"{place.parent}: {error.strerror}"
    return False, why


def _net_admin() -> tuple[bool, str]:
    """Whether an interface of the host's could be changed: lo is given the queue length that it has."""
    import fcntl

    get_queue, set_queue = 0x8942, 0x8943
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = fcntl.ioctl(any_socket, get_queue, struct.pack("16si20x", b"lo", 0))
            fcntl.ioctl(any_socket, set_queue, request)
        _packet_filter()
    except OSError as error:
        return False, error.strerror or ""
    return True, ""


def _bridge() -> None:
    """In a network namespace of one's own."""
    import fcntl

    add_bridge = 0x89A0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, add_bridge, b"try".ljust(16, b"\0"))
    _packet_filter()


def _packet_filter() -> None:
    """The kernel has nf_tables: it is asked for the number of its rules' generation (nfnetlink, NFT_MSG_GETGEN)."""
    netfilter, get_generation, request, error_kind = 12, 10 << 8 | 16, 1, 2
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netfilter) as end:
            end.settimeout(2)
            end.send(struct.pack("=IHHIIBBH", 20, get_generation, request, 1, 0, 0, 0, 0))
            answer = end.recv(4096)
    except OSError as error:
        raise OSError(error.errno, f"no nf_tables: {error.strerror or error}") from error
    kind, code = struct.unpack_from("=4xH10xi", answer)
    if kind == error_kind and code:
        raise OSError(-code, f"no nf_tables: {os.strerror(-code)}")


if __name__ == "__main__":
    main(sys.argv[1:])
