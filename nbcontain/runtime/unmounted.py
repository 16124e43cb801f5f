"""A container's root where nothing can be mounted: a tree of its own, a chroot, and Landlock on top. Run by init.

What `isolation` does with mounts is done here as far as it can be without; `rungs.fitted` has refused the rest. What
is made in the tree for it is told to the supervisor, like the mount points of others, and is no part of any layer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence

from nbcontain.errors import SetupFailed
from nbcontain.linux import landlock, trees
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime.console import Console, resize
from nbcontain.runtime.devices import DEVICES, LINKS
from nbcontain.runtime.rungs import CERTIFICATES, DOCUMENTS
from nbcontain.runtime.secrets import SecretFile

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.runtime import translated
    from nbcontain.runtime.preloaded import Tree

_DIRECTORIES = {"/proc": 0o555, "/sys": 0o555, "/dev": 0o755, "/dev/pts": 0o755, "/dev/shm": 0o1777}
_HARMLESS = frozenset({*DEVICES.values(), (5, 1), (5, 2)})
"""With /dev/console and /dev/ptmx, as in many a root file system, what docker's device cgroup opens to everybody."""
_UNLOCK, _OPEN_PEER, _NUMBER = 0x40045431, 0x5441, 0x80045430
_LIMIT_BYTES = 1 << 20


