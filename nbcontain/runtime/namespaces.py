"""What a first process is born into: namespaces that are made for it, and ones that are there already.

Which these are is decided from the spec, by a supervisor or whoever stands in its place; the stage enters them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import Linux
from nbcontain.values import dataclass, field

FLAGS = {
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
    "network": syscalls.CLONE_NEWNET,
    "time": syscalls.CLONE_NEWTIME,
}
"""By the words of the runtime specification (config-linux.md#namespaces)."""
USUAL = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
"""Made by the stage beforehand, when nobody knows the container yet: these hold nothing that could grow old."""
LATE = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWNET
"""Made by init, when it knows which container it is. A copy of the mounts would miss what is mounted later."""


def flags_of(names: Iterable[str], among: int = -1) -> int:
    """CLONE_NEW… of the namespaces of these names; of those only that are `among` USUAL, or LATE, if that is said."""
    return sum(FLAGS[name] for name in names) & among


@dataclass(frozen=True, slots=True)
class Birth:
    """What a stage does before it forks a first process."""

    ids: IdMap
    """Of a new user namespace; the identity where there is to be none."""
    made: int = USUAL
    """CLONE_NEW… of all but the user namespace and those of LATE."""
    joined: Mapping[int, int] = field(default_factory=dict)
    """Descriptors of namespaces to enter, by their CLONE_NEW…."""
    time_offsets: str = ""
    """For /proc/PID/timens_offsets (time_namespaces(7))."""
    within: int = -1
    """A user namespace in which the new one is made, with all ids of that; -1 is the supervisor's own."""

    @property
    def is_usual(self) -> bool:
        """Whether a first process that was made beforehand is as good."""
        return self.made == USUAL and not self.joined and self.within < 0

    @property
    def is_plain(self) -> bool:
        """Whether no stage is needed: all of them are new, and each can be made by who will be in it."""
        return self.ids.is_identity and not self.joined and not self.made & ~USUAL and self.within < 0

    def close(self) -> None:
        """Let go of the descriptors; the stage has its own."""
        for fd in (*self.joined.values(), self.within):
            if fd >= 0:
                os.close(fd)


def birth(linux: Linux, ids: IdMap, within: str = "") -> Birth:
    """What the first process of such a container is born into. Raises SetupFailed for a namespace that is not there.

    `within` is the path of the user namespace that a new one is made in, if not in the supervisor's own.
    """
    made, joined = 0, {}
    for name in linux.namespaces:
        flag = FLAGS.get(name)
        if flag is None:
            raise SetupFailed(f"there is no namespace {name!r}", hint=", ".join(FLAGS))
        if name in linux.paths:
            joined[flag] = _opened(name, linux.paths[name])
        elif name != "user":
            made |= flag & ~LATE
    if syscalls.CLONE_NEWUSER in joined:
        ids = IdMap.identity()
    offsets = "".join(f"{clock} {secs} {nanosecs}\n" for clock, (secs, nanosecs) in linux.time_offsets.items())
    is_new = "user" in linux.namespaces and "user" not in linux.paths
    return Birth(ids, made, joined, offsets, _opened("user", within) if within and is_new else -1)


def late(linux: Linux) -> int:
    """Those that init makes."""
    return flags_of((name for name in linux.namespaces if name not in linux.paths), LATE)


def _opened(name: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupFailed(
            f"cannot join the {name} namespace {path}", errno=error.errno, path=path, why=error.strerror or ""
        ) from error


def enter(joined: Mapping[int, int]) -> None:
    """Stage: enter these, which belong to this machine or to the user namespace among them. Raises SetupFailed."""
    later = []
    for flag, fd in joined.items():
        if flag == syscalls.CLONE_NEWUSER:
            continue
        try:
            syscalls.setns(fd, flag)
        except PermissionError:
            # It belongs to the user namespace, whose root may.
            later.append((flag, fd))
    if syscalls.CLONE_NEWUSER in joined:
        _enter(syscalls.CLONE_NEWUSER, joined[syscalls.CLONE_NEWUSER])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    for flag, fd in later:
        _enter(flag, fd)


def _enter(flag: int, fd: int) -> None:
    try:
        syscalls.setns(fd, flag)
    except OSError as error:
        name = next(name for name, each in FLAGS.items() if each == flag)
        raise SetupFailed(f"cannot join the {name} namespace", errno=error.errno, why=error.strerror or "") from error
