"""The namespaces of a container, and the root file system inside them. Run by the stage and by init.

Nothing is ever mounted on the host: mounts are described by the bundle and performed here, in the
container's own mount namespace, so that nothing is left when a process dies at any line.
"""

from __future__ import annotations

import _socket as socket
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence

from nbcontain.errors import SetupFailed
from nbcontain.linux import syscalls, trees
from nbcontain.oci.spec import Mount, Spec
from nbcontain.values import replace

DETACHED = "detached"
"""The type of a mount that is handed over as a descriptor; its source is a number."""
PART = "x-nbcontain.part="
"""An option of binds and overlays: mount this path of the tree only, with its symlinks resolved inside the tree."""

AT_BIRTH = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
"""Made by the stage beforehand: these hold nothing of the host's that could grow old."""

_PLAIN = frozenset({"/proc", "/sys", "/dev"})
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
}
_NOT_OPTIONS = frozenset({"rw", "suid", "dev", "exec", "relatime", "bind", "rbind", "private", "rprivate", "defaults"})


def separate_mounts(*, network: bool, kept: int = -1) -> None:
    """Init: leave the host's mount and cgroup (and network) namespaces, only now that the container is known.

    `kept` is the network namespace of its run before, which it gets again with all that is in there.

    Not done beforehand: a copy of the mounts would miss what is mounted later, and keep the host from unmounting.
    """
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP
    if kept >= 0:
        syscalls.setns(kept, syscalls.CLONE_NEWNET)
        os.close(kept)
    elif network:
        flags |= syscalls.CLONE_NEWNET
    syscalls.unshare(flags)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    if network and kept < 0:
        _loopback_up()


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


def _mount_overlay(root: Mount, *, volatile: bool) -> int:
    given = dict(option.partition("=")[::2] for option in root.options)
    lowers = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", given.pop("lowerdir"))]
    upper, work = given.pop("upperdir", ""), given.pop("workdir", "")
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


def furnish(root_fd: int, spec: Spec, detached: Sequence[int] = ()) -> list[str]:
    """Init: everything mounted into the root, while the host's paths can still be seen.

    `detached` are mounts that exist already, which mounts of the type DETACHED name by their number. Gives the paths
    that had to be made for it, which are no changes of the container's.
    """
    made: list[str] = []
    # Who may make device nodes must find no place where one can be opened: not even /dev, whose own are mounts then.
    # (Who may mount could make one. Every other mount of a container is nodev anyway, or is a device.)
    makes_nodes = "CAP_MKNOD" in spec.process.capabilities and "CAP_SYS_ADMIN" not in spec.process.capabilities
    by_binding = "user" in spec.linux.namespaces or makes_nodes
    kernel_devices: set[int] = set()
    for mount in spec.mounts:
        if by_binding and mount.destination == "/dev":
            mount = replace(mount, options=(*mount.options, "nodev"))
        _mount_into(root_fd, mount, made, kernel_devices, detached)
        if mount.destination == "/dev":
            _make_devices(root_fd, by_binding=by_binding or "nodev" in mount.options)
    for path in spec.linux.readonly_paths:
        _make_readonly(root_fd, path)
    _mask(root_fd, spec.linux.masked_paths)
    if spec.root_readonly:
        syscalls.mount_setattr(root_fd, syscalls.MOUNT_ATTR_RDONLY)
    return made


def set_knobs(sysctl: Mapping[str, str]) -> None:
    """Init: the kernel's settings of its own namespaces, by a /proc that nothing can have been put into."""
    proc = syscalls.new_mount("proc")
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


