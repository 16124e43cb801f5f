"""The disk, seen whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from nbcontain.errors import StoreError, WrongFormatVersion
from nbcontain.linux import boot
from nbcontain.oci import codec
from nbcontain.oci.digest import ChainID
from nbcontain.oci.image import Index
from nbcontain.store import events_log, files, removal, spare
from nbcontain.store.blobs import Blobs
from nbcontain.store.builds import BuildRecords
from nbcontain.store.cache import BuildCache
from nbcontain.store.cache_mounts import CacheMounts
from nbcontain.store.copying import CopySnapshotter, CopyTree, Shown
from nbcontain.store.images import Images
from nbcontain.store.layout import FORMAT_VERSION, Layout
from nbcontain.store.overlay import OverlaySnapshotter
from nbcontain.store.rooted_links import RootedLinks
from nbcontain.store.snapshots import Driver, Snapshotter, Worker
from nbcontain.store.volumes import Volumes
from nbcontain.store.write_back import WriteBack, recorded_boot

_NOTHING: Mapping[str, str] = MappingProxyType({})
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def _copy_tree(
    root: Path, source: Path, target: Path, index: Path | None, *, linked: bool, links: RootedLinks | None = None
) -> bool:
    """Of a store whose files are all its user's own."""
    from nbcontain.store.clone import copy_tree

    return copy_tree(root, source, target, index, linked=linked, links=links)


