"""Snapshots: what the layers of an image are on disk, ready to be mounted.

A *committed* snapshot is a stack of layers, named by its chain ID, and never changes. An *active* one is what a
container or a build step writes to, named by a key. Mounts are described here and never performed: whoever owns the
mount namespace performs them. There are two kinds, with one life and one face: overlayfs' layers (`overlay`), and
whole trees where no overlay can be mounted (`copying`).

A life: prepare → (mount, write, unmount) → commit or discard. Or, for a layer that comes as a tar: staging → (unpack)
→ commit. A committed snapshot appears by one rename: it is whole or not there, after any crash; after a power cut, only
if it had been written out (see `settling`).
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from nbcontain.errors import InUse, StoreError
from nbcontain.oci.codec import LAYER_LIMIT
from nbcontain.oci.digest import ChainID, chain_ids
from nbcontain.oci.image import Layer
from nbcontain.oci.spec import Mount
from nbcontain.store import files, parents, removal, together
from nbcontain.store.inventory import INVENTORY
from nbcontain.store.layout import Layout, Shelf
from nbcontain.store.owners import LIMIT_BYTES
from nbcontain.store.settling import Settling, Witness
from nbcontain.values import dataclass, field

Driver = Literal["overlay", "copy"]
Form = Literal["overlay", "tree"]
"""What a directory holds: a layer's changes as overlayfs has them, or all the files."""

OWNERS, MAKERS = "owners", "makers"
"""Whose files are, and whose programs wrote to an active snapshot, where the disk does not tell (see `makers`)."""
_KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


class Worker(Protocol):
    """Who runs one of our functions confined to a root file system: runtime's Launcher."""

    def call(
        self, function: str, rootfs: Sequence[Mount], arguments: dict[str, Any], fds: Sequence[int] = (), /, *,
        source: Sequence[Mount] = (),
    ) -> dict[str, Any]: ...  # fmt: skip


