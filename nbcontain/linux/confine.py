"""What takes power away from a process: capabilities, identity, new privileges (capabilities(7), credentials(7))."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterable

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci.spec import Rlimit, User

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
_ADMIN = 1 << _NUMBERS["CAP_SYS_ADMIN"]


def reduce(capabilities: Iterable[str], *, limits: bool = False) -> None:
    """Keep only these, and what `become` (and `limit`) need. Run by init and an exec before they read files."""
    _, permitted, _ = syscalls.capget()
    more = ("CAP_SYS_RESOURCE",) if limits else ()
    kept = capability_set((*capabilities, *_FOR_BECOMING, *more)) & permitted
    # That of a filter is not in effect until then: an admin may open what root of the container must not read.
    syscalls.capset(kept, kept | _ADMIN & permitted, 0)


def become(
    user: User,
    capabilities: Iterable[str],
    *,
    no_new_privileges: bool,
    seccomp: bytes = b"",
    before: Callable[[], None] | None = None,
) -> None:
    """Be `user` with at most these capabilities from here on, for good. Run by init and by an exec's process.

    The order matters: the bounding set needs CAP_SETPCAP, groups CAP_SETGID, and changing the uid drops the rest.
    A filter needs CAP_SYS_ADMIN, or the promise of no new privileges. It comes last, so that it may forbid all of
    that; but for capset(2), which takes that capability away again.
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
    # Otherwise changing the uid from 0 would empty the permitted set.
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresuid(user.uid, user.uid, user.uid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    kept = wanted & permitted if user.uid == 0 else 0
    needs_admin = (bool(seccomp) or before is not None) and not no_new_privileges
    if needs_admin:
        syscalls.capset(kept | _ADMIN, kept | _ADMIN, 0)
    else:
        syscalls.capset(kept, kept, 0)
    try:
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != 22:
            raise
    if no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(user.umask)
    if before is not None:
        before()
    if seccomp:
        install(seccomp)
    if needs_admin:
        syscalls.capset(kept, kept, 0)


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


_FLAGS = struct.Struct("=Q")


def sealed(program: bytes, flags: int) -> bytes:
    """A filter and how it is to be loaded, as one piece of memory."""
    return _FLAGS.pack(flags) + program


def install(seccomp: bytes) -> int:
    """Load a filter that `sealed` packed. Gives what `syscalls.seccomp` gives."""
    (flags,) = _FLAGS.unpack_from(seccomp)
    return syscalls.seccomp(seccomp[_FLAGS.size :], flags)


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
