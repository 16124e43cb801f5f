"""From a description of a root file system to standing in it, on every rung of the ladder. Run by init."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from nbcontain.linux import landlock, syscalls
from nbcontain.oci.spec import Mount, Process, Spec
from nbcontain.runtime import isolation, namespaces, secrets, translated, unmounted
from nbcontain.runtime.console import Console, furnished
from nbcontain.runtime.furniture import Furniture, Tree
from nbcontain.runtime.rungs import Rung

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.runtime.bundle import Bundle

HANDED_ROOT = -1
"""Stands for the root among the mounts that were opened, which are called by their place in the spec."""


def made_for(
    bundle: Bundle,
    spec: Spec,
    rung: Rung,
    fds: Sequence[int],
    opened: Mapping[int, int],
    *,
    volatile: bool,
    left: int = 0,
    trees: Sequence[Tree] = (),
    begun: Furniture | None = None,
    place: translated.Place | None = None,
    is_plain: bool = False,
) -> tuple[list[str], Console | None, secrets.Hidden]:
    """Init: make the container's root and go there. Gives what had to be made, its terminal, and what it is told.

    `fds` is the memory that `secrets` reads, if there is any; `opened` are mounts that exist already.
    `place` is where its paths are translated, if they are. `is_plain` says that no device is in it, as it was made.
    What was done `beforehand` (CLONE_NEW… that were `left`, `trees` that fit, or the root and what has been `begun` in
    it) is not done again.
    """
    own = namespaces.late(spec.linux) & ~left
    hidden = secrets.read(fds)
    terminal = None
    leave(spec, own if rung.mounts else own & syscalls.CLONE_NEWNET)
    if not rung.mounts:
        root_fd = unmounted.root_of(bundle.rootfs)
        served = "files" in bundle.info.answers.split()
        if place is None and not is_plain:
            unmounted.admit_nodes(root_fd)
        made = unmounted.furnish(root_fd, spec, hidden.files, served=served, place=place)
        if spec.process.terminal:
            terminal = unmounted.terminal(spec.process.console_size)
        if place is None:
            _go(root_fd, rung, spec.process)
        else:
            translated.enter(place)
            os.close(root_fd)
        return made, terminal, hidden
    if begun is not None:
        root_fd = begun.root_fd
    elif HANDED_ROOT in opened:
        root_fd = isolation.lay_root(opened[HANDED_ROOT])
    else:
        root_fd = isolation.mount_root(bundle.rootfs, volatile=volatile)
    if spec.linux.sysctl:
        isolation.set_knobs(spec.linux.sysctl)
    furniture = begun or Furniture(root_fd, spec, trees)
    made = furniture.finish(secrets.files(str(bundle.path / "rootfs"), hidden), opened)
    if spec.process.terminal:
        terminal = furnished(root_fd, spec.process.console_size)
    _go(root_fd, rung, spec.process)
    return made, terminal, hidden


def leave(spec: Spec, flags: int) -> None:
    """Init: leave the host's namespaces of CLONE_NEW… `flags`, and be called what the container is called."""
    isolation.separate(flags)
    if spec.hostname:
        syscalls.sethostname(spec.hostname)
    if spec.domainname:
        syscalls.setdomainname(spec.domainname)


def made_of(rootfs: Sequence[Mount], source: Sequence[Mount], rung: Rung, handed: Sequence[int]) -> list[int]:
    """Init, in namespaces of its own: the root of one of our own functions. Gives the directory of a second one, if
    there is a `source`.

    It may go on with what it was handed, a build's context for one: of directories, with what is below them.
    """
    mounted = isolation.mount_root if rung.mounts else unmounted.root_of
    root_fd = mounted(rootfs)
    fds = []
    if source:
        source_fd = mounted(source)
        fds.append(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd))
        os.close(source_fd)
    others = [*fds, *(fd for fd in handed if stat.S_ISDIR(os.fstat(fd).st_mode))]
    if rung.enters:
        _go(root_fd, rung, None, others)
    else:
        os.fchdir(root_fd)
        landlock.confine_to(".", others)
    os.close(root_fd)
    return fds


def entered_again(process: Process, root_fd: int, place: translated.Place | None = None) -> Console | None:
    """An exec's process: go to the root of a container without mounts. Gives the terminal, if there is to be one."""
    terminal = unmounted.terminal(process.console_size) if process.terminal else None
    if place is None:
        _confine(root_fd, process)
    else:
        translated.enter(place)
    os.close(root_fd)
    return terminal


def _go(root_fd: int, rung: Rung, process: Process | None, others: Sequence[int] = ()) -> None:
    if rung.mounts:
        isolation.pivot(root_fd, by_moving=rung.root == "move")
    else:
        _confine(root_fd, process, others)


def _confine(root_fd: int, process: Process | None, others: Sequence[int] = ()) -> None:
    if process is not None and process.no_new_privileges:
        # Now, since Landlock takes it where there is no CAP_SYS_ADMIN.
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    unmounted.enter(root_fd, others)
