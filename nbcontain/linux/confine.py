"""What takes power away from a process: capabilities, identity, new privileges (capabilities(7), credentials(7))."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls
from nbcontain.oci.spec import Rlimit, User

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""Their names without CAP_, in the order of their numbers."""

_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(CAPABILITIES)}


RLIMITS = {
    "core": 4, "cpu": 0, "data": 2, "fsize": 1, "locks": 10, "memlock": 8, "msgqueue": 12, "nice": 13, "nofile": 7,
    "nproc": 6, "rss": 5, "rtprio": 14, "rttime": 15, "sigpending": 11, "stack": 3, "as": 9,
}  # fmt: skip
"""The limits of setrlimit(2) by docker's names, with their numbers (asm-generic/resource.h)."""


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


def capability_set(names: Iterable[str]) -> int:
    """The bit set of these names ("CAP_CHOWN"); raises KeyError for one that there is not."""
    bits = 0
    for name in names:
        bits |= 1 << _NUMBERS[name]
    return bits


_FOR_BECOMING = ("CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE")


def reduce(capabilities: Iterable[str], *, limits: bool = False) -> None:
    """Keep only these, and what `become` (and `limit`) need. Run by init and an exec before they read files."""
    _, permitted, _ = syscalls.capget()
    more = ("CAP_SYS_RESOURCE",) if limits else ()
    kept = capability_set((*capabilities, *_FOR_BECOMING, *more)) & permitted
    syscalls.capset(kept, kept, 0)


def become(user: User, capabilities: Iterable[str], *, no_new_privileges: bool) -> None:
    """Be `user` with at most these capabilities from here on, for good. Run by init and by an exec's process.

    The order matters: the bounding set needs CAP_SETPCAP, groups CAP_SETGID, and changing the uid drops the rest.
    """
    wanted = capability_set(capabilities)
    _, permitted, _ = syscalls.capget()
    for number in range(64):
        if wanted >> number & 1:
            continue
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != 22:
                raise
            break  # EINVAL: this kernel has no more
    _set_groups(user)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if user.uid == 0:
        syscalls.capset(wanted & permitted, wanted & permitted, 0)
    else:
        # Changing the uid from 0 emptied the permitted and effective sets; what was inheritable goes as well.
        syscalls.capset(0, 0, 0)
    try:
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != 22:
            raise
    if no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(user.umask)


def _set_groups(user: User) -> None:
    try:
        os.setgroups((user.gid, *(each for each in user.additional_gids if each != user.gid)))
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
    for number in signal.valid_signals():
        # Handlers of Python's own end with exec; what is ignored stays ignored.
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
