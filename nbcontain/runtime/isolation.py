"""The namespaces of a container, and the root file system inside them. Run by the stage and by init.

Nothing is ever mounted on the host: mounts are described by the bundle and performed here, in the
container's own mount namespace, so that nothing is left when a process dies at any line.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from nbcontain.errors import SetupFailed
from nbcontain.linux import loopback, mount_options, syscalls, trees
from nbcontain.linux.mount_options import MountOptions
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import devices, sources
from nbcontain.runtime.annotations import PART
from nbcontain.values import dataclass, replace

DETACHED = "detached"
"""The type of a mount that is handed over as a descriptor; its source is a number."""
_BETWEEN_LAYERS = re.compile(r"(?<!\\):")
_VOLATILE_MARK = "work/incompat/volatile"
"""In the work directory of an overlay that was mounted volatile. The kernel mounts none that has it (overlayfs.rst)."""
_PLAIN = frozenset({"/proc", "/sys", "/dev"})
_STATISTICS = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev")
)
"""What may be covered in there: files that only tell how much there is of something."""


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


class Furniture:
    """Init: everything that is mounted into a root, in the order of the spec, while the host's paths can be seen."""

    def __init__(self, root_fd: int, spec: Spec) -> None:
        self.root_fd = root_fd
        self._spec = spec
        self._made: list[str] = []
        self._kernel_devices: set[int] = set()
        self._next = 0

    def begin(self, opened: Mapping[int, int], *, has_devices: bool) -> None:
        """The first ones, as far as they exist already; as `finish` has it."""
        for number, mount in enumerate(fitted(self._spec)):
            if number not in opened:
                return
            self._put(mount, opened[number], has_devices=has_devices)
            self._next = number + 1

    def finish(
        self, detached: Sequence[int] = (), opened: Mapping[int, int] | None = None, *, has_devices: bool = False
    ) -> list[str]:
        """All others, and what is hidden and cannot be written there.

        `detached` are mounts that exist already, which mounts of the type DETACHED name by their number; `opened` are
        those that exist besides, by the place of the mount in the spec; with `has_devices` that for /dev is complete.
        Gives the paths that had to be made for them, which are no changes of the container's.
        """
        for number, mount in enumerate(fitted(self._spec)):
            if number >= self._next:
                ready = detached[int(mount.source)] if mount.type == DETACHED else (opened or {}).get(number, -1)
                self._put(mount, ready, has_devices=has_devices)
        restrict(self.root_fd, self._spec)
        return self._made

    def _put(self, mount: Mount, ready: int, *, has_devices: bool) -> None:
        mount_into(Place(self.root_fd, mount.destination), mount, self._made, self._kernel_devices, ready)
        if mount.destination == "/dev" and not has_devices:
            by_binding = binds_devices(self._spec) or "nodev" in mount.options
            devices.make_usual(devices.opened(self.root_fd), by_binding=by_binding)


def binds_devices(spec: Spec) -> bool:
    """Whether the devices of its /dev are the host's own, mounted.

    Who may make device nodes must find no place where one can be opened: not even /dev, whose own are mounts then.
    (Who may mount could make one. Every other mount of a container is nodev anyway, or is a device.)
    """
    makes_nodes = "CAP_MKNOD" in spec.process.capabilities and "CAP_SYS_ADMIN" not in spec.process.capabilities
    # Unless its control group keeps it from all but those that it may use.
    makes_nodes = makes_nodes and not spec.linux.resources.get("devices")
    return "user" in spec.linux.namespaces or makes_nodes


def fitted(spec: Spec) -> Iterator[Mount]:
    """Its mounts as they are performed."""
    by_binding = binds_devices(spec)
    for mount in spec.mounts:
        if by_binding and mount.destination == "/dev":
            yield replace(mount, options=(*mount.options, "nodev"))
        else:
            yield mount