def pivot(root_fd: int) -> None:
    """Init: make the directory the root, and let go of the host's."""
    os.fchdir(root_fd)
    syscalls.pivot_root(".", ".")
    # The old root is now mounted over the new one, at the same place.
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _mount_into(root_fd: int, mount: Mount, made: list[str], kernel_devices: set[int], detached: Sequence[int]) -> None:
    """Perform one mount. `kernel_devices` are the device numbers of the proc and sysfs mounted so far."""
    attributes = 0
    for option in mount.options:
        attributes |= _ATTRIBUTES.get(option, 0)
    try:
        if mount.type == DETACHED:
            mount_fd = detached[int(mount.source)]
        elif mount.type == "overlay":
            tree = tuple(
                option for option in mount.options if option not in _ATTRIBUTES and not option.startswith(PART)
            )
            mount_fd = _part_of(mount_root((replace(mount, options=tree),), volatile=True), mount, attributes)
        elif mount.type == "bind":
            mount_fd = _bind(mount, attributes)
        else:
            data = tuple(
                (name, value if separator else None)
                for name, separator, value in (option.partition("=") for option in mount.options)
                if name not in _ATTRIBUTES and name not in _NOT_OPTIONS
            )
            mount_fd = syscalls.new_mount(mount.type, data, attributes)
    except OSError as error:
        raise SetupFailed(
            f"cannot mount {mount.source or mount.type} for {mount.destination}",
            errno=error.errno,
            path=mount.source,
            why=f"{os.fsdecode(error.filename or mount.type)}: {error.strerror}",
        ) from error
    if mount.destination in _PLAIN:
        _refuse_symlink(root_fd, mount.destination)
    target = trees.make_target(root_fd, mount.destination, made, directory=trees.is_directory(mount_fd))
    if os.path.samestat(os.fstat(target), os.fstat(root_fd)):
        # What is mounted over the root is reached by /.. only, where nothing would be masked.
        what = mount.source or mount.type
        raise SetupFailed(f"cannot mount {what} at {mount.destination}", why="that is the root itself")
    if trees.is_directory(target) != trees.is_directory(mount_fd):
        raise SetupFailed(
            f"cannot mount {mount.source} at {mount.destination}",
            errno=errno.ENOTDIR,
            path=mount.destination,
            why="one is a directory and the other is not",
        )
    # A symlink of the image's must not lead a mount into /proc, where paths mean power (CVE-2019-19921).
    if os.fstat(target).st_dev in kernel_devices and mount.destination != "/sys/fs/cgroup":
        raise SetupFailed(f"cannot mount {mount.source} at {mount.destination}", why="that is inside /proc or /sys")
    if mount.destination in ("/proc", "/sys"):
        kernel_devices.add(os.fstat(mount_fd).st_dev)
    trees.attach(mount_fd, target)


def _refuse_symlink(root_fd: int, path: str) -> None:
    """/proc, /sys and /dev are where they are called: what is to be masked would be elsewhere (CVE-2019-19921)."""
    try:
        place = trees.open_in(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISLNK(os.fstat(place).st_mode):
            raise SetupFailed(f"{path} of the image is a symlink", path=path, why="the container's own has to be there")
    finally:
        os.close(place)


def _part_of(tree_fd: int, mount: Mount, attributes: int) -> int:
    """A copy of the mount at `tree_fd`, from the path in it on that the option PART names."""
    part = next((option.removeprefix(PART) for option in mount.options if option.startswith(PART)), "/")
    try:
        source = trees.open_in(tree_fd, part)
    finally:
        os.close(tree_fd)
    try:
        fd = syscalls.open_tree(source)
    finally:
        os.close(source)
    syscalls.mount_setattr(fd, attributes)
    return fd


def _bind(mount: Mount, attributes: int) -> int:
    recursive = "rbind" in mount.options
    source = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    if any(option.startswith(PART) for option in mount.options):
        return _part_of(source, mount, attributes)
    try:
        fd = syscalls.open_tree(source, recursive=recursive)
    finally:
        os.close(source)
    if attributes:
        syscalls.mount_setattr(fd, attributes, recursive=recursive)
    return fd


def _make_devices(root_fd: int, *, by_binding: bool) -> None:
    """The six devices and the links beside them, on the tmpfs that is the container's /dev."""
    dev = trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (major, minor) in _DEVICES.items():
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


def _make_readonly(root_fd: int, path: str) -> None:
    try:
        target = trees.open_in(root_fd, path)
    except FileNotFoundError:
        return
    copy = syscalls.open_tree(target, recursive=True)
    syscalls.mount_setattr(copy, syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    trees.attach(copy, target)


def _mask(root_fd: int, paths: Sequence[str]) -> None:
    """Nothing can be read or written there: an empty directory that cannot change, or the null device."""
    empty = -1
    for path in paths:
        try:
            target = trees.open_in(root_fd, path)
        except FileNotFoundError:
            continue
        if not trees.is_directory(target):
            null = trees.open_in(root_fd, "/dev/null")
            nothing = syscalls.open_tree(null)
            os.close(null)
            trees.attach(nothing, target)
        elif empty < 0:
            attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV
            nothing = syscalls.new_mount("tmpfs", (("nr_inodes", "1"), ("mode", "0")), attributes)
            trees.attach(nothing, target)
            empty = trees.open_in(root_fd, path)
        else:
            # The same one again, which is quicker than a new one for each processor.
            trees.attach(syscalls.open_tree(empty), target)
    if empty >= 0:
        os.close(empty)


def _loopback_up() -> None:
    """Bring `lo` up in a new network namespace (netdevice(7))."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        request = fcntl.ioctl(any_socket.fileno(), get_flags, struct.pack("16sh22x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket.fileno(), set_flags, struct.pack("16sh22x", b"lo", flags | up))
    finally:
        any_socket.close()
