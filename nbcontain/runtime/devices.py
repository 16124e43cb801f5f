"""The device nodes of a container: made where that is allowed, and else the host's own, mounted. Run by init."""

from __future__ import annotations

import os
import stat

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls, trees

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def make_usual(root_fd: int, *, by_binding: bool) -> None:
    """Init: the six devices and the links beside them, on the tmpfs that is the container's /dev."""
    dev = trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (major, minor) in DEVICES.items():
            if by_binding or not _make_node(dev, name, os.makedev(major, minor)):
                _bind_device(dev, name, os.makedev(major, minor))
        for name, leads_to in _DEVICE_LINKS.items():
            os.symlink(leads_to, name, dir_fd=dev)
    finally:
        os.close(dev)


def _make_node(dev: int, name: str, device: int) -> bool:
    """False where mknod(2) is not allowed, as in a root without CAP_MKNOD."""
    try:
        os.mknod(name, 0o666 | stat.S_IFCHR, device, dir_fd=dev)
    except PermissionError:
        return False
    os.chmod(name, 0o666, dir_fd=dev)
    return True


def _bind_device(dev: int, name: str, device: int) -> None:
    source = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(source)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != device:
            raise SetupFailed(f"/dev/{name} of this machine is not what it is called", path=f"/dev/{name}")
        node = syscalls.open_tree(source)
        # One can still write to the device, but not change the host's node: its mode, its owner.
        syscalls.mount_setattr(node, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOEXEC)
    finally:
        os.close(source)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
    trees.attach(node, os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev))
