"""Where the store is when nobody says: in its usual place, or on a disk of this machine where that is none for it.

No overlay can be mounted over files of a network, locks are slow or missing there, and each of the many small files of
an image costs journeys: so a home on NFS or Lustre is no place for images (nfs(5), overlayfs.rst). Nor is one that
cannot be written to, as in pods whose root file system is read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass

_NETWORKED = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs",
    "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "vmhgfs",
})  # fmt: skip
_AS_GOOD = frozenset({"fuse.fuse-overlayfs"})
"""The whole root of containers of rootless Podman: there is nothing else there."""
OF_THIS_MACHINE = ("/var/tmp", "/tmp")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is, and why it is not where one would look for it; "" if it is."""

    layout: Layout
    why: str = ""
    is_new: bool = False
    """It was made just now, elsewhere than one would look for it."""

    @property
    def notice(self) -> str:
        """One line for people; "" where there is nothing to tell."""
        return f"{self.why}: images and containers are kept in {self.layout.root}" if self.why else ""


def place(environ: Mapping[str, str], uid: int) -> Place:
    """The store of this user. A directory elsewhere is made at once, and taken only if nobody else can write to it.

    Raises StoreError where nobody says where it is to be.
    """
    known = environ if environ.get("HOME") else {**environ, "HOME": _home_of(uid)}
    usual = Layout.default(known, is_root=uid == 0)
    return Place(usual) if environ.get("NBCONTAIN_ROOT") else unless_unfit(usual, uid, OF_THIS_MACHINE)


def refuse_anothers(layout: Layout) -> None:
    """Raise StoreError if the store's directory is another user's.

    That one could put links in the place of what is in it, and have what they lead to shown or removed.
    """
    try:
        owner = os.stat(layout.root).st_uid
    except OSError:
        # Nothing is there yet, or can be: that is told by whoever opens it.
        return
    # Root is taken at its word: where it is a container's only, its volumes are mostly others'.
    if os.getuid() == 0 or owner in (0, os.getuid()):
        return
    with suppress(PermissionError), files.temporary(layout.root) as (_, fd):
        # A server of a network may show all files as one user's.
        if os.fstat(fd).st_uid == owner:
            return
    raise StoreError(
        f"{layout.root} is another user's directory", why=f"it belongs to the user with number {owner}",
        hint="Set NBCONTAIN_ROOT to a directory of yours; one in that can be.",
    )  # fmt: skip


def _home_of(uid: int) -> str:
    """What the account says, as for services, which have no variable of it; "" where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def unless_unfit(usual: Layout, uid: int, disks: tuple[str, ...]) -> Place:
    """The usual place if a store is there, or can be, on a file system of this machine's; else one on these disks."""
    if os.path.exists(usual.version):
        return Place(usual)
    mounts, there = _mounts(), _existing(usual.root)
    if kind := networked(usual.root, mounts):
        why = f"{usual.root} is on a file system of a network ({kind})"
    elif not os.access(there, os.W_OK | os.X_OK):
        why = f"{there} cannot be written to"
    else:
        return Place(usual)
    for disk in disks:
        root = Path(disk, f"nbcontain-{uid}")
        is_new = not os.path.lexists(root)
        if not networked(root, mounts) and _is_own(root, uid):
            return Place(Layout(root), why, is_new)
    return Place(usual)


def networked(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`, if it is not this machine's own; `mounts` as in mountinfo."""
    kind = file_system_of(path, mounts)
    is_foreign = kind in _NETWORKED or (kind.startswith("fuse") and kind not in _AS_GOOD)
    return kind if is_foreign else ""


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `path`, or what is there above it; "" where the kernel does not tell."""
    device = os.stat(_existing(path)).st_dev
    return file_systems(_mounts() if mounts is None else mounts).get(f"{os.major(device)}:{os.minor(device)}", "")


def _existing(path: Path) -> Path:
    """It, or what is there above it."""
    return next(each for each in (path, *path.parents) if os.path.exists(each))


def file_systems(mounts: str) -> dict[str, str]:
    """The types of file systems by their devices (proc_pid_mountinfo(5)). Pure."""
    found = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        with suppress(IndexError):
            found[before.split()[2]] = after.split()[0]
    return found


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""


def _is_own(root: Path, uid: int) -> bool:
    """Whether the directory is there now, and is this user's alone: others may write beside it."""
    try:
        with suppress(FileExistsError):
            files.make_new_directory(root)
        status = os.lstat(root)
    except (OSError, StoreError):
        # A disk may be full, or not to be written to, as /var/tmp of containers is whose root is read-only.
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022