def restrict(root_fd: int, spec: Spec) -> None:
    """Init: what is hidden in the root, and what cannot be written there."""
    for path in spec.linux.readonly_paths:
        _make_readonly(root_fd, path)
    _mask(root_fd, spec.linux.masked_paths)
    if spec.root_readonly:
        syscalls.mount_setattr(root_fd, syscalls.MOUNT_ATTR_RDONLY)


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mount is to be, and whether that may be inside /proc or /sys."""

    root_fd: int
    path: str
    may_cover: bool = False


def mount_into(place: Place, mount: Mount, made: list[str], kernel_devices: set[int], ready: int) -> None:
    """Perform one mount. `kernel_devices` are the device numbers of the proc and sysfs mounted so far."""
    options = mount_options.parse(mount.options, PART)
    try:
        if ready >= 0:
            mount_fd = ready
        elif mount.type == "overlay":
            mount_fd = overlaid(mount, options)
        elif mount.type == "bind" or options.is_bind:
            mount_fd = sources.tree(mount, options)
        else:
            mount_fd = new(mount, options)
    except OSError as error:
        raise SetupFailed(
            f"cannot mount {mount.source or mount.type} for {mount.destination}",
            errno=error.errno,
            path=mount.source,
            why=f"{os.fsdecode(error.filename or mount.type)}: {error.strerror}",
        ) from error
    target = _target(place, mount, made, kernel_devices, directory=trees.is_directory(mount_fd))
    if mount.destination in ("/proc", "/sys"):
        kernel_devices.add(os.fstat(mount_fd).st_dev)
    if "tmpcopyup" in options.words:
        trees.copy_into(target, mount_fd)
    trees.attach(mount_fd, target)


def _target(place: Place, mount: Mount, made: list[str], kernel_devices: set[int], *, directory: bool) -> int:
    """The place of a mount in the root, made if it is missing, as an O_PATH fd. Raises SetupFailed."""
    root_fd = place.root_fd
    if mount.destination in _PLAIN:
        _refuse_symlink(root_fd, mount.destination)
    target = trees.make_target(root_fd, mount.destination, made, directory=directory)
    if os.path.samestat(os.fstat(target), os.fstat(root_fd)):
        # What is mounted over the root is reached by /.. only, where nothing would be masked.
        what = mount.source or mount.type
        raise SetupFailed(f"cannot mount {what} at {mount.destination}", why="that is the root itself")
    if trees.is_directory(target) != directory:
        raise SetupFailed(
            f"cannot mount {mount.source} at {mount.destination}",
            errno=errno.ENOTDIR,
            path=mount.destination,
            why="one is a directory and the other is not",
        )
    # A symlink of the image's must not lead a mount into /proc, where paths mean power (CVE-2019-19921).
    if os.fstat(target).st_dev in kernel_devices and not place.may_cover and mount.destination != "/sys/fs/cgroup":
        raise SetupFailed(f"cannot mount {mount.source} at {mount.destination}", why="that is inside /proc or /sys")
    return target


def may_be_covered(path: str) -> bool:
    """Whether a mount may be told to be at this place of /sys or /proc, which the kernel's own mounts are."""
    return os.path.normpath(path).startswith("/sys/") or path in _STATISTICS


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


def new(mount: Mount, options: MountOptions) -> int:
    """A new mount of a file system. A sysfs that shows a network of somebody else's is the one that is there."""
    try:
        fd = syscalls.new_mount(mount.type, _with_source(mount, options), options.set)
    except PermissionError:
        if mount.type != "sysfs":
            raise
        deep = MountOptions(deep_set=options.set, words=frozenset({"rbind"}))
        return sources.tree(replace(mount, source="/sys", options=()), deep)
    if options.propagation:
        syscalls.mount_setattr(fd, 0, propagation=options.propagation & ~syscalls.MS_REC)
    return fd


def _with_source(mount: Mount, options: MountOptions) -> tuple[tuple[str, str | None], ...]:
    # What it is called in mountinfo, and for a disk where it is.
    return (("source", mount.source), *options.data) if mount.source else options.data


def overlaid(mount: Mount, options: MountOptions) -> int:
    """A new overlay, detached, or the part of it that is meant."""
    words = [name if value is None else f"{name}={value}" for name, value in options.data]
    tree = mount_root((replace(mount, options=tuple(words)),), volatile=True)
    return sources.part(tree, mount, options)


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
