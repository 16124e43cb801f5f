"""What is mounted into the root of a container, hidden there, and kept from being written. Run by init.

As all of `isolation`, in the container's own mount namespace.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from nbcontain.errors import SetupFailed
from nbcontain.linux import mount_options, syscalls, trees
from nbcontain.linux.mount_options import MountOptions
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import devices, isolation, sources
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.hosts import NETWORK_FILES
from nbcontain.values import dataclass, replace

DETACHED = "detached"
"""The type of a mount that is handed over as a descriptor; its source is a number."""
_PLAIN = frozenset({"/proc", "/sys", "/dev"})
_STATISTICS = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev")
)
"""What may be covered in there: files that only tell how much there is of something."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Mounts that are put together, and cannot be written in part, before it is known whose they will be.

    Nothing is masked in it: what else is mounted must first have been kept from being led there by the kernel's own.
    """

    fd: int
    top: str
    """The directory of the root that it is for, in which all of it is."""
    mounts: tuple[Mount, ...]
    readonly: tuple[str, ...]

    @classmethod
    def of(cls, root_fd: int, spec: Spec, top: str) -> Tree:
        """A copy, mounted nowhere, of what is at `top` in a root, as the spec has it."""
        place = trees.open_in(root_fd, top)
        try:
            return cls(syscalls.open_tree(place, recursive=True), top, *_below(top, spec))
        finally:
            os.close(place)

    def fits(self, spec: Spec) -> bool:
        """Whether all that this spec has there is in it, and nothing else."""
        return (self.mounts, self.readonly) == _below(self.top, spec)


def assembled(spec: Spec, opened: Mapping[int, int]) -> list[Tree]:
    """Init, in a mount namespace that it leaves again: what the spec has in /proc, /dev and /sys, as trees that are
    mounted nowhere. `opened` is as in `Furniture.finish`."""
    root_fd = isolation.lay_root(syscalls.new_mount("tmpfs"))
    try:
        Furniture(root_fd, spec).finish(opened=opened)
        return [Tree.of(root_fd, spec, each.destination) for each in spec.mounts if each.destination in _PLAIN]
    finally:
        os.close(root_fd)


def _below(top: str, spec: Spec) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """What the spec has mounted, and what cannot be written, in this directory of the root."""
    return (
        tuple(each for each in fitted(spec) if topmost(each.destination) == top),
        tuple(each for each in spec.linux.readonly_paths if topmost(each) == top),
    )


def topmost(path: str) -> str:
    """The directory of the root in which a path is, as it is written."""
    return "/" + path.lstrip("/").partition("/")[0]


class Furniture:
    """Init: everything that is mounted into a root, in the order of the spec, while the host's paths can be seen."""

    def __init__(self, root_fd: int, spec: Spec, trees: Iterable[Tree] = ()) -> None:
        """`trees` are there already, and fit the spec."""
        self.root_fd = root_fd
        self._spec = spec
        self._trees = {tree.top: tree.fd for tree in trees}
        self._made: list[str] = []
        self._kernel_devices: set[int] = set()
        self._next = 0
        self._places: dict[int, int] = {}
        """Where mounts will be that do not exist yet, by their places in the spec."""
        self._is_restricted = False

    def begin(self, opened: Mapping[int, int]) -> None:
        """The first ones, as far as they exist already; as `finish` has it.

        If all that is missing then are the files of a network, their places are found, and the rest is done too.
        """
        mounts = [*fitted(self._spec)]
        while self._next < len(mounts):
            mount = mounts[self._next]
            if self._next not in opened and topmost(mount.destination) not in self._trees:
                break
            self._put(mount, opened.get(self._next, -1))
            self._next += 1
        left = mounts[self._next :]
        if not left or _are_network_files(left):
            for number, mount in enumerate(left, self._next):
                place = Place(self.root_fd, mount.destination)
                self._places[number] = _target(place, mount, self._made, self._kernel_devices, directory=False)
            restrict(self.root_fd, self._spec, self._trees)
            self._is_restricted = True

    def finish(self, detached: Sequence[int] = (), opened: Mapping[int, int] | None = None) -> list[str]:
        """All others, and what is hidden and cannot be written there.

        `detached` are mounts that exist already, which mounts of the type DETACHED name by their number; `opened` are
        those that exist besides, by the place of the mount in the spec. Gives the paths that had to be made for them,
        which are no changes of the container's.
        """
        for number, mount in [*enumerate(fitted(self._spec))][self._next :]:
            ready = detached[int(mount.source)] if mount.type == DETACHED else (opened or {}).get(number, -1)
            place = self._places.pop(number, -1)
            if place < 0:
                self._put(mount, ready)
                continue
            mount_fd = _made_of(mount, ready)
            _check_kind(os.fstat(place), mount, directory=trees.is_directory(mount_fd))
            trees.attach(mount_fd, place)
        if not self._is_restricted:
            restrict(self.root_fd, self._spec, self._trees)
        return self._made

    def _put(self, mount: Mount, ready: int) -> None:
        tree = self._trees.get(topmost(mount.destination), -1)
        if tree >= 0 and mount.destination != topmost(mount.destination):
            # It is in there.
            return
        ready = tree if tree >= 0 else ready
        mount_into(Place(self.root_fd, mount.destination), mount, self._made, self._kernel_devices, ready)
        if mount.destination == "/dev" and tree < 0:
            by_binding = binds_devices(self._spec) or "nodev" in mount.options
            devices.make_usual(devices.opened(self.root_fd), by_binding=by_binding)


