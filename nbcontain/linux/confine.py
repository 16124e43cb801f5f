"""What takes power away from a process: capabilities, identity, new privileges (capabilities(7), credentials(7))."""

from __future__ import annotations

# The module signal would make a name of each number, and write to many pages that are shared until then.
import _signal as signal  # type: ignore[import-not-found]
import errno
import os
import struct
from collections.abc import Callable, Iterable, Mapping

from nbcontain.errors import SetupFailed
from nbcontain.linux import filter_bytes, forks, syscalls
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci.spec import Process, Rlimit, User
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(CAPABILITIES)}


RLIMITS = {
    "core": 4, "cpu": 0, "data": 2, "fsize": 1, "locks": 10, "memlock": 8, "msgqueue": 12, "nice": 13, "nofile": 7,
    "nproc": 6, "rss": 5, "rtprio": 14, "rttime": 15, "sigpending": 11, "stack": 3, "as": 9,
}  # fmt: skip
"""The limits of setrlimit(2) by docker's names, with their numbers (asm-generic/resource.h)."""


_FEW = 1024
"""What a system gives a program that asks for nothing."""


def limit(rlimits: Iterable[Rlimit]) -> None:
    """Set these limits. Raises SetupFailed, naming the one that may not be set. Run by init and an exec's process."""
    for each in rlimits:
        name = each.type.removeprefix("RLIMIT_").lower()
        try:
            syscalls.setrlimit(RLIMITS[name], each.soft, each.hard)
        except (KeyError, OSError) as error:
            raise SetupFailed(
                f"cannot set the limit {name} to {each.soft}:{each.hard}",
                errno=getattr(error, "errno", None),
                why=f"{getattr(error, 'strerror', 'there is none of that name')}: a hard limit is raised by root only",
            ) from error


def limit_descriptors(asked: Iterable[Rlimit]) -> None:
    """For a program that cannot look which descriptors it has: apt and others close all that it might have, before each
    program that they start, which takes seconds where these are a million. Unless another limit is asked for."""
    if not any(each.type == "RLIMIT_NOFILE" for each in asked):
        syscalls.lower_limit(RLIMITS["nofile"], _FEW)


def capability_set(names: Iterable[str]) -> int:
    """The bit set of these names ("CAP_CHOWN"); raises KeyError for one that there is not."""
    bits = 0
    for name in names:
        bits |= 1 << _NUMBERS[name]
    return bits


def set_oom_score(number: int, pid: int | str = "self") -> None:
    """How soon a process is killed when there is no memory left (proc(5), oom_score_adj). Raises SetupFailed."""
    try:
        _tell(f"/proc/{pid}/oom_score_adj", str(number))
    except OSError as error:
        raise SetupFailed(
            f"cannot make the oom score {number}", errno=error.errno, why="only root of the machine may lower it"
        ) from error


def enter_groups(doors: Iterable[int]) -> None:
    """Put this process, which has one thread, into control groups, by what `cgroups.Group.doors` gave; closes that.

    Raises SetupFailed. Run by init and by an exec's stage, before they do anything for a container.
    """
    for fd in doors:
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise SetupFailed("cannot limit it", errno=error.errno, why=error.strerror or "") from error
        finally:
            os.close(fd)


_FOR_BECOMING = ("CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE")
_ADMIN = 1 << _NUMBERS["CAP_SYS_ADMIN"]


def reduce(process: Process) -> None:
    """Keep only its capabilities, and what `become` and `limit` need. Run before any file is read."""
    _, permitted, _ = syscalls.capget()
    more = ("CAP_SYS_RESOURCE",) if process.rlimits else ()
    kept = capability_set((*process.capabilities, *_FOR_BECOMING, *more)) & permitted
    # That of a filter is not in effect until then: an admin may open what root of the container must not read.
    syscalls.capset(kept, kept | _ADMIN & permitted, 0)


@dataclass(frozen=True, slots=True)
class Last:
    """What is done last of all, right before a program is executed."""

    seccomp: bytes
    sets: tuple[int, int, int]
    """Effective, permitted and inheritable capabilities."""
    needs_admin: bool
    """CAP_SYS_ADMIN is still held for the filter, and goes after it."""

    def enforce(self) -> None:
        """Load the filter.

        It comes last, so that it may forbid all that comes before; but for capset(2), which takes away what loads it.
        """
        if self.seccomp:
            install(self.seccomp)
        if self.needs_admin:
            syscalls.capset(*self.sets)

    def calls(self) -> list[forks.Call]:
        """The same, for a child that does nothing else."""
        loaded = [forks.load_filter(*filter_bytes.unpacked(self.seccomp))] if self.seccomp else []
        return [*loaded, *([forks.set_capabilities(*self.sets)] if self.needs_admin else [])]


def bound(capabilities: Iterable[str]) -> None:
    """Be able to gain no more than these by executing anything, for good: needs CAP_SETPCAP, and takes nothing away."""
    for number in _not_in(capability_set(capabilities)):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # EINVAL: this kernel has no more