class Store:
    """What each module of this folder keeps, under one root and one lock."""

    def __init__(
        self, layout: Layout, remove_tree: Callable[[Path], None], userxattr: bool, driver: Callable[[], Driver],
        copy_tree: CopyTree,
        shown: Shown,
    ) -> None:  # fmt: skip
        self.layout = layout
        self.overlays = OverlaySnapshotter(layout, remove_tree, userxattr)
        self.trees = CopySnapshotter(layout, remove_tree, copy_tree, shown)
        self._driver = driver
        self.write_back = WriteBack(layout)
        self.blobs = Blobs(layout, self.write_back)
        self.images = Images(layout, self.blobs, self.write_back, self._is_in_use)
        self.cache = BuildCache(layout, self.blobs)
        self.cache_mounts = CacheMounts(layout)
        self.builds = BuildRecords(layout)
        self.volumes = Volumes(layout, self.overlays.remove_tree)

    def _is_in_use(self, name: ChainID | None) -> bool:
        return any(each.is_in_use(name) for each in self.snapshotters)

    @cached_property
    def snapshots(self) -> Snapshotter:
        """The kind that is made here. Asked for first when something is to be made or looked at."""
        return self.overlays if self._driver() == "overlay" else self.trees

    @property
    def snapshotters(self) -> tuple[Snapshotter, ...]:
        """Both kinds: a store may hold what was made under another kernel, or by another setting."""
        return (self.overlays, self.trees)

    def close(self) -> None:
        """Write nothing in the background any more; what is asked for later is done all the same."""
        for each in self.snapshotters:
            each.close()
        self.write_back.close()

    def snapshots_of(self, key: str) -> Snapshotter:
        """The kind that the active snapshot of that key is; where there is none, the kind that would be made."""
        return next((each for each in self.snapshotters if each.has(key)), self.snapshots)

    @classmethod
    def open(
        cls,
        root: Path,
        remove_tree: Callable[[Path], None] = removal.remove_tree,
        userxattr: bool = False,
        *,
        driver: Callable[[], Driver] = lambda: "overlay",
        copy_tree: CopyTree = _copy_tree,
        shown: Shown = lambda: None,
    ) -> Store:
        """The store at `root`, which is made if there is none.

        Raises WrongFormatVersion, DiskFull, and StoreError where no store can be. `remove_tree` is
        asked to remove what this process may not, `copy_tree` to copy a snapshot; `userxattr` is said of overlay mounts
        made for it. `driver` is asked, once, which kind of snapshots is to be made,
        and `shown` for whom (see `copying`).
        """
        layout = Layout(root.absolute())
        if any(character in str(layout.root) for character in ":\\\n,"):
            raise StoreError(
                f"no store can be at {str(layout.root)!r}",
                why="overlayfs reads : and \\ and , in a path as something else",
                hint="Set NBCONTAIN_ROOT to a directory with a plainer name.",
            )
        try:
            with files.disk(layout.root):
                _check_version(layout)
                _make(layout)
        except OSError as error:
            raise StoreError(
                f"no store can be at {layout.root}",
                why=f"{error.strerror}: {error.filename}" if error.filename else error.strerror or "",
                hint="Set NBCONTAIN_ROOT to a directory of yours.",
            ) from error
        store = cls(layout, remove_tree, userxattr, driver, copy_tree, shown)
        if (last := recorded_boot(layout)) and last != boot.boot_id():
            from nbcontain.store.recovery import recover

            recover(store)
        return store

    def written_at(self, key: str) -> Path:
        """The directory that the container or step of that key writes to. A whole tree holds its image's files too."""
        snapshots = self.snapshots_of(key)
        return snapshots.shelf.active(key) / "fs"

    def tell(self, kind: str, action: str, object_id: str, attributes: Mapping[str, str] = _NOTHING) -> None:
        """Tell of an event (see `events_log`)."""
        events_log.record(self.layout.events, kind, action, object_id, attributes)

    def shared(self) -> AbstractContextManager[object]:
        """Held by whoever uses things, so that gc leaves them alone; waits for a running gc."""
        return files.lock(self.layout.lock, exclusive=False)

    @contextmanager
    def exclusive(self, *, wait: bool = True) -> Iterator[bool]:
        """Held by gc. Waits for all users, or without `wait` gives False at once while there are any."""
        if wait:
            with files.lock(self.layout.lock, exclusive=True):
                yield True
        elif (fd := files.try_lock(self.layout.lock)) is None:
            yield False
        else:
            try:
                yield True
            finally:
                os.close(fd)

    def changes(self, key: str, worker: Worker, skip: Iterable[str] = ()) -> list[tuple[str, str]]:
        """What a container changed of its image, as docker says it: (A, C or D, absolute path). `skip` as in `tar_of`.

        The worker reads it with the snapshots as its root, since a running container could lead a path elsewhere.
        """
        snapshots = self.snapshots_of(key)
        changes = snapshots.differences(snapshots.active(key))
        fields = {"userxattr": snapshots.userxattr, "skip": list(skip), **changes.arguments}
        with changes.opened() as more:
            answer = worker.call("changes", changes.root, fields, more, source=changes.below)
        return sorted(((letter, path) for letter, path in answer["changes"]), key=lambda change: change[1])

    @contextmanager
    def bundle_directory(self) -> Iterator[Path]:
        """A path for the bundle of something short, not made yet; what is there at the end is removed."""
        with files.disk(self.layout.root), files.temporary_directory(self.layout.tmp) as directory:
            try:
                yield directory / "bundle"
            finally:
                self.overlays.remove_tree(directory)


def _check_version(layout: Layout) -> None:
    try:
        found = files.read(layout.version, 64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return
    if found != FORMAT_VERSION:
        raise WrongFormatVersion(
            f"the store at {layout.root} has format {found!r}",
            why=f"this version of nbcontain reads format {FORMAT_VERSION!r}",
            hint="Use the version that made it, or set NBCONTAIN_ROOT to another directory.",
        )


def _make(layout: Layout) -> None:
    """What every store has; idempotent, also among processes. The version comes last: it says that all is there."""
    if layout.version.exists():
        return
    # All 0700: images hold set-user-ID programs, and other people's secrets.
    for directory in (layout.blobs / "sha256", layout.actives, layout.cache, layout.containers, layout.tmp):
        files.make_directory(directory)
    with files.lock(layout.index_lock, exclusive=True):
        if not layout.index.exists():
            files.replace(layout.index, codec.dump_index(Index(())), 0o644)
        spare.keep(layout)
        files.replace(layout.oci_layout, OCI_LAYOUT, 0o644)
        files.replace(layout.version, f"{FORMAT_VERSION}\n".encode())
