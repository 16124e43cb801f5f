"""The device nodes of a container: made where that is allowed, and else the host's own, mounted. Run by init."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls, trees
from nbcontain.oci.spec import Device

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def opened(root_fd: int) -> int:
    """Init: the container's /dev."""
    return trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)


def make_usual(dev: int, *, by_binding: bool) -> None:
    """Init: the six devices and the links beside them, on the tmpfs that is the container's /dev; closes `dev`."""
    try:
        for name, (major, minor) in DEVICES.items():
            if by_binding or not _make_node(dev, name, os.makedev(major, minor)):
                _bind_device(dev, name, os.makedev(major, minor))
        for name, leads_to in LINKS.items():
            # A root without a tmpfs at /dev may have it already.
            with suppress(FileExistsError):
                os.symlink(leads_to, name, dir_fd=dev)
    finally:
        os.close(dev)


def make(root_fd: int, device: Device, *, by_binding: bool) -> None:
    """Init: a device that a bundle has besides; the host's own of that path where none can be made."""
    kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    path = "/" + os.path.normpath(device.path).lstrip("/")
    parent, name = os.path.split(path)
    if device.type not in kinds or not name:
        raise SetupFailed(f"cannot make the device {device.path}", why=f"there is no type {device.type!r}")
    number = os.makedev(device.major, device.minor)
    mode = 0o666 if device.mode is None else stat.S_IMODE(device.mode)
    try:
        place = trees.make_target(root_fd, parent, [], directory=True)
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
        os.close(place)
        try:
            if by_binding and device.type != "p":
                _bind_device(directory, name, number, path, kinds[device.type])
                return
            with suppress(FileExistsError):
                os.mknod(name, kinds[device.type], number, dir_fd=directory)
            node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                there = os.fstat(node)
                if stat.S_IFMT(there.st_mode) != kinds[device.type] or there.st_rdev != number:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                # By the descriptor: what has its name may be a symlink by now, and this still be the host's root.
                os.chown(f"/proc/self/fd/{node}", device.uid, device.gid)
                os.chmod(f"/proc/self/fd/{node}", mode)
            finally:
                os.close(node)
        finally:
            os.close(directory)
    except OSError as error:
        raise SetupFailed(
            f"cannot make the device {device.path}", errno=error.errno, path=device.path, why=error.strerror or ""
        ) from error


def nobodys_node(name: str, directory: int) -> int:
    """Answerer: a device by a node that has no name any more, as an O_PATH descriptor; -1 where none can be made.

    Whatever is done to its mode and owner, nobody else has it.
    """
    node = f".nbcontain-{os.getpid()}-{name}"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(*DEVICES[name]), dir_fd=directory)
        try:
            fd = os.open(node, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.unlink(node, dir_fd=directory)
    except OSError:
        return -1
    try:
        os.close(os.open(f"self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        # The host's /dev is one in which no device works.
        os.close(fd)
        return -1
    return fd


def _make_node(dev: int, name: str, device: int) -> bool:
    """False where mknod(2) is not allowed, as in a root without CAP_MKNOD."""
    # Its mode is given to it at once: a directory of the host's may be at /dev, and somebody else change names in it.
    before = os.umask(0)
    try:
        os.mknod(name, 0o666 | stat.S_IFCHR, device, dir_fd=dev)
    except PermissionError:
        return False
    except FileExistsError:
        there = os.stat(name, dir_fd=dev, follow_symlinks=False)
        if not stat.S_ISCHR(there.st_mode) or there.st_rdev != device:
            raise
    finally:
        os.umask(before)
    return True


def _bind_device(dev: int, name: str, device: int, path: str = "", kind: int = stat.S_IFCHR) -> None:
    path = path or f"/dev/{name}"
    source = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(source)
        if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != device:
            raise SetupFailed(f"{path} of this machine is not what it is called", path=path)
        node = syscalls.open_tree(source)
        # One can still write to the device, but not change the host's node: its mode, its owner.
        syscalls.mount_setattr(node, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOEXEC)
    finally:
        os.close(source)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
    trees.attach(node, os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev))