def root_of(rootfs: Sequence[Mount]) -> int:
    """Init: the tree that is going to be the root, as an O_PATH fd."""
    (root,) = rootfs
    if root.type != "bind":
        raise SetupFailed("a root file system of layers cannot be put together here", why="nothing can be mounted")
    return os.open(root.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def furnish(
    root_fd: int, spec: Spec, documents: Sequence[SecretFile], *, served: bool, place: translated.Place | None = None
) -> list[str]:
    """Init: the directories that programs expect, and files for the devices. Gives the paths that had to be made.

    `served` says that a process will open devices and /etc/hosts for the container: then a name is enough. So it is
    at a `place` whose paths are translated; what stands there for what is open then leads to the machine's /proc. Where
    a library translates them, files of ours lie in the tree, in the place of the image's.
    """
    tree = place.tree(root_fd) if place is not None else None
    made: list[str] = []
    for path, mode in _DIRECTORIES.items():
        known = len(made)
        fd = trees.make_target(root_fd, tree.resolved(path) if tree else path, made, directory=True)
        if len(made) > known:
            os.chmod(f"/proc/self/fd/{fd}", mode)
        os.close(fd)
    _make_devices(root_fd, made)
    if place is not None:
        _make_links(root_fd, made)
    for mount in spec.mounts:
        if mount.destination.startswith(DOCUMENTS):
            document = documents[int(mount.source)]
            _write(root_fd, mount.destination, document.data, document.mode, made)
        elif tree is not None:
            with open(mount.source, "rb") as source:
                _write_over(root_fd, tree, mount.destination, source.read(_LIMIT_BYTES), made)
        elif place is not None:
            os.close(trees.make_target(root_fd, mount.destination, made, directory=False))
        elif not served or mount.destination == CERTIFICATES:
            # Programs look whether the latter is there before they open it.
            with open(mount.source, "rb") as source:
                _write(root_fd, mount.destination, source.read(_LIMIT_BYTES), 0o644, made)
    return made


def admit_nodes(root_fd: int) -> None:
    """Init: no node in the tree but what every container may open. No mount here forbids to (mount(8), nodev).

    Whoever made it: an image, an archive that ADD unpacked, a COPY. Inside none can be made. Raises SetupFailed.
    """
    if not _may_have_nodes():
        return
    places = ["/"]
    while places:
        place = places.pop()
        fd = trees.open_in(root_fd, place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    # Most are files, and links: so they are told apart first, by what the directory itself says.
                    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        continue
                    path = f"{place.rstrip('/')}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        places.append(path)
                    else:
                        _admit_node(path, entry.stat(follow_symlinks=False))
        finally:
            os.close(fd)


def _may_have_nodes() -> bool:
    """Whether it was this machine's root who made the tree: nobody else can make nodes there (user_namespaces(7))."""
    with open("/proc/self/uid_map", "rb") as ids:
        return any(int(line.split()[1]) == 0 for line in ids)


def _admit_node(path: str, status: os.stat_result) -> None:
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if kind:
        admit_device(path, kind, (os.major(status.st_rdev), os.minor(status.st_rdev)))


def admit_device(path: str, kind: str, number: tuple[int, int]) -> None:
    """Nothing, for a "c" or "b" of this number that every container may open. Otherwise raises SetupFailed."""
    if kind == "b" or number not in _HARMLESS:
        raise SetupFailed(
            f"{path} is a device of this machine's: {kind} {number[0]}:{number[1]}", path=path,
            why="where nothing can be mounted, nothing keeps programs from opening it",
            hint="make the image without it",
        )  # fmt: skip


def _make_devices(root_fd: int, made: list[str]) -> None:
    """Nodes where they can be made, which takes the host's root; otherwise files that bear their names."""
    dev = trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (major, minor) in DEVICES.items():
            try:
                status = os.stat(name, dir_fd=dev, follow_symlinks=False)
            except FileNotFoundError:
                made.append(f"/dev/{name}")
            else:
                if stat.S_ISCHR(status.st_mode) or not stat.S_ISREG(status.st_mode):
                    continue
            try:
                node = f".{name}.nbcontain"
                os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(major, minor), dir_fd=dev)
                os.chmod(node, 0o666, dir_fd=dev)
            except OSError:
                if f"/dev/{name}" in made:
                    os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
                    os.chmod(name, 0o666, dir_fd=dev)
            else:
                if f"/dev/{name}" in made:
                    os.link(node, name, src_dir_fd=dev, dst_dir_fd=dev)
                os.unlink(node, dir_fd=dev)
    finally:
        os.close(dev)


def _make_links(root_fd: int, made: list[str]) -> None:
    dev = trees.open_in(root_fd, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, target in LINKS.items():
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue
            made.append(f"/dev/{name}")
    finally:
        os.close(dev)


def _write(root_fd: int, path: str, data: bytes, mode: int, made: list[str]) -> None:
    """A file of ours where the image has none, or an empty one: what it says itself stays."""
    known = len(made)
    place = trees.make_target(root_fd, path, made, directory=False)
    os.close(place)
    fd = trees.open_in(root_fd, path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if len(made) > known:
            os.write(fd, data)
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _write_over(root_fd: int, tree: Tree, path: str, data: bytes, made: list[str]) -> None:
    """A file of ours, whatever the image has there but a directory; where layers would have it by another path (a link
    of the image's), only if there is none."""
    above, name = os.path.split(path)
    inner = tree.resolved(above)
    place = trees.make_target(root_fd, inner, made, directory=True)
    try:
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode) or inner != above:
                return
            os.unlink(name, dir_fd=place)
        except FileNotFoundError:
            made.append(os.path.join(inner, name))
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o644, dir_fd=place), "wb") as made_file:
            os.fchmod(made_file.fileno(), 0o644)
            made_file.write(data)
    finally:
        os.close(place)


def enter(root_fd: int, others: Sequence[int] = ()) -> None:
    """Init, and an exec's process: make the directory the root, for good.

    What leads out of a chroot takes CAP_SYS_CHROOT, which goes next. Where the kernel has Landlock, nothing beyond this
    root can be reached in any other way either, but by the directories `others`; nor signalled. Takes CAP_SYS_ADMIN,
    or no_new_privs.
    """
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir("/")
    landlock.confine_to("/", others)


def terminal(size: tuple[int, int]) -> Console:
    """Init, before the root changes: a terminal of the host's, which has no name inside."""
    try:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, _UNLOCK, struct.pack("i", 0))
        peer = _other_end(master)
    except OSError as error:
        raise SetupFailed(
            "cannot make a terminal", errno=error.errno, why=error.strerror or "", hint="leave out -t (--tty)"
        ) from error
    resize(master, size)
    return Console(master, peer)


def _other_end(master: int) -> int:
    """By its number where the kernel opens none by the first end (TIOCGPTPEER): the devpts is this machine's own."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return fcntl.ioctl(master, _OPEN_PEER, flags)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    (number,) = struct.unpack("I", fcntl.ioctl(master, _NUMBER, bytes(4)))
    return os.open(f"/dev/pts/{number}", flags)