@dataclass(frozen=True, slots=True)
class Active:
    """A writable snapshot, and the mounts that show it."""

    key: str
    parent: ChainID | None
    mounts: tuple[Mount, ...]
    is_plain: bool = False
    """Who has just filled it saw that no device is in it. Nobody else has written to it as yet."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Where a worker finds what an active snapshot changed: its root, its arguments, and what else it may see."""

    root: tuple[Mount, ...]
    arguments: dict[str, Any]
    below: tuple[Mount, ...] = ()
    files: tuple[Path, ...] = field(default=())
    """To be opened for it."""

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Descriptors of `files`."""
        with ExitStack() as stack:
            yield [stack.enter_context(open(path, "rb", buffering=0)).fileno() for path in self.files]


class Staging:
    """A directory that a layer is unpacked into, and that becomes a committed snapshot."""

    def __init__(self, snapshotter: Snapshotter, directory: Path) -> None:
        self._snapshotter = snapshotter
        self._directory = directory
        files.make_new_directory(directory / "layer")
        self._witness: Witness | None = Witness.of(directory / "layer")
        files.make_new_directory(self.fs, 0o755)

    @property
    def fs(self) -> Path:
        """What the layer's root becomes: 0755; empty, or all that is below."""
        return self._directory / "layer" / "fs"

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """The layer as a root, writable."""
        return bind(self.fs, "rw")

    def ledger(self, *, wanted: bool) -> AbstractContextManager[tuple[int, ...]]:
        """The file for owners that nothing else can hold, open to be written; none unless it is `wanted`."""
        return _opened_beside(self._directory / "layer" / OWNERS, wanted=wanted)

    @contextmanager
    def inventory(self) -> Iterator[int]:
        """The file for what the layer's tar says, open to be written; whoever has that does so when he likes."""
        fd = files.open_to_append(self._directory / "layer" / INVENTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def seams(self) -> Iterator[int]:
        """The file for what of it depends on what it will lie on (see `seams`), open to be written and read."""
        fd = files.open_to_append(self._directory / "seams")
        try:
            yield fd
        finally:
            os.close(fd)

    def leave_inventory(self) -> None:
        """Nobody writes to it."""
        files.unlink(self._directory / "layer" / INVENTORY)

    def commit(self, name: ChainID, parent: ChainID | None) -> None:
        """Give it its name; idempotent: if a twin was quicker, this one is thrown away."""
        layer = self._directory / "layer"
        files.write_new(layer / "parent", parents.written(parent))
        witness, self._witness = self._witness, None
        self._snapshotter.publish(layer, name, witness)

    def close(self) -> None:
        """Nothing is committed any more; idempotent."""
        if self._witness is not None:
            self._witness.close()
            self._witness = None


class Snapshotter(ABC):
    """What both kinds have in common. `remove_tree` removes what this process may not: files of subordinate ids."""

    driver: Driver
    form: Form
    """Of the directories that layers are unpacked into."""
    userxattr = False

    def __init__(self, layout: Layout, shelf: Shelf, remove_tree: Callable[[Path], None]) -> None:
        self.shelf = shelf
        self._layout = layout
        self._remove_tree = remove_tree
        self._settling = Settling(shelf)
        self._parents = parents.Parents()

    # --- what is committed ---

    def exists(self, name: ChainID) -> bool:
        """Whether it is there and holds, with all that it lies on: what is below may have been lost without it."""
        current = name
        for _ in range(LAYER_LIMIT):
            if not self.holds(current):
                return False
            try:
                below = self.parent(current)
            except StoreError:
                return False
            if below is None:
                return True
            current = below
        return False

    def holds(self, name: ChainID) -> bool:
        """The same of this one alone: for who knows that what is below it holds, or asks about each."""
        return self._settling.is_sound(self.shelf.snapshot(name))

    def has_all(self, layers: Sequence[Layer]) -> bool:
        """Whether there is a snapshot for every layer of this stack, lowest first."""
        below: ChainID | None = None
        try:
            for name in chain_ids(layer.diff_id for layer in layers):
                if not self.holds(name) or self.parent(name) != below:
                    return False
                below = name
        except StoreError:  # nobody knows what it lies on
            return False
        return True

    def publish(self, directory: Path, name: ChainID, witness: Witness | None = None) -> bool:
        """Make a finished directory that snapshot; False if a twin has the name already. Closes the witness."""
        target = self.shelf.snapshot(name)
        if target.is_dir() and not self._settling.is_sound(target):
            # A power cut came first. Another at this line may have put a sound one there by now, which has a user.
            self._take_away_committed(target, unless=self._settling.is_sound)
        return self._settling.publish(directory, target, witness)

    def close(self) -> None:
        """Write nothing in the background any more (see `Settling.close`)."""
        self._settling.close()

    def settle(self) -> None:
        """Have all that there is written out now. The caller holds the store's lock."""
        self._settling.settle(self.shelf.root / name for name in self.walk())

    def walk(self) -> Iterator[str]:
        """The hex of every committed snapshot's chain ID."""
        return filter(_NAME.fullmatch, files.names(self.shelf.root))

    def parent(self, name: ChainID) -> ChainID | None:
        """What it lies on; raises StoreError if there is no such snapshot or it is damaged."""
        return self._parents.of(name, self.shelf.snapshot(name))

    @abstractmethod
    def chain(self, name: ChainID | None) -> tuple[Path, ...]:
        """The directories that it takes to show a stack, topmost first; none for scratch."""

    @abstractmethod
    def view(self, name: ChainID | None) -> tuple[Mount, ...]:
        """The mounts that show a stack read-only. There is none for scratch: raises StoreError."""

    @abstractmethod
    def scratch(self, name: ChainID, directory: Path) -> Mount:
        """A mount that shows a stack, for which what is written ends in `directory`, which is the caller's."""

    def remove(self, name: ChainID) -> None:
        """Idempotent; only for gc, which knows that nothing lies on it."""
        self._take_away_committed(self.shelf.snapshot(name))

    @contextmanager
    def staging(self, parent: ChainID | None = None) -> Iterator[Staging]:
        """A place to unpack a layer; gone at the end unless it was committed. A full disk becomes DiskFull.

        Where a snapshot is a whole tree (`form`), it begins as `parent`, which has to be there by then.
        """
        with files.disk(self._layout.root), files.temporary_directory(self._layout.tmp) as directory:
            try:
                staging = Staging(self, directory)
                try:
                    self._begin(staging.fs, parent)
                    yield staging
                finally:
                    staging.close()
            finally:
                self.remove_tree(directory)

    # --- what is active ---

    def prepare(self, key: str, parent: ChainID | None, *, durable: bool = False, for_programs: bool = True) -> Active:
        """A new writable snapshot on `parent`; raises InUse if the key is taken.

        `durable` where something durable will stand on it: a container that is kept. `for_programs` may be False
        where only our own functions write to it, which replace files and do not write into them.
        """
        mounts = self._active_mounts(directory := self.shelf.active(checked(key)), parent)
        with files.disk(self._layout.root):
            try:
                files.make_new_directory(directory)
            except FileExistsError as error:
                raise InUse(f"the snapshot {key} exists already") from error
            try:
                # The parent first: a directory without it is known to be a crash's leftover.
                files.write_new(f"{directory}/parent", parents.written(parent))
                files.make_new_directory(f"{directory}/fs", 0o755)
                is_plain = self._furnish(directory, parent, for_programs=for_programs)
                if durable:
                    together.sync(directory, ["parent"])
                    self._settle_under(directory, parent)
                    files.sync_directory(directory)
                    files.sync_directory(self.shelf.actives)
            except BaseException:
                self._take_away(directory)
                raise
        return Active(key, parent, mounts, is_plain)

    def active(self, key: str) -> Active:
        """The active snapshot of that key; raises StoreError if there is none."""
        parent = self.parent_of(key)
        return Active(key, parent, self._active_mounts(self.shelf.active(key), parent))

    def parent_of(self, key: str) -> ChainID | None:
        """What the active snapshot of that key stands on."""
        return parents.read(self.shelf.active(checked(key)))

    def actives(self) -> Iterator[str]:
        """The keys of all there are."""
        return filter(_KEY.fullmatch, files.names(self.shelf.actives))

    def entries(self) -> list[str]:
        """Whatever is among the active snapshots, by its file name."""
        return sorted(os.listdir(self.shelf.actives)) if self.shelf.actives.is_dir() else []

    def has(self, key: str) -> bool:
        """Whether there is an active snapshot of that key, damaged or not."""
        return self.shelf.active(checked(key)).is_dir()

    def upper(self, active: Active) -> Path:
        """The directory that it is written to."""
        return self.shelf.active(active.key) / "fs"

    @abstractmethod
    def is_untouched(self, active: Active, stubs: Collection[str]) -> bool:
        """Whether it is clear at a glance that nothing but mount points was made in it."""

    @abstractmethod
    def changes(self, active: Active, stubs: Sequence[str], *, is_used: bool) -> Changes:
        """How to pack what was changed: for the worker's `tar_of`.

        `stubs` are mount points: what is empty of them is removed first, or left out while the snapshot `is_used`.
        """

    @abstractmethod
    def differences(self, active: Active) -> Changes:
        """How to tell what was changed, path by path: for the worker's `changes`."""

    def commit(self, active: Active, name: ChainID) -> None:
        """Make it a committed snapshot for good; idempotent: a racing twin is discarded. It is mounted nowhere."""
        directory = self.shelf.active(active.key)
        if self.exists(name):
            self.discard(active)
            return
        with files.disk(self._layout.root):
            self._strip(directory)
            files.unlink(directory / MAKERS)
            if not self.publish(directory, name):
                self.discard(active)

    @abstractmethod
    def ledger(self, shown: Active | ChainID | None) -> bytes:
        """What is recorded of the owners of all that a snapshot shows, the topmost layer's last (see `owners`)."""

    def open_ledger(self, active: Active, *, wanted: bool) -> AbstractContextManager[tuple[int, ...]]:
        """The active snapshot's own ledger, to be written; none unless it is `wanted`."""
        return _opened_beside(self.shelf.active(active.key) / OWNERS, wanted=wanted)

    @abstractmethod
    def look(self, active: Active) -> tuple[Mount, ...]:
        """The mounts that show an active snapshot and what it stands on read-only, also while it is in use."""

    def rooted(self, active: Active) -> dict[str, object]:
        """What a worker is told that reads it, where it is a root to its programs alone (see `RootedLinks`)."""
        return {}

    def discard(self, active: Active | str) -> None:
        """Throw it away, also by its key alone, when it is damaged; idempotent. The key is free at once."""
        self._take_away(self.shelf.active(checked(active.key if isinstance(active, Active) else active)))

    def is_in_use(self, name: ChainID | None) -> bool:
        """Whether an active snapshot stands on exactly this stack: a container of that image."""
        text = parents.written(name)
        for key in self.actives():
            try:
                if files.read(self.shelf.active(key) / "parent", 256) == text:
                    return True
            except (OSError, StoreError):
                continue
        return False

    def remove_tree(self, path: Path) -> None:
        """Remove a tree of the store, with the help of the others' ids where that takes them."""
        try:
            removal.remove_tree(path)
        except PermissionError:
            self._remove_tree(path)

    # --- what each kind does in its own way ---

    @abstractmethod
    def _begin(self, fs: Path, parent: ChainID | None) -> None:
        """Fill the directory that a layer will be unpacked into."""

    @abstractmethod
    def _furnish(self, directory: Path, parent: ChainID | None, *, for_programs: bool) -> bool:
        """Fill a new active snapshot, which has `parent` and an empty `fs`. Gives whether it is known to be plain."""

    @abstractmethod
    def _settle_under(self, directory: Path, parent: ChainID | None) -> None:
        """Have written out what an active snapshot needs to show what it should."""

    @abstractmethod
    def _strip(self, directory: Path) -> None:
        """Take away what only an active snapshot has. Idempotent."""

    @abstractmethod
    def _active_mounts(self, directory: Path, parent: ChainID | None) -> tuple[Mount, ...]: ...

    def _take_away(self, directory: Path) -> None:
        """Free the name at once, then remove what it named. A crash in between leaves what sweeping finds."""
        try:
            rubbish = removal.set_aside(directory, self._layout.tmp)
        except FileNotFoundError:
            return
        rubbish.remove(self.remove_tree)

    def _take_away_committed(self, directory: Path, unless: Callable[[Path], bool] = lambda directory: False) -> None:
        """The same for a committed snapshot, among others who do it, and who mark it as written out."""
        with files.lock(self.shelf.lock, exclusive=True):
            if unless(directory):
                return
            try:
                rubbish = removal.set_aside(directory, self._layout.tmp)
            except FileNotFoundError:
                return
        rubbish.remove(self.remove_tree)

    def _checked_to_hold(self, name: ChainID) -> Path:
        """A committed snapshot's directory; raises StoreError if it was not written out before the power went."""
        directory = self.shelf.snapshot(name)
        if not self._settling.is_sound(directory) and directory.is_dir():
            raise StoreError(
                f"the snapshot {name.short} does not hold",
                why="the power went before it was written out",
                hint="nbcontain system check --repair unpacks it again",
            )
        return directory


@contextmanager
def _opened_beside(path: Path, *, wanted: bool) -> Iterator[tuple[int, ...]]:
    """A file beside a snapshot's tree, to be written; what nobody wrote to does not stay."""
    if not wanted:
        yield ()
        return
    fd = files.open_to_append(path)
    try:
        yield (fd,)
        if not os.fstat(fd).st_size:
            files.unlink(path)
    finally:
        os.close(fd)


def ledger_in(directory: Path, name: str = OWNERS) -> bytes:
    """What the ledger of one snapshot's directory says, or its MAKERS; nothing if there is none."""
    try:
        return files.read(directory / name, LIMIT_BYTES)
    except FileNotFoundError:
        return b""


def bind(directory: Path, access: str) -> tuple[Mount, ...]:
    """A directory as a root file system, "ro" or "rw"."""
    return (Mount("/", "bind", str(directory), ("bind", access)),)


def checked(key: str) -> str:
    """A key that is a plain file name; raises StoreError for any other."""
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is no name for a snapshot")
    return key
