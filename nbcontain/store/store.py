"""The disk, seen whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from nbcontain.errors import StoreError, WrongFormatVersion
from nbcontain.oci import codec
from nbcontain.oci.image import Index
from nbcontain.oci.spec import Mount
from nbcontain.store import files
from nbcontain.store.blobs import Blobs
from nbcontain.store.builds import BuildRecords
from nbcontain.store.cache import BuildCache
from nbcontain.store.cache_mounts import CacheMounts
from nbcontain.store.images import Images
from nbcontain.store.layout import FORMAT_VERSION, Layout
from nbcontain.store.snapshots import OverlaySnapshotter

_OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Worker(Protocol):
    """Who runs one of our functions confined to a root file system: runtime's Launcher."""

    def call(
        self, function: str, rootfs: Sequence[Mount], arguments: dict[str, Any], fds: Sequence[int] = (), /
    ) -> dict[str, Any]: ...


class Store:
    """What each module of this folder keeps, under one root and one lock."""

    def __init__(self, layout: Layout, remove_tree: Callable[[Path], None], userxattr: bool) -> None:
        self.layout = layout
        self.blobs = Blobs(layout)
        self.snapshots = OverlaySnapshotter(layout, remove_tree, userxattr)
        self.images = Images(layout, self.blobs, self.snapshots.is_in_use)
        self.cache = BuildCache(layout, self.blobs)
        self.cache_mounts = CacheMounts(layout)
        self.builds = BuildRecords(layout)

    @classmethod
    def open(
        cls, root: Path, remove_tree: Callable[[Path], None] = files.remove_tree, userxattr: bool = False
    ) -> Store:
        """The store at `root`, which is made if there is none.

        Raises WrongFormatVersion, DiskFull, and StoreError where no store can be. `remove_tree` is
        asked to remove what this process may not; `userxattr` is said of overlay mounts made for it.
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
        return cls(layout, remove_tree, userxattr)

    def shared(self) -> AbstractContextManager[None]:
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
        lowers = self.snapshots.chain(self.snapshots.parent_of(key))
        answer = worker.call(
            "changes",
            (Mount("/", "bind", str(self.layout.snapshots), ("bind", "ro")),),
            {
                "upper": f"/active/{key}/fs",
                "lowers": [f"/{lower.relative_to(self.layout.snapshots)}" for lower in lowers],
                "userxattr": self.snapshots.userxattr,
                "skip": list(skip),
            },
            (),
        )
        return [(letter, path) for letter, path in answer["changes"]]

    @contextmanager
    def bundle_directory(self) -> Iterator[Path]:
        """A path for the bundle of something short, not made yet; what is there at the end is removed."""
        with files.disk(self.layout.root), files.temporary_directory(self.layout.tmp) as directory:
            try:
                yield directory / "bundle"
            finally:
                self.snapshots.remove_tree(directory)


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
        files.replace(layout.oci_layout, _OCI_LAYOUT, 0o644)
        files.replace(layout.version, f"{FORMAT_VERSION}\n".encode())