def _are_network_files(mounts: Sequence[Mount]) -> bool:
    """Whether these are the three files that tell a container of its network, out of its bundle."""
    directory = os.path.dirname(mounts[0].source)
    wanted = [("bind", f"/etc/{name}", f"{directory}/{name}") for name in NETWORK_FILES]
    return [(each.type, each.destination, each.source) for each in mounts] == wanted


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


def restrict(root_fd: int, spec: Spec, done: Container[str] = ()) -> None:
    """Init: what is hidden in the root, and what cannot be written there, which in some directories is `done`."""
    for path in spec.linux.readonly_paths:
        if topmost(path) not in done:
            _make_readonly(root_fd, path)
    _mask(root_fd, spec.linux.masked_paths)
    if spec.root_readonly:
        syscalls.mount_setattr(root_fd, syscalls.MOUNT_ATTR_RDONLY)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mount is to be, and whether that may be inside /proc or /sys."""

    root_fd: int
    path: str
    may_cover: bool = False


def mount_into(place: Place, mount: Mount, made: list[str], kernel_devices: set[int], ready: int) -> None:
    """Perform one mount. `kernel_devices` are the device numbers of the proc and sysfs mounted so far."""
    target = -1
    if ready < 0 and has_mode_of_its_place(mount):
        before = len(made)
        target = _target(place, mount, made, kernel_devices, directory=True)
        if len(made) == before:
            # As runc's: /run and /root are not everybody's because they are in memory.
            mode = stat.S_IMODE(os.fstat(target).st_mode)
            mount = replace(mount, options=(*mount.options, f"mode={mode:o}"))
    mount_fd = _made_of(mount, ready)
    status = os.fstat(mount_fd)
    if target < 0:
        target = _target(place, mount, made, kernel_devices, directory=stat.S_ISDIR(status.st_mode))
    if mount.destination in ("/proc", "/sys"):
        kernel_devices.add(status.st_dev)
    if "tmpcopyup" in mount.options:
        trees.copy_into(target, mount_fd)
    trees.attach(mount_fd, target)


def has_mode_of_its_place(mount: Mount) -> bool:
    """Whether it is a directory in memory, and has the mode of what it covers."""
    return mount.type == "tmpfs" and not any(each.startswith("mode=") for each in mount.options)


def _made_of(mount: Mount, ready: int) -> int:
    """What is to be mounted, detached, unless it is `ready`. Raises SetupFailed."""
    if ready >= 0:
        return ready
    options = mount_options.parse(mount.options, PART)
    try:
        if mount.type == "overlay":
            return overlaid(mount, options)
        if mount.type == "bind" or options.is_bind:
            return sources.tree(mount, options)
        return new(mount, options)
    except OSError as error:
        raise sources.refused(mount, error, mount.type) from error


def _target(place: Place, mount: Mount, made: list[str], kernel_devices: set[int], *, directory: bool) -> int:
    """The place of a mount in the root, made if it is missing, as an O_PATH fd. Raises SetupFailed."""
    root_fd = place.root_fd
    if mount.destination in _PLAIN:
        _refuse_symlink(root_fd, mount.destination)
    target = trees.make_target(root_fd, mount.destination, made, directory=directory)
    status = os.fstat(target)
    if os.path.samestat(status, os.fstat(root_fd)):
        # What is mounted over the root is reached by /.. only, where nothing would be masked.
        what = mount.source or mount.type
        raise SetupFailed(f"cannot mount {what} at {mount.destination}", why="that is the root itself")
    _check_kind(status, mount, directory=directory)
    # A symlink of the image's must not lead a mount into /proc, where paths mean power (CVE-2019-19921).
    if status.st_dev in kernel_devices and not place.may_cover and mount.destination != "/sys/fs/cgroup":
        raise SetupFailed(f"cannot mount {mount.source} at {mount.destination}", why="that is inside /proc or /sys")
    return target


def _check_kind(target: os.stat_result, mount: Mount, *, directory: bool) -> None:
    if stat.S_ISDIR(target.st_mode) != directory:
        raise SetupFailed(
            f"cannot mount {mount.source} at {mount.destination}",
            errno=errno.ENOTDIR,
            path=mount.destination,
            why="one is a directory and the other is not",
        )


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
    tree = isolation.mount_root((replace(mount, options=tuple(words)),), volatile=True)
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
