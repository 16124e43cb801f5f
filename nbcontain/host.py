"""What this machine allows, found by trying in an executed child, and remembered until the next boot."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from nbcontain.errors import Unavailable
from nbcontain.linux import fakechroot, proot
from nbcontain.linux.boot import boot_id
from nbcontain.linux.idmap import IdMap, subordinate
from nbcontain.values import dataclass, field

_VERSION = 14
"""Of the remembered facts: raise it when the probe learns to ask something else."""

_TIMEOUT_S = 20


class Ability(Enum):
    """Something that a host may or may not allow; the value is what people read."""

    ADMIN = "mounting, as root"
    USER_NAMESPACES = "user namespaces, with an id map and mounts in them"
    ID_RANGES = "a range of ids of your own (newuidmap and /etc/subuid)"
    PIVOT = "a root file system of its own for each container (pivot_root)"
    KERNEL = "processes by descriptor, heirs, and paths below a root (pidfd_open, subreapers, openat2: Linux 5.6)"
    CHILDREN = "children in namespaces of their own, and word of their end, with or without these calls"
    MOVE_ROOT = "a root file system of its own for each container, by moving a mount"
    USERNS_CHROOT = "a user namespace with chroot, and with processes and names of its own"
    CHROOT = "chroot, as root"
    PROOT = "a PRoot in PATH that hides this machine's files (5.3 or later), and ptrace for it"
    PRELOAD = "a libfakechroot.so that hides this machine's files, loaded into programs"
    NOTIFY = "answering a program's calls for the kernel (seccomp user notification)"
    NOTIFY_OUTSIDE = "the same for programs of no user namespace of their own, whose paths are translated"
    LANDLOCK = "Landlock on top"
    OVERLAY = "overlayfs on the file system of the store"
    REFLINKS = "copies that share their blocks, on the file system of the store (reflinks)"
    ATTRIBUTES = "attributes of users, on the file system of the store (user xattrs)"
    OWNERS = "files of other owners, on the file system of the store (chown)"
    FRESH_PROC = "a /proc of its own for each container"
    NET_NAMESPACE = "network namespaces (--network none)"
    CGROUPS = "control groups of our own (limits)"
    NET_ADMIN = "networks with bridges: this machine's, or of your own"


@dataclass(frozen=True, slots=True)
class Probe:
    """An ability's answer, and what the kernel said where it is no."""

    ok: bool
    why: str = ""
    """Of a program that was looked for and is there: its path."""


@dataclass(frozen=True, slots=True)
class Host:
    """The facts that decisions are made of. Compared and printed like any value."""

    uid: int
    gid: int
    is_root: bool
    kernel: str
    cgroup: str
    """v1, hybrid, v2 or none."""
    ids: IdMap
    """How containers' users are numbered here."""
    abilities: Mapping[Ability, Probe] = field(hash=False)

    def can(self, ability: Ability) -> bool:
        return self.abilities[ability].ok

    @property
    def keeps_no_owners(self) -> tuple[str, str]:
        """Why files of the store cannot be given to others, and what to try; twice "" where they can."""
        if self.can(Ability.OWNERS):
            return "", ""
        why = self.abilities[Ability.OWNERS].why
        if why == os.strerror(errno.EINVAL):
            return f"{why}: this place has no other ids (user_namespaces(7))", ""
        return why, "NBCONTAIN_ROOT on another disk"

    @classmethod
    def detect(cls, data_root: Path, cache: Path | None = None) -> Host:
        """Try everything, in the store at `data_root`; or take what `cache` remembers of this boot, kernel and user.

        A store may be seen from inside of a container, too: what is remembered is for who is confined alike.

        Raises Unavailable where even the trying fails.
        """
        uid, gid = os.geteuid(), os.getegid()
        program = f"{proot.known_by()} {fakechroot.known_by()}" if uid else ""
        identity = [_VERSION, boot_id(), os.uname().release, uid, gid, str(data_root), _confinement(), program]
        answers = _remembered(cache, identity)
        if answers is None:
            answers = _probed(data_root, user_name(uid))
            if cache is not None and not _is_passing(answers):
                _remember(cache, identity, answers)
        abilities = {each: Probe(bool(answers[each.name][0]), str(answers[each.name][1])) for each in Ability}
        return cls(uid, gid, uid == 0, os.uname().release, _cgroup(), _ids(uid, gid, abilities), abilities)


def _confinement() -> list[str]:
    """What this process may do at most, and whose mounts it sees; [] where no /proc says so."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        mounts = os.readlink("/proc/self/ns/mnt")
    except OSError:
        return []
    return [mounts, *(line for line in status if line.startswith(("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")))]


def _is_passing(answers: Mapping[str, list[object]]) -> bool:
    """Whether something failed for a reason that may be gone the next time: a full disk, no memory, a kill."""
    from nbcontain.linux.probe import KILLED

    reasons = (KILLED, *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE)))
    return any(not answer[0] and str(answer[1]).endswith(reasons) for answer in answers.values())


def is_root() -> bool:
    """Whether this process is the user with number 0 here, which may be a container's."""
    return user() == 0


def user() -> int:
    """The number of the user that this process is."""
    return os.geteuid()


def _ids(uid: int, gid: int, abilities: Mapping[Ability, Probe]) -> IdMap:
    if uid == 0:
        return IdMap.identity()
    if not (abilities[Ability.ID_RANGES].ok and abilities[Ability.OWNERS].ok):
        return IdMap.single(uid, gid)
    name = user_name(uid)
    return IdMap.ranges(uid, gid, subordinate("/etc/subuid", uid, name), subordinate("/etc/subgid", uid, name))


def user_name(uid: int) -> str:
    """What a user is called; "" where nobody says."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _probed(data_root: Path, name: str) -> dict[str, list[object]]:
    import subprocess

    package = Path(__file__).resolve().parent.parent
    program = (
        f"import sys; sys.path.append({str(package)!r}); from nbcontain.linux.probe import main; main(sys.argv[1:])"
    )
    words = [sys.executable, "-I", "-S", "-B", "-c", program, str(data_root), name]
    try:
        done = subprocess.run(
            words, capture_output=True, check=True, timeout=_TIMEOUT_S, cwd="/", start_new_session=True
        )
        answers = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", b"") or b""
        raise Unavailable(
            "cannot find out what this machine allows",
            why=f"{error} {told.decode(errors='replace')[-300:]}".strip(),
        ) from error
    if not isinstance(answers, dict):
        raise Unavailable("cannot find out what this machine allows", why=f"the probe said {done.stdout[:80]!r}")
    return answers


def _cgroup() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "v2"
    if (root / "unified").is_dir():
        return "hybrid"
    return "v1" if (root / "memory").is_dir() else "none"


def _remembered(cache: Path | None, identity: list[object]) -> dict[str, list[object]] | None:
    try:
        document = json.loads(cache.read_bytes()) if cache else None
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("identity") != identity:
        return None
    answers = document.get("abilities")
    return answers if isinstance(answers, dict) and all(each.name in answers for each in Ability) else None


def _remember(cache: Path, identity: list[object], answers: dict[str, list[object]]) -> None:
    """Without hurry or guarantee: what is lost is tried again. A reader of half a file takes it for nothing."""
    try:
        cache.write_text(json.dumps({"identity": identity, "abilities": answers}))
    except OSError:
        pass
