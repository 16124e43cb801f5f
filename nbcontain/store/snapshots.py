"""Stacks of changes: what the layers of an image are on disk, ready to be mounted.

A *committed* snapshot is one layer, named by the chain ID of the stack that ends with it, and never
changes. An *active* one is what a container or a build step writes to, named by a key. Mounts are
described here and never performed: whoever owns the mount namespace performs them.

A life: prepare → (mount, write, unmount) → commit or discard. Or, for a layer that comes as a tar:
staging → (unpack) → commit. A committed snapshot appears by one rename, so it
is whole or not there, after any crash; after a power cut, only if it had been written out (see `settling`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from nbcontain.errors import InUse, StoreError
from nbcontain.oci.codec import LAYER_LIMIT
from nbcontain.oci.digest import ChainID, Digest, chain_id
from nbcontain.oci.image import Layer
from nbcontain.oci.spec import Mount
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.store.owners import LIMIT_BYTES
from nbcontain.store.settling import Settling, Witness
from nbcontain.store.whiteouts import is_opaque, opaque_xattr
from nbcontain.values import dataclass

OWNERS = "owners"
_KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Active:
    """A writable snapshot, and the mounts that show it."""

    key: str
    parent: ChainID | None
    mounts: tuple[Mount, ...]


class Staging:
    """A directory that a layer is unpacked into, and that becomes a committed snapshot."""

    def __init__(self, snapshotter: OverlaySnapshotter, directory: Path) -> None:
        self._snapshotter = snapshotter
        self._directory = directory
        files.make_new_directory(directory / "layer")
        self._witness: Witness | None = Witness.of(directory / "layer")
        files.make_new_directory(self.fs, 0o755)

    @property
    def fs(self) -> Path:
        """What the layer's root becomes: empty, 0755."""
        return self._directory / "layer" / "fs"

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """The layer alone as a root, writable."""
        return _bind(self.fs, "rw")

    @contextmanager
    def ledger(self, *, wanted: bool) -> Iterator[tuple[int, ...]]:
        """The file for owners that nothing else can hold, open to be written; none unless it is `wanted`."""
        with _open_ledger(self._directory / "layer" / OWNERS, wanted=wanted) as found:
            yield found

    def commit(self, name: ChainID, parent: ChainID | None) -> None:
        """Give it its name; idempotent: if a twin was quicker, this one is thrown away."""
        layer = self._directory / "layer"
        files.write_new(layer / "parent", _parent_bytes(parent))
        witness, self._witness = self._witness, None
        self._snapshotter.publish(layer, name, witness)

    def close(self) -> None:
        """Nothing is committed any more; idempotent."""
        if self._witness is not None:
            self._witness.close()
            self._witness = None


