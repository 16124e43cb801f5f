"""What init does of a container before that is asked for, and while its bundle is still being written.

Run by init. While it waits in a spare, which may become any container: what nearly all of them have in /proc, /dev and
/sys, put together, and a network namespace, which nobody is in. Then, told by its supervisor which container is coming:
its namespaces, and, as soon as there is a layer, its root with its own file systems in it. Whoever makes the container
then has only to do what needs its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from nbcontain.errors import NbcontainError
from nbcontain.linux import loopback, mount_options, syscalls
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Linux, Mount, Process, Spec
from nbcontain.runtime import furniture, hidden, isolation, namespaces, roots
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.messages import Message
from nbcontain.runtime.rungs import Rung

_OWN = frozenset({"proc", "tmpfs", "devpts", "mqueue", "sysfs"})
"""File systems that come from nowhere."""
_NETWORK = "/proc/thread-self/ns/net"
_MOUNTS = "/proc/thread-self/ns/mnt"
_QUIET = ("nosuid", "noexec", "nodev")
USUAL = (
    Mount("/proc", "proc", "proc", _QUIET),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "noexec", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/dev/shm", "tmpfs", "shm", (*_QUIET, "mode=1777", "size=65536k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", _QUIET),
)
"""Those that nearly every container has, and that do not show a network."""
_SYS = Mount("/sys", "sysfs", "sysfs", (*_QUIET, "ro"))
"""And the one that does."""


class Beforehand:
    """What has been done already."""

    def __init__(self) -> None:
        self.spec: Spec | None = None
        self.left = 0
        """CLONE_NEW… of the namespaces that init has left."""
        self.trees: list[furniture.Tree] = []
        """What is put together for /proc, /dev and /sys; of a container that is known only what fits that."""
        self.unwanted: list[int] = []
        """What it does not want of what is there already: to be closed by who has the time."""
        self.furniture: furniture.Furniture | None = None
        """The root, and what has been mounted into it."""
        self._mounts: dict[int, int] = {}
        """Those of the container's that are in no root and no tree yet, by their places in the spec."""
        self._network = -1
        """A network namespace that nobody is in."""
        self._root = -1
        """The root, of a container of which nothing else is known yet."""
        self._is_entered = False
        """This process is in it."""
        self._error: BaseException | None = None

    # --- for any container ---

    def prepare(self, rung: Rung) -> None:
        """Have ready what any container may want. Without effect for whoever wants something else, who leaves it."""
        # Only root of the machine gets back from where it is made. An ordinary user may not leave; root of a user
        # namespace would lose the machine's network and mounts, which a container may want.
        with suppress(OSError, NbcontainError):
            if rung.mounts and not _is_in_user_namespace():
                sysfs = -1
                with suppress(OSError):
                    sysfs = self._prepare_network()
                self._prepare_trees(sysfs)

    def _prepare_network(self) -> int:
        """Gives a file system that shows it; -1 where that cannot be."""
        sysfs = -1
        own = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Where this is refused, as by a filter around this place, nobody would get back.
            syscalls.setns(own, syscalls.CLONE_NEWNET)
            syscalls.unshare(syscalls.CLONE_NEWNET)
            try:
                loopback.bring_up()
                made = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
                with suppress(OSError):
                    sysfs = furniture.new(_SYS, mount_options.parse(_SYS.options, PART))
            finally:
                _return(lambda: syscalls.setns(own, syscalls.CLONE_NEWNET))
            self._network = made
        finally:
            os.close(own)
        return sysfs

    def _prepare_trees(self, sysfs: int = -1) -> None:
        """In a mount namespace that is gone afterwards: a copy of the mounts would miss what is mounted later, and keep
        others from unmounting."""
        own = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        shown = {len(USUAL): sysfs} if sysfs >= 0 else {}
        spec = Spec(
            Process(()), mounts=(*USUAL, *(_SYS for _ in shown)),
            linux=Linux(readonly_paths=hidden.READONLY),
        )  # fmt: skip
        try:
            isolation.enter_mounts(own, root)
            try:
                isolation.separate(syscalls.CLONE_NEWNS)
                self.trees = furniture.assembled(spec, shown)
            finally:
                _return(lambda: isolation.enter_mounts(own, root))
        finally:
            os.close(own)
            os.close(root)

    # --- for one ---

    def begin(self, message: Message, rung: Rung) -> None:
        """Do it. What goes wrong is raised later, by `settle`, where somebody hears of it."""
        try:
            if self._error is not None or not rung.mounts:
                if "spec" in message:
                    self.spec = self.spec or spec_codec.spec_from_text(message["spec"])
            elif "rootfs" in message:
                self._make_root(message)
            elif "spec" in message:
                self._make_spaces(spec_codec.spec_from_text(message["spec"]))
            else:
                self._leave_mounts()
            self._furnish()
        except BaseException as error:  # noqa: BLE001 - raised by `settle`
            self._error = self._error or error

    def settle(self) -> None:
        """Raises what hindered it."""
        if self._error is not None:
            raise self._error

    def taken(self, spec: Spec) -> dict[int, int]:
        """Descriptors of mounts of this spec that exist already and are in no root, by their places in it.

        Whoever has not been told of it before is in its network from here on.
        """
        if self.spec is None:
            self.left = self.enter(namespaces.late(spec.linux))
            self._take(spec)
        return self._mounts

    def _make_spaces(self, spec: Spec) -> None:
        # Not that of its control group, to which it may not belong yet.
        late = namespaces.late(spec.linux) & ~syscalls.CLONE_NEWCGROUP
        roots.leave(spec, late & ~self.left & ~self.enter(late))
        self.left |= late
        self._take(spec)
        tops = [tree.top for tree in self.trees]
        for number, mount in enumerate(furniture.fitted(spec)):
            options = mount_options.parse(mount.options, PART)
            if furniture.topmost(mount.destination) in tops or mount.type not in _OWN or options.is_bind:
                continue
            if furniture.has_mode_of_its_place(mount):
                continue
            # What cannot be made now is tried again, and told of, in its turn.
            with suppress(OSError):
                self._mounts[number] = furniture.new(mount, options)
        self.spec = spec

    def enter(self, wanted: int) -> int:
        """Be in the network namespace that nobody is in, if one is `wanted`. Gives that of CLONE_NEW…, or 0."""
        if self._network < 0 or not wanted & syscalls.CLONE_NEWNET:
            return 0
        syscalls.setns(self._network, syscalls.CLONE_NEWNET)
        self._is_entered = True
        return syscalls.CLONE_NEWNET

    def _take(self, spec: Spec) -> None:
        """What any container may want, for this one; what it does not want goes."""
        made, self.trees = self.trees, []
        for tree in made:
            if tree.fits(spec) and (self._is_entered or tree.top != _SYS.destination):
                self.trees.append(tree)
            else:
                # The kernel may take longer for its end than for all that the container wants.
                self.unwanted.append(tree.fd)
        if self._network >= 0:
            os.close(self._network)
        self._network = -1

    def _leave_mounts(self) -> None:
        """Every container that has file systems of its own has mounts of its own."""
        if not self.left & syscalls.CLONE_NEWNS:
            isolation.separate(syscalls.CLONE_NEWNS)
            self.left |= syscalls.CLONE_NEWNS

    def _make_root(self, message: Message) -> None:
        self._leave_mounts()
        self._root = isolation.mount_root(spec_codec.mounts_from_json(message["rootfs"]), volatile=message["volatile"])

    def _furnish(self) -> None:
        if self.spec is None or self._root < 0:
            return
        root_fd, self._root = self._root, -1
        self.furniture = furniture.Furniture(root_fd, self.spec, self.trees)
        self.furniture.begin(self._mounts)


def _return(way: Callable[[], None]) -> None:
    """Be back where this process came from."""
    try:
        way()
    except OSError:
        # No container may find itself in a namespace that it has not asked for: then there is one spare less.
        os._exit(1)


def _is_in_user_namespace() -> bool:
    """Whether root is only that of a user namespace (user_namespaces(7))."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]
