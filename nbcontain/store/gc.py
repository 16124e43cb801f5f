"""Removing what nothing needs: mark from the roots, sweep the rest, under the store's exclusive lock.

Roots are the images of index.json, the containers, and build cache records that were used lately.
Whoever is in the middle of using something holds the store's lock shared; so once it is held
exclusively, an active snapshot that no container owns is what a crash left behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import StoreError
from nbcontain.oci.digest import ChainID, Digest, chain_ids
from nbcontain.oci.image import Layer
from nbcontain.store import files, ingest
from nbcontain.store.layout import INDEX_LIMIT
from nbcontain.store.listed import names_more
from nbcontain.store.write_back import recorded_index
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.store.snapshots import Snapshotter
    from nbcontain.store.store import Store


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed. `size_bytes` is the room that it gave back, as far as it could be measured."""

    images: int = 0
    blobs: int = 0
    snapshots: int = 0
    actives: int = 0
    cache_records: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Marks:
    blobs: set[Digest]
    snapshots: set[str]

    def take(self, layers: Collection[Layer]) -> None:
        self.blobs.update(layer.descriptor.digest for layer in layers)
        self.snapshots.update(name.hex for name in chain_ids(layer.diff_id for layer in layers))

    def take_all(self, stacks: Iterable[Collection[Layer]]) -> None:
        for layers in stacks:
            self.take(layers)


def collect(
    store: Store,
    containers: Callable[[], Collection[str]],
    *,
    cache_max_age_s: float = 7 * 86400.0,
    dangling: bool = True,
    wait: bool = True,
) -> Collected:
    """Sweep the store. `containers` gives the keys of active snapshots that have an owner, once nobody can make one.

    Waits for all users, or without `wait` does nothing while there are any. `dangling` drops images
    without a name and without a container first. Safe to interrupt at any line: what is half swept
    is swept by the next collection.
    """
    with store.exclusive(wait=wait) as is_held:
        if not is_held:
            return Collected()
        actives, freed = _sweep_actives(store, containers())
        dropped = store.images.drop_dangling() if dangling else 0
        settled = recorded_index(store.layout)
        if settled is not None and names_more(settled, files.read(store.layout.index, INDEX_LIMIT)):
            # A power cut would bring back what is collected now.
            store.write_back.settle()
        marks = _Marks(set(), set())
        for _, image in store.images.list():
            marks.blobs |= {image.digest, image.id}
            marks.take(image.layers)
        for _, index in store.images.indexes():
            # Of a damaged image in it, what is there stays for repair.
            marks.blobs |= {index.digest, *(entry.digest for entry in index.entries)}
        for snapshots in store.snapshotters:
            for key in snapshots.actives():
                with suppress(StoreError):
                    # Of one without a parent nobody knows what it needs; its container will say so when it is started.
                    _mark_stack(snapshots, snapshots.parent_of(key), marks)
        records = _sweep_cache(store, cache_max_age_s, marks)
        freed += _sweep_cache_mounts(store, cache_max_age_s)
        records += store.builds.remove_old(cache_max_age_s)
        for _, build in store.builds.walk():
            marks.take_all(state.layers for state in build.states)
        blobs = removed = 0
        for snapshots in store.snapshotters:
            # Upper layers before lower ones, so that a stack never stands on nothing.
            for name in _topmost_first(snapshots, [hex for hex in snapshots.walk() if hex not in marks.snapshots]):
                freed += size_on_disk(snapshots.shelf.snapshot(name))
                snapshots.remove(name)
                removed += 1
        for digest in list(store.blobs.walk()):
            if digest not in marks.blobs:
                freed += store.blobs.size(digest)
                store.blobs.remove(digest)
                blobs += 1
        freed += ingest.sweep(store.layout)
        freed += sweep(store)
        return Collected(dropped, blobs, removed, actives, records, freed)


def sweep(store: Store) -> int:
    """Remove what a process left that was killed while it made something; the bytes that it held.

    At any time: what somebody makes is locked.
    """
    freed = 0
    for directory in (store.layout.tmp, store.layout.cache, store.layout.oci, store.layout.root):
        for path in files.sweep(directory):
            freed += size_on_disk(path)
            store.overlays.remove_tree(path)
    return freed


def _sweep_actives(store: Store, containers: Collection[str]) -> tuple[int, int]:
    """Remove active snapshots without an owner; how many, and how large."""
    count = freed = 0
    owned = frozenset(containers)
    for snapshots in store.snapshotters:
        for name in snapshots.entries():
            if name in owned:
                continue
            path = snapshots.shelf.active(name)
            freed += size_on_disk(path)
            snapshots.remove_tree(path)
            count += 1
    return count, freed


def _mark_stack(snapshots: Snapshotter, name: ChainID | None, marks: _Marks) -> None:
    """A container needs its layers' snapshots; their blobs only an image needs."""
    while name is not None and name.hex not in marks.snapshots:
        marks.snapshots.add(name.hex)
        try:
            name = snapshots.parent(name)
        except StoreError:
            # Damaged already; the container will say so when it is started.
            return


def _sweep_cache(store: Store, max_age_s: float, marks: _Marks) -> int:
    """Drop old records, mark what the others need; how many were dropped."""
    count, now = 0, time.time()
    for key, used in list(store.cache.walk()):
        if now - used >= max_age_s:
            store.cache.remove(key)
            count += 1
            continue
        record = store.cache.peek(key)
        if record is None:
            count += 1
        else:
            marks.take(record.layers)
    return count


def _sweep_cache_mounts(store: Store, max_age_s: float) -> int:
    """Remove what no build used lately of cache mounts, downloads and what is known of contexts; how large it was."""
    freed, now = 0, time.time()
    for place in (store.layout.downloads, store.layout.contexts):
        with suppress(FileNotFoundError):
            for entry in list(os.scandir(place)):
                if entry.name != "lock" and now - entry.stat().st_ctime >= max_age_s:
                    freed += entry.stat().st_size
                    files.unlink(Path(entry.path))
    for path, used in list(store.cache_mounts.walk()):
        if now - used >= max_age_s:
            freed += size_on_disk(path)
            store.overlays.remove_tree(path)
    return freed


def _topmost_first(snapshots: Snapshotter, names: list[str]) -> list[ChainID]:
    """Snapshots in an order in which each comes before the one it lies on."""
    doomed = {name: ChainID(Digest("sha256", name)) for name in names}
    depth: dict[str, int] = {}
    for name in doomed:
        above: list[str] = []
        current: str | None = name
        while current is not None and current in doomed and current not in depth and current not in above:
            above.append(current)
            try:
                parent = snapshots.parent(doomed[current])
            except StoreError:
                parent = None
            current = parent.hex if parent else None
        base = depth.get(current, 0) if current is not None else 0
        for number, each in enumerate(reversed(above), start=1):
            depth[each] = base + number
    return [doomed[name] for name in sorted(doomed, key=lambda each: -depth[each])]


def written_bytes(directory: Path) -> int:
    """The bytes of the files under a directory, as far as this process may look: what a container wrote."""
    total, waiting = 0, [directory]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def size_on_disk(path: Path) -> int:
    """Bytes on disk under `path`, as far as this process may look."""
    total, waiting = 0, [path]
    while waiting:
        current = waiting.pop()
        with suppress(OSError):
            status = os.lstat(current)
            total += status.st_blocks * 512 // max(1, status.st_nlink if not current.is_dir() else 1)
            if not current.is_symlink() and current.is_dir():
                waiting += [Path(entry.path) for entry in os.scandir(current)]
    return total
