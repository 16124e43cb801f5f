"""A container whose ids are others than those of its files (--userns auto). Only root has these.

Its files are on the disk as the image has them, and are shown to it by mounts with its map of ids: so nothing is
copied, and who looks into its layer from outside, as `diff`, `commit` and `cp` do, sees what they would see of any
container. Such mounts are made by somebody of the host, and so is the overlay over them. Init, which is nobody there,
is handed all of it as descriptors, and what there is to read with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from nbcontain.errors import SetupFailed
from nbcontain.linux import mount_options, syscalls, trees
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import births, furniture, isolation, sources, stage
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.roots import HANDED_ROOT

_TEXTS = ("config.json", "seccomp.bpf")
_LIMIT_BYTES = 8 << 20
_NO_SETUID_FIXUP = 1 << 2
"""capabilities(7), SECBIT_NO_SETUID_FIXUP."""
_PR_SET_SECUREBITS = 28


# --- the supervisor -------------------------------------------------------------------------------


def opened(bundle: Bundle, spec: Spec, pid: int, *, volatile: bool) -> dict[int, int]:
    """Supervisor: the container's root and every mount that comes from this machine, as descriptors by their place.

    `pid` is that of its first process. Raises SetupFailed.
    """
    user_ns, network = (f"/proc/{pid}/ns/{name}" for name in ("user", "net"))
    ids = IdMap(spec.linux.uid_mappings, spec.linux.gid_mappings)
    shares_network = "network" not in spec.linux.namespaces or "network" in spec.linux.paths
    found = sources.opened(spec, births.user_namespace, own_map=user_ns, every=True)
    try:
        found[HANDED_ROOT] = _tree(user_ns, ids, bundle.rootfs, partial(_whole, bundle.rootfs, volatile=volatile))
        for number, mount in enumerate(spec.mounts):
            options = mount_options.parse(mount.options, PART)
            if mount.type == "overlay":
                found[number] = _tree(user_ns, ids, (mount,), partial(furniture.overlaid, mount, options))
            elif mount.type == "sysfs" and shares_network:
                found[number] = stage.taken(partial(_make_sysfs, network, options.set), "/sys of a container")[0]
        _lock([number for number in found if not _crosses(spec, number)], found, user_ns)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def texts(bundle: Bundle) -> dict[str, int]:
    """Supervisor: what init has to read of the bundle, open."""
    found = {}
    for name in _TEXTS:
        try:
            found[name] = os.open(bundle.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    return found


def give(spec: Spec, fds: Sequence[int]) -> None:
    """Supervisor: let root inside open those of these that are pipes anew, by /dev/stdout for one, as it may anywhere.
    """
    for fd in fds:
        # One that has a path is somebody's file.
        if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
            os.fchown(fd, spec.linux.uid_mappings[0].host_id, spec.linux.gid_mappings[0].host_id)


def _whole(rootfs: Sequence[Mount], *, volatile: bool) -> int:
    root = isolation.mount_root(rootfs, volatile=volatile)
    try:
        return syscalls.open_tree(root)
    finally:
        os.close(root)


def _tree(user_ns: str, ids: IdMap, rootfs: Sequence[Mount], make: Callable[[], int]) -> int:
    """What `make` mounts of those directories, whose files have the owners that the map says; as a detached mount."""
    users = os.open(user_ns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return stage.taken(partial(_make_tree, users, ids, rootfs, make), "the root of a container")[0]
    finally:
        os.close(users)


def _make_tree(
    users: int, ids: IdMap, rootfs: Sequence[Mount], make: Callable[[], int], channel: Channel
) -> None:  # fmt: skip
    """In mounts of its own, so that nothing of this is ever seen on the host."""
    isolation.separate(syscalls.CLONE_NEWNS)
    for place in _places(isolation.directories_of(rootfs)):
        _show_with(place, users)
    # Overlayfs makes its own files as who mounts it: that has to be somebody who exists there.
    syscalls.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
    syscalls.setfsgid(ids.gids[0].host_id)
    syscalls.setfsuid(ids.uids[0].host_id)
    channel.send({"tree": True}, [make()])


def _places(groups: Sequence[Sequence[str]]) -> list[str]:
    """The directories that hold all of them: one for each group, unless that is inside of another's."""
    found = sorted({os.path.commonpath(each) for each in groups if each})
    return [each for n, each in enumerate(found) if not any(_is_within(each, other) for other in found[:n])]


def _is_within(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _show_with(place: str, users: int) -> None:
    """Cover a directory by itself, with the owners that this user namespace's map says."""
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = syscalls.open_tree(directory)
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, user_ns=users)
        syscalls.move_mount(tree, directory)
    except OSError as error:
        raise SetupFailed(
            "the container's files cannot be shown with its own ids", errno=error.errno, path=place,
            why=f"the kernel or the file system there does not do that (mount_setattr(2): {error.strerror})",
            hint="--userns host, or NBCONTAIN_ROOT on ext4, xfs or btrfs",
        ) from error


def _make_sysfs(network: str, attributes: int, channel: Channel) -> None:
    """It shows the network namespace of who mounts it, which has to have rights there: somebody of the host has."""
    syscalls.setns(os.open(network, os.O_RDONLY | os.O_CLOEXEC), syscalls.CLONE_NEWNET)
    channel.send({"tree": True}, [syscalls.new_mount("sysfs", (("source", "sysfs"),), attributes)])


def _crosses(spec: Spec, number: int) -> bool:
    """Whether this mount is to stay one with this machine's, which no copy of another user namespace's is."""
    return number != HANDED_ROOT and mount_options.parse(spec.mounts[number].options, PART).crosses


def _lock(numbers: Sequence[int], found: dict[int, int], user_ns: str) -> None:
    """Put copies in the place of these trees whose flags (ro, nodev …) no admin of that user namespace takes back."""
    users = os.open(user_ns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        each = [found[number] for number in numbers]
        copies = stage.taken(partial(_make_locked, users, each), "the mounts of a container")
    finally:
        os.close(users)
    for number, copy in zip(numbers, copies, strict=True):
        os.close(found[number])
        found[number] = copy


def _make_locked(users: int, each: Sequence[int], channel: Channel) -> None:
    """The kernel locks the flags of mounts when a user namespace of less power gets them (mount_namespaces(7))."""
    isolation.separate(syscalls.CLONE_NEWNS)
    hall = isolation.lay_root(syscalls.new_mount("tmpfs", (("mode", "755"),)))
    for number, tree in enumerate(each):
        trees.attach(tree, trees.make_target(hall, f"/{number}", [], directory=trees.is_directory(tree)))
    os.fchdir(hall)
    syscalls.setns(users, syscalls.CLONE_NEWUSER)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    copies = [syscalls.open_tree(here, str(number), recursive=True) for number in range(len(each))]
    channel.send({"trees": True}, copies)


# --- init -----------------------------------------------------------------------------------------


class Handed(Bundle):
    """Init: a bundle that cannot be reached from where it is read."""

    def __init__(self, bundle: Bundle, texts: Mapping[str, int]) -> None:
        super().__init__(bundle.path)
        self._texts = {}
        for name, fd in texts.items():
            with os.fdopen(fd, "rb", buffering=0) as file:
                file.seek(0)
                self._texts[name] = file.read(_LIMIT_BYTES) or b""

    def spec_text(self) -> str:
        return self._texts["config.json"].decode()

    def seccomp(self, spec: Spec) -> bytes:
        return self._texts["seccomp.bpf"] if spec.linux.seccomp else b""