class OverlaySnapshotter:
    """Snapshots as overlayfs' layers. `userxattr` is for mounts in a user namespace (overlayfs.rst#userxattr).

    `remove_tree` removes what this process may not: in a rootless store, files of subordinate ids.
    """

    def __init__(self, layout: Layout, remove_tree: Callable[[Path], None], userxattr: bool) -> None:
        self.userxattr = userxattr
        self._layout = layout
        self._remove_tree = remove_tree
        self._settling = Settling(layout)

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
        return self._settling.is_sound(self._layout.snapshot(name))

    def has(self, layers: Sequence[Layer]) -> bool:
        """Whether there is a snapshot for every layer of this stack, lowest first."""
        name: ChainID | None = None
        for layer in layers:
            name = chain_id(name, layer.diff_id)
            if not self.exists(name):
                return False
        return True

    def publish(self, directory: Path, name: ChainID, witness: Witness | None = None) -> bool:
        """Make a finished directory that snapshot; False if a twin has the name already. Closes the witness."""
        target = self._layout.snapshot(name)
        if target.is_dir() and not self._settling.is_sound(target):
            # A power cut came before it was written out. Whoever comes to this line at the same time may have put a
            # sound one in its place by now, which somebody stands on.
            self._take_away_committed(target, unless=self._settling.is_sound)
        return self._settling.publish(directory, target, witness)

    def settle(self) -> None:
        """Have all that there is written out now. The caller holds the store's lock."""
        self._settling.settle(self._layout.snapshots / name for name in self.walk())

    def walk(self) -> Iterator[str]:
        """The hex of every committed snapshot's chain ID."""
        return filter(_NAME.fullmatch, sorted(os.listdir(self._layout.snapshots)))

    def parent(self, name: ChainID) -> ChainID | None:
        """What it lies on; raises StoreError if there is no such snapshot or it is damaged."""
        return self._read_parent(self._layout.snapshot(name))

    def chain(self, name: ChainID | None) -> tuple[Path, ...]:
        """The directories of the stack, topmost first; none for scratch."""
        found: list[Path] = []
        xattr = opaque_xattr(userxattr=self.userxattr)
        while name is not None:
            directory = self._layout.snapshot(name)
            if not self._settling.is_sound(directory) and directory.is_dir():
                raise StoreError(
                    f"the snapshot {name.short} does not hold",
                    why="the power went before it was written out",
                    hint="nbcontain system check --repair unpacks it again",
                )
            found.append(directory / "fs")
            if len(found) > LAYER_LIMIT:
                raise StoreError(f"more than {LAYER_LIMIT} layers under {found[0]}", why="the store is damaged")
            name = self._read_parent(directory)
            if name is not None and is_opaque(os.fsencode(found[-1]), xattr):
                # Overlayfs does not look at a layer's root for this; so the stack ends here.
                break
        return tuple(found)

    def view(self, name: ChainID | None) -> tuple[Mount, ...]:
        """The mounts that show a stack read-only. There is none for scratch: raises StoreError."""
        match self.chain(name):
            case ():
                raise StoreError("an image without layers has nothing to show")
            case (only,):
                return _bind(only, "ro")
            case lowers:
                return (self._overlay(lowers),)

    def remove(self, name: ChainID) -> None:
        """Idempotent; only for gc, which knows that nothing lies on it."""
        self._take_away_committed(self._layout.snapshot(name))

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """A place to unpack a layer; gone at the end unless it was committed. A full disk becomes DiskFull."""
        with files.disk(self._layout.root), files.temporary_directory(self._layout.tmp) as directory:
            try:
                staging = Staging(self, directory)
                try:
                    yield staging
                finally:
                    staging.close()
            finally:
                self.remove_tree(directory)

    # --- what is active ---

    def prepare(self, key: str, parent: ChainID | None, *, durable: bool = False) -> Active:
        """A new writable snapshot on `parent`; raises InUse if the key is taken.

        `durable` where something durable will stand on it: a container that is kept.
        """
        directory = self._layout.active(_checked(key))
        mounts = self._active_mounts(directory, parent)
        with files.disk(self._layout.root):
            try:
                files.make_new_directory(directory)
            except FileExistsError as error:
                raise InUse(f"the snapshot {key} exists already") from error
            try:
                # The parent first: a directory without it is known to be a crash's leftover.
                files.write_new(directory / "parent", _parent_bytes(parent), durable=durable)
                files.make_new_directory(directory / "fs", 0o755)
                files.make_new_directory(directory / "work")
                if durable:
                    self._settling.settle(each.parent for each in self.chain(parent))
                    files.sync_directory(directory)
                    files.sync_directory(self._layout.actives)
            except BaseException:
                self._take_away(directory)
                raise
        return Active(key, parent, mounts)

    def active(self, key: str) -> Active:
        """The active snapshot of that key; raises StoreError if there is none."""
        parent = self.parent_of(key)
        return Active(key, parent, self._active_mounts(self._layout.active(key), parent))

    def parent_of(self, key: str) -> ChainID | None:
        """What the active snapshot of that key stands on."""
        return self._read_parent(self._layout.active(_checked(key)))

    def actives(self) -> Iterator[str]:
        """The keys of all there are."""
        return filter(_KEY.fullmatch, sorted(os.listdir(self._layout.actives)))

    def upper(self, active: Active) -> Path:
        """The directory that holds what was changed."""
        return self._layout.active(active.key) / "fs"

    def commit(self, active: Active, name: ChainID) -> None:
        """Make it a committed snapshot for good; idempotent: a racing twin is discarded. It is mounted nowhere."""
        directory = self._layout.active(active.key)
        if self.exists(name):
            self.discard(active)
            return
        with files.disk(self._layout.root):
            self.remove_tree(directory / "work")
            if not self.publish(directory, name):
                self.discard(active)

    def ledger(self, shown: Active | ChainID | None) -> bytes:
        """What the ledgers of a snapshot and of all that it stands on say, the topmost last (see `owners`)."""
        directories = []
        if isinstance(shown, Active):
            directories.append(self._layout.active(shown.key))
            shown = shown.parent
        directories += [each.parent for each in self.chain(shown)]
        return b"".join(_ledger_in(each) for each in reversed(directories))

    def open_ledger(self, active: Active, *, wanted: bool) -> AbstractContextManager[tuple[int, ...]]:
        """The active snapshot's own ledger, to be written; none unless it is `wanted`."""
        return _open_ledger(self._layout.active(active.key) / OWNERS, wanted=wanted)

    def look(self, active: Active) -> tuple[Mount, ...]:
        """The mounts that show an active snapshot and what it stands on read-only, also while it is in use."""
        upper, lowers = self.upper(active), self.chain(active.parent)
        return (self._overlay((upper, *lowers)),) if lowers else _bind(upper, "ro")

    def discard(self, active: Active | str) -> None:
        """Throw it away, also by its key alone, when it is damaged; idempotent. The key is free at once."""
        self._take_away(self._layout.active(_checked(active.key if isinstance(active, Active) else active)))

    def is_in_use(self, name: ChainID | None) -> bool:
        """Whether an active snapshot stands on exactly this stack: a container of that image."""
        text = _parent_bytes(name)
        for key in self.actives():
            try:
                if files.read(self._layout.active(key) / "parent", 256) == text:
                    return True
            except (OSError, StoreError):
                continue
        return False

    def remove_tree(self, path: Path) -> None:
        """Remove a tree of the store, with the help of the others' ids where that takes them."""
        try:
            files.remove_tree(path)
        except PermissionError:
            self._remove_tree(path)

    # --- inside ---

    def _active_mounts(self, directory: Path, parent: ChainID | None) -> tuple[Mount, ...]:
        lowers = self.chain(parent)
        if not lowers:
            return _bind(directory / "fs", "rw")
        return (self._overlay(lowers, f"upperdir={directory / 'fs'}", f"workdir={directory / 'work'}"),)

    def _overlay(self, lowers: tuple[Path, ...], *more: str) -> Mount:
        # What the kernel turns on by itself would leave marks in the upper directory that are no OCI layer's.
        # With userxattr it knows that.
        options = ("userxattr",) if self.userxattr else ("redirect_dir=off", "metacopy=off", "index=off")
        return Mount("/", "overlay", "overlay", ("lowerdir=" + ":".join(map(str, lowers)), *more, *options))

    def _read_parent(self, directory: Path) -> ChainID | None:
        try:
            text = files.read(directory / "parent", 256).decode("ascii")
            if text == "scratch\n":
                return None
            if text.endswith("\n"):
                return ChainID(Digest.parse(text.removesuffix("\n")))
        except FileNotFoundError as error:
            raise StoreError(f"there is no snapshot {directory.name}") from error
        except (StoreError, UnicodeDecodeError):
            pass
        raise StoreError(f"the snapshot {directory.name} is damaged", why="nobody knows what it lies on")

    def _take_away(self, directory: Path) -> None:
        """Free the name at once, then remove what it named. A crash in between leaves what sweeping finds."""
        rubbish = self._rubbish()
        try:
            files.move(directory, rubbish)
        except FileNotFoundError:
            return
        self.remove_tree(rubbish)

    def _take_away_committed(self, directory: Path, unless: Callable[[Path], bool] = lambda directory: False) -> None:
        """The same for a committed snapshot, among others who do it, and who mark it as written out."""
        rubbish = self._rubbish()
        with files.lock(self._layout.snapshots_lock, exclusive=True):
            if unless(directory):
                return
            try:
                files.move(directory, rubbish)
            except FileNotFoundError:
                return
        self.remove_tree(rubbish)

    def _rubbish(self) -> Path:
        return self._layout.tmp / f".tmp-{os.urandom(8).hex()}"


def _bind(directory: Path, access: str) -> tuple[Mount, ...]:
    return (Mount("/", "bind", str(directory), ("bind", access)),)


@contextmanager
def _open_ledger(path: Path, *, wanted: bool) -> Iterator[tuple[int, ...]]:
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


def _ledger_in(directory: Path) -> bytes:
    try:
        return files.read(directory / OWNERS, LIMIT_BYTES)
    except FileNotFoundError:
        return b""


def _parent_bytes(parent: ChainID | None) -> bytes:
    return f"{parent or 'scratch'}\n".encode()


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is no name for a snapshot")
    return key
