"""The namespaces of a container, and the root file system inside them. Run by the stage and by init.

Nothing is ever mounted on the host: mounts are described by the bundle and performed here, in the
container's own mount namespace, so that nothing is left when a process dies at any line. What is mounted into the root
is `furniture`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from nbcontain.errors import SetupFailed
from nbcontain.linux import loopback, mount_options, syscalls, trees
from nbcontain.oci.spec import Mount

_BETWEEN_LAYERS = re.compile(r"(?<!\\):")
_VOLATILE_MARK = "work/incompat/volatile"
"""In the work directory of an overlay that was mounted volatile. The kernel mounts none that has it (overlayfs.rst)."""


def separate(flags: int) -> None:
    """Init: leave the host's namespaces of CLONE_NEW… `flags`, only now that the container is known.

    Not while it waits for one: a copy of the mounts would miss what is mounted later, and keep others from unmounting.
    """
    if flags:
        syscalls.unshare(flags)
    if flags & syscalls.CLONE_NEWNS:
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    if flags & syscalls.CLONE_NEWNET:
        loopback.bring_up()


def enter_mounts(namespace: int, root_fd: int) -> None:
    """Init: be in a mount namespace, with this directory of it for the root.

    Who enters one has its topmost root for his otherwise, also where he was in a chroot.
    """
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    os.fchdir(root_fd)
    os.chroot(".")


def mount_root(rootfs: Sequence[Mount], *, volatile: bool = False) -> int:
    """Init: perform the mounts that make the root file system; gives its directory as an O_PATH fd.

    `volatile` tells overlayfs that nothing needs to survive a power cut, which saves a sync at the end.
    """
    (root,) = rootfs
    if root.type == "overlay":
        return _mount_overlay(root, volatile=volatile)
    source = os.open(root.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fd = syscalls.open_tree(source)
    # An image may hold device nodes, and no device of the host's is its business.
    read_only = syscalls.MOUNT_ATTR_RDONLY if "ro" in root.options else 0
    syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_NODEV | read_only)
    syscalls.move_mount(fd, source)
    os.close(source)
    return fd


def directories_of(rootfs: Sequence[Mount]) -> list[list[str]]:
    """All that those mounts are made of: what is below, and what is written to."""
    (root,) = rootfs
    if root.type != "overlay":
        return [[root.source]]
    lowers, upper, work, _ = _layers_of(root)
    return [lowers, [upper, work] if upper else []]


def _layers_of(root: Mount) -> tuple[list[str], str, str, dict[str, str]]:
    """An overlay's lower directories, its upper and its work directory, and what else it is told."""
    given = dict(option.partition("=")[::2] for option in root.options)
    lowers = [part.replace("\\:", ":") for part in _BETWEEN_LAYERS.split(given.pop("lowerdir"))]
    return lowers, given.pop("upperdir", ""), given.pop("workdir", ""), given


def _mount_overlay(root: Mount, *, volatile: bool) -> int:
    lowers, upper, work, given = _layers_of(root)
    fds: list[int] = []

    def short(path: str) -> str:
        # mount(2)'s options end at one page, and a path may contain ',' or ':'; an fd's name is short and plain.
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        options = ["lowerdir=" + ":".join(map(short, lowers))]
        if upper:
            options += [f"upperdir={short(upper)}", f"workdir={short(work)}"]
        options += [
            name if not value else f"{name}={value}" for name, value in given.items() if name not in ("rw", "ro")
        ]
        if volatile and upper:
            options.append("volatile")
            # Nothing of it has been lost: who was told of this container and does not become it had mounted it, or was
            # killed over that.
            with suppress(FileNotFoundError):
                os.unlink(f"{work}/{_VOLATILE_MARK}/dirty")
            with suppress(FileNotFoundError):
                os.rmdir(f"{work}/{_VOLATILE_MARK}")
        if len(text := ",".join(options)) >= os.sysconf("SC_PAGESIZE"):
            raise SetupFailed(f"an image of {len(lowers)} layers is more than this kernel's overlay can mount")
        # Any directory will do as mount point, here where nobody else looks: the overlay covers its own upper one.
        target = upper or lowers[0]
        flags = syscalls.MS_NODEV | (syscalls.MS_RDONLY if "ro" in root.options else 0)
        syscalls.mount("overlay", target, "overlay", flags, text)
        return os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        for fd in fds:
            os.close(fd)


def set_knobs(sysctl: Mapping[str, str]) -> None:
    """Init, before it leaves the host's root: the kernel's settings of its own namespaces, by a /proc that nothing can
    have been put into."""
    try:
        proc = syscalls.new_mount("proc")
    except PermissionError:
        # Another's process namespace. The settings of a network are shown for that of who looks, by any /proc.
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    plain = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    try:
        for name, value in sysctl.items():
            try:
                fd = syscalls.openat2(proc, f"sys/{name.replace('.', '/')}", os.O_WRONLY, 0, plain)
                os.write(fd, value.encode())
                os.close(fd)
            except OSError as error:
                raise SetupFailed(
                    f"cannot set {name} to {value}", errno=error.errno, path=name, why=error.strerror or ""
                ) from error
    finally:
        os.close(proc)


def lay_root(tree_fd: int) -> int:
    """Init: mount a detached tree, which is to be the root, over the root that is there; gives its directory.

    Nobody who walks from the old root sees it, so that no place needs to be found for it.
    """
    over = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    trees.attach(os.dup(tree_fd), over)
    return tree_fd


def change_root(root_fd: int) -> None:
    """Init: make the directory the root, where the host's mounts stay (as on a ramdisk, which pivot_root refuses)."""
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir("/")


def propagate(word: str) -> None:
    """Init: what becomes of mounts in the root, now that it is one (config-linux.md#rootfs-mount-propagation)."""
    if word:
        propagation = mount_options.parse((word,)).propagation
        if not propagation:
            raise SetupFailed(f"there is no propagation {word!r}", hint="shared, slave, private or unbindable")
        syscalls.mount("", "/", "", propagation)


def pivot(root_fd: int, *, by_moving: bool = False) -> None:
    """Init: make the directory the root, and let go of the host's.

    `by_moving`, where pivot_root(2) is refused: the mount then covers the host's root, which has no name any more.
    """
    _see_the_whole_namespace(root_fd)
    os.fchdir(root_fd)
    if by_moving:
        syscalls.mount(".", "/", "", syscalls.MS_MOVE)
        os.chroot(".")
        os.chdir("/")
        return
    syscalls.pivot_root(".", ".")
    # The old root is now mounted over the new one, at the same place.
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _see_the_whole_namespace(root_fd: int) -> None:
    """Init: where we are in a chroot, leave it for the root of the mount namespace, of which nothing is to be left.

    Else pivot_root(2) would change the root of this process alone: whoever enters the namespace later (an exec), and
    whoever gets out of a chroot, would be on the machine's own root. Without a chroot all stays as it is.
    """
    own = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    pidfd = os.pidfd_open(os.getpid())
    try:
        # Who enters a mount namespace, be it his own, has its root for his: the topmost mount there.
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
        if os.path.samestat(os.stat("/"), os.fstat(root_fd)):
            # No chroot: the container's root was laid over that root, and has to be pivoted to from below it.
            os.fchdir(own)
            os.chroot(".")
    except PermissionError:
        # In a user namespace that the mounts are not of: the kernel lets nobody make one in a chroot.
        pass
    finally:
        os.close(pidfd)
        os.close(own)
