"""What a build step is told and nobody may keep: in memory from the kernel to the step's own mount namespace.

Nothing of it is part of a spec, a bundle or a command line. The kernel writes it to memory without a name, whose
descriptor goes the way that standard input goes; init makes files of it on a tmpfs that only its own mount namespace
ever sees, and that ends with it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence

from nbcontain.linux import syscalls
from nbcontain.values import dataclass, field


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that only the step sees; ids are the container's."""

    data: bytes = field(repr=False)
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Hidden:
    """What one step is told. A mount of the type `furniture.DETACHED` says by number where a file appears."""

    files: tuple[SecretFile, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


def write(hidden: Hidden) -> int:
    """Kernel: the secrets in memory of their own; gives its descriptor."""
    files = [[each.data.hex(), each.mode, each.uid, each.gid] for each in hidden.files]
    memory = os.memfd_create("secrets", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(json.dumps({"files": files, "env": dict(hidden.env)}).encode())
    return memory


def read(fds: Sequence[int]) -> Hidden:
    """Init: what the kernel wrote, if it did; closes the descriptor."""
    if not fds:
        return Hidden()
    with os.fdopen(fds[0], "rb") as file:
        file.seek(0)
        told = json.load(file)
    files = tuple(SecretFile(bytes.fromhex(data), mode, uid, gid) for data, mode, uid, gid in told["files"])
    return Hidden(files, told["env"])


def files(place: str, hidden: Hidden) -> list[int]:
    """Init: a detached mount for each file. `place` is any directory; what it holds is covered in here."""
    if not hidden.files:
        return []
    size = sum(len(each.data) + 4096 for each in hidden.files) + (1 << 20)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    try:
        syscalls.mount("tmpfs", place, "tmpfs", flags, f"mode=700,size={size},noswap")
    except OSError:
        # Linux before 6.4, or not this namespace's to ask: then it may be written to the swap space, as tmpfs is.
        syscalls.mount("tmpfs", place, "tmpfs", flags, f"mode=700,size={size}")
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [_mounted(directory, str(number), each) for number, each in enumerate(hidden.files)]
    finally:
        os.close(directory)


def _give(fd: int, file: SecretFile) -> None:
    try:
        os.fchown(fd, file.uid, file.gid)
    except OSError as error:
        # Where there is one id only, nobody else is there to read it.
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise


def _mounted(directory: int, name: str, file: SecretFile) -> int:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        data = memoryview(file.data)
        while data:
            data = data[os.write(fd, data) :]
        if (file.uid, file.gid) != (0, 0):
            _give(fd, file)
        os.fchmod(fd, file.mode)
    finally:
        os.close(fd)
    source = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        mount = syscalls.open_tree(source)
    finally:
        os.close(source)
    is_program = file.mode & 0o111
    syscalls.mount_setattr(mount, syscalls.MOUNT_ATTR_RDONLY | (0 if is_program else syscalls.MOUNT_ATTR_NOEXEC))
    return mount