def become(
    process: Process, user: User, *, seccomp: bytes = b"", before: Callable[[], None] | None = None,
    is_bound: bool = False,
) -> Last:  # fmt: skip
    """Be `user` with at most these capabilities from here on, for good. Run by init and by an exec's process.

    The order matters: the bounding set needs CAP_SETPCAP, groups CAP_SETGID, and changing the uid drops the rest.
    A filter needs CAP_SYS_ADMIN, or the promise of no new privileges, as does what is done `before` it. `is_bound` is
    whether `bound` was called with its capabilities, in this user namespace. Gives what is left to do.
    """
    bounding = capability_set(process.capabilities)
    wanted = bounding if process.permitted is None else capability_set(process.permitted)
    effective = wanted if process.effective is None else capability_set(process.effective)
    ambient = capability_set(process.ambient)
    _, permitted, _ = syscalls.capget()
    if not is_bound:
        bound(process.capabilities)
    _set_groups(user)
    os.setresgid(user.gid, user.gid, user.gid)
    # Otherwise changing the uid from 0 would empty the permitted set.
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresuid(user.uid, user.uid, user.uid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    # Another user loses them all by executing a program, but for what is inherited and ambient.
    kept = wanted & permitted if user.uid == 0 else ambient & wanted & permitted
    inheritable = capability_set(process.inheritable) & (permitted | bounding)
    sets = effective & kept, kept, inheritable
    needs_admin = (bool(seccomp) or before is not None) and not process.no_new_privileges
    if needs_admin:
        syscalls.capset(sets[0] | _ADMIN, kept | _ADMIN, inheritable)
    else:
        syscalls.capset(*sets)
    try:
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in range(64):
            if ambient & kept & inheritable & 1 << number:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(user.umask)
    if before is not None:
        before()
    return Last(seccomp, sets, needs_admin)


def _not_in(capabilities: int) -> list[int]:
    """The numbers of all that a set of capabilities has not, be there such ones or not."""
    return [number for number in range(64) if not capabilities >> number & 1]


def rehearse(process: Process, seccomp: bytes) -> Last:
    """What `reduce`, `become` and `install` work out, without effect (see `runtime.programs.rehearse`)."""
    sets = syscalls.capget()
    _not_in(capability_set((*process.capabilities, *_FOR_BECOMING)) & sets[1])
    syscalls.capset(*sets)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    os.setresgid(-1, -1, -1)
    os.setresuid(-1, -1, -1)
    for number in range(1, signal.NSIG):
        signal.getsignal(number)
    return Last(seccomp, sets, needs_admin=True)


_POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def schedule(process: Process) -> None:
    """How soon it is served, by processors and disks. Raises SetupFailed. Run before power is given up."""
    if process.scheduler:
        given: Mapping[str, Any] = process.scheduler
        try:
            flags = sum(_SCHED_FLAGS[name] for name in given.get("flags") or ())
            attributes = struct.pack(
                "=IIQiIQQQ", 48, _POLICIES.index(str(given.get("policy"))), flags, int(given.get("nice") or 0),
                int(given.get("priority") or 0),
                *(int(given.get(name) or 0) for name in ("runtime", "deadline", "period")),
            )  # fmt: skip
            syscalls.sched_setattr(attributes)
        except (OSError, LookupError, ValueError, struct.error) as error:
            raise _cannot("schedule it as its scheduler says", error) from error
    if process.io_priority:
        name, number = process.io_priority
        try:
            syscalls.ioprio_set(_IO_CLASSES[name] << 13 | number)
        except (OSError, LookupError) as error:
            raise _cannot(f"give it the priority {name} {number} at disks", error) from error


def appear_as(domain: str) -> None:
    """The kind of machine that it sees (runtime-spec config-linux.md#personality). Raises SetupFailed."""
    if domain:
        try:
            syscalls.personality(_PERSONALITIES[domain])
        except (OSError, LookupError) as error:
            raise _cannot(f"make it see a machine of {domain}", error) from error


def _cannot(what: str, error: Exception) -> SetupFailed:
    why = getattr(error, "strerror", None) or f"there is no {error}"
    return SetupFailed(f"cannot {what}", errno=getattr(error, "errno", None), why=why)


def label_at_exec(apparmor: str, selinux: str) -> None:
    """Have the program run under this profile of AppArmor's, or with this label of SELinux'. Raises OSError.

    Run by init and by an exec's process, before they give up what it may take (apparmor(7), proc_pid_attr(5)).
    """
    own = "/proc/self/attr/apparmor/exec"
    if apparmor:
        _tell(own if os.path.exists(own) else "/proc/self/attr/exec", f"exec {apparmor}")
    if selinux:
        _tell("/proc/self/attr/exec", selinux)


def _tell(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def install(seccomp: bytes) -> int:
    """Load a filter that `filter_bytes` packed. Gives what `syscalls.seccomp` gives."""
    return syscalls.seccomp(*filter_bytes.unpacked(seccomp))


def tells(seccomp: bytes) -> bool:
    """Whether somebody has to listen to what this filter hands on."""
    return bool(seccomp) and bool(filter_bytes.unpacked(seccomp)[1] & syscalls.SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _set_groups(user: User) -> None:
    try:
        os.setgroups(user.additional_gids)
    except PermissionError:
        # A map of one id denies setgroups(2): then there are no other groups to have, and those of the host stay.
        if _may_set_groups():
            raise


def _may_set_groups() -> bool:
    try:
        with open("/proc/self/setgroups", encoding="utf-8") as answer:
            return answer.read().strip() == "allow"
    except OSError:
        return False


def default_signals() -> None:
    """Undo what Python and the supervisor ignore or block: a program inherits that through exec."""
    for number in range(1, signal.NSIG):
        # Handlers of Python's own end with exec; what is ignored stays ignored.
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
