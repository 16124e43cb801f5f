"""Room on the disk: what takes it, what may go, and taking it away. `engine.housekeeping`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nbcontain.errors import BadReference, ContainerError, ImageNotFound, InUse, StoreError
from nbcontain.events import Emit, scope
from nbcontain.filters import PRUNING, Filters, Named, chosen_containers, chosen_images
from nbcontain.oci.digest import Digest, chain_ids
from nbcontain.oci.image import Image, Layer
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Container
from nbcontain.store import gc
from nbcontain.store.gc import size_on_disk, written_bytes
from nbcontain.store.volumes import Volume
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of thing takes of the disk, docker's row of `system df`."""

    kind: str
    total: int
    active: int
    """How many of them are in use: images with a container, containers that run."""
    size_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on the disk. Sizes are of the stored layers and of what they are unpacked, as far as we may look."""

    shares: tuple[Share, ...]
    images: tuple[tuple[Reference | None, Image, int, int], ...]
    """Name, image, its bytes that no other image has, and how many containers it has."""
    containers: tuple[tuple[Container, str, int], ...]
    """Container, status, and the bytes that it wrote."""
    free_bytes: int
    """That the file system has left."""
    volumes: tuple[tuple[Volume, int, int], ...] = ()
    """Volume, how many containers have it, and its bytes."""

    def __repr__(self) -> str:
        said = ", ".join(f"{each.total} {each.kind.lower()}" for each in self.shares)
        return f"<Usage {self.size_bytes} bytes: {said}; {self.free_bytes} free>"

    @property
    def size_bytes(self) -> int:
        return sum(share.size_bytes for share in self.shares)

    @property
    def stored_bytes(self) -> int:
        """Of the images, the layers as they are stored, each once: what the list of images counts."""
        layers = (layer for _, image, *_ in self.images for layer in image.manifest.layers)
        return sum({layer.digest: layer.size for layer in layers}.values())


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went: containers' ids, and a line for every image as docker has it; and the room that it gave back."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    size_bytes: int = 0
    volumes: tuple[str, ...] = ()


class Housekeeping:
    """Looks after the disk of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- what there is ---

    def usage(self) -> Task[Usage]:
        """What is on the disk, measured now: every unpacked file is looked at."""

        def body(emit: Emit) -> Usage:
            with scope(emit, "df", "looking at the disk"), self._engine.store.shared():
                return self._usage()

        return Task("df", body)

    def _usage(self) -> Usage:
        engine = self._engine
        store = engine.store
        images, containers = engine.images(), [(each, each.status) for each in engine.containers()]
        counts: dict[str, int] = {}
        for container, _ in containers:
            counts[container.info.image_id] = counts.get(container.info.image_id, 0) + 1
        sizes: dict[object, int] = {digest: store.blobs.size(digest) for digest in store.blobs.walk()}
        for snapshots in store.snapshotters:
            for name in snapshots.walk():
                sizes[name] = sizes.get(name, 0) + size_on_disk(snapshots.shelf.root / name)
        by_images = _parts(image for _, image in images) | {index.digest for _, index in store.images.indexes()}
        in_use = _parts(image for _, image in images if counts.get(str(image.id)))
        for container, _ in containers:
            in_use |= self._below(container)
        by_builds = self._kept_by_builds() - by_images - in_use
        rest = sizes.keys() - by_images - by_builds - in_use
        wrote = [(each, status, written_bytes(store.written_at(each.id))) for each, status in containers]
        mounts = sum(size_on_disk(path) for path, _ in store.cache_mounts.walk())
        mounts += size_on_disk(store.layout.downloads) + size_on_disk(store.layout.contexts)
        cached = _sum(sizes, by_builds) + mounts
        records = sum(1 for _ in store.cache.walk())
        unique = {image.id for _, image in images}
        uses = engine.volumes.uses()
        volumes = tuple(
            (each, len(uses.get(each.name, ())), engine.volumes.size_bytes(each)) for each in engine.volumes
        )
        shares = [
            Share("Images", len(unique), sum(1 for each in unique if counts.get(str(each))),
                  _sum(sizes, by_images | (in_use & sizes.keys())), _sum(sizes, by_images - in_use)),
            Share("Containers", len(wrote), sum(status == "running" for _, status, _ in wrote),
                  sum(size for *_, size in wrote), sum(size for _, status, size in wrote if status != "running")),
            Share("Local Volumes", len(volumes), sum(links > 0 for _, links, _ in volumes),
                  sum(size for *_, size in volumes), sum(size for _, links, size in volumes if not links)),
            Share("Build Cache", records, 0, cached, cached),
        ]  # fmt: skip
        if leftover := _sum(sizes, rest):
            # What lost its last user; the next collection takes it.
            shares.append(Share("Unused Layers", len(rest), 0, leftover, leftover))
        users: dict[Digest, set[Digest]] = {}
        for _, image in images:
            for layer in image.manifest.layers:
                users.setdefault(layer.digest, set()).add(image.id)
        listed = tuple(
            (name, image, sum(layer.size for layer in image.manifest.layers if users[layer.digest] == {image.id}),
             counts.get(str(image.id), 0))
            for name, image in images
        )  # fmt: skip
        free = os.statvfs(engine.layout.root)
        return Usage(tuple(shares), listed, tuple(wrote), free.f_bavail * free.f_frsize, volumes)

    def _below(self, container: Container) -> set[object]:
        """The snapshots that a container stands on."""
        found: set[object] = set()
        with suppress(StoreError, OSError):
            snapshots = self._engine.store.snapshots_of(container.id)
            below = snapshots.parent_of(container.id)
            while below is not None:
                found.add(below.hex)
                below = snapshots.parent(below)
        return found

    def _kept_by_builds(self) -> set[object]:
        store = self._engine.store
        found: set[object] = set()
        for digest, _ in store.cache.walk():
            if (record := store.cache.peek(digest)) is not None:
                found |= _of_layers(record.layers)
        for _, build in store.builds.walk():
            for state in build.states:
                found |= _of_layers(state.layers)
        return found

    # --- what may go ---

    def unused_images(self, *, all: bool = False, filters: Sequence[str] = ()) -> list[Named]:
        """Images without a name, or `all` those that no container is made of; `filters` are docker's label=, until=."""
        asked = Filters.parse(filters, PRUNING)
        used = {each.info.image_id for each in self._engine.containers()}
        images = self._engine.images()
        found = [(name, image) for name, image in images if str(image.id) not in used and (all or name is None)]
        chosen = chosen_images(self._engine, found, asked)
        # The name of an index goes only if all its images may.
        going = {(name, image.digest) for name, image in chosen}
        needed = {name for name, image in images if name is not None and (name, image.digest) not in going}
        return [each for each in chosen if each[0] not in needed]

    def stopped_containers(self, filters: Sequence[str] = ()) -> list[Container]:
        """Containers that do not run, those included that never did. `filters` are docker's: label=, until=."""
        asked = Filters.parse(filters, PRUNING)
        idle = [each for each in self._engine.containers() if each.status != "running" and not each.bundle.is_alive()]
        return chosen_containers(self._engine, idle, asked)

    # --- taking it away ---

    def prune(
        self, *, images: bool = True, containers: bool = True, all_images: bool = False, builds: bool = False,
        volumes: bool = False, filters: Sequence[str] = (),
    ) -> Task[Pruned]:  # fmt: skip
        """Remove stopped containers, then images that nothing needs: those without a name, or `all_images` unused.

        With `builds` also what builds keep: what was not used for a week, or with `all_images` everything. Otherwise
        layers that builds may use again stay. `volumes`: the anonymous ones too, that no container has afterwards.
        """
        Filters.parse(filters, PRUNING)

        def body(emit: Emit) -> Pruned:
            with scope(emit, "prune", "removing"):
                gone: list[str] = []
                freed = 0
                for container in self.stopped_containers(filters) if containers else ():
                    size_bytes = size_on_disk(self._engine.store.written_at(container.id).parent)
                    with suppress(InUse, ContainerError):
                        # Somebody may have started it, or removed it, meanwhile.
                        self._engine.remove_container(container)
                        gone.append(container.id)
                        freed += size_bytes
                removed = self._engine.volumes.prune(filters=_of_labels(filters)) if volumes else None
                freed += removed.size_bytes if removed else 0
                lines = self._prune_images(all_images, filters) if images else []
                if builds:
                    freed += self._engine.builder.prune(0.0 if all_images else 7 * 86400.0)
                elif images:
                    freed += self.collect()
                return Pruned(tuple(gone), tuple(lines), freed, removed.volumes if removed else ())

        return Task("prune", body)

    def _prune_images(self, all_images: bool, filters: Sequence[str]) -> list[str]:
        lines: list[str] = []
        store = self._engine.store
        found = self.unused_images(all=all_images, filters=filters)
        leaving = {image.id: image for _, image in found}
        for name, _ in found:
            if name is not None:
                with suppress(ImageNotFound):
                    store.images.remove(name)
                    lines.append(f"untagged: {name.familiar}")
        for image in leaving.values():
            names = [name for name, each in self._engine.images() if name is not None and each.digest == image.digest]
            if not names:
                store.images.forget(image)
                lines.append(f"deleted: {image.id}")
        return lines

    def remove_image(self, name: str, *, force: bool = False) -> list[str]:
        """Take a name away, and the image with its last name. Says what went, as docker does.

        By id all its names go. Raises InUse, naming the containers, where the image would go and containers are made
        of it, and where an id has names in several repositories. Forced, stopped containers keep their layers, and a
        name can be taken from an image that runs.
        """
        engine = self._engine
        images = engine.images()
        if engine.store.images.find_index(name) is not None:
            # It goes as a whole, also if nothing of it is here.
            own, tags, by_name = [], [], [Reference.parse(name)]
        else:
            own = [engine.image(name)]
            tags = [reference for reference, each in images if reference and each.digest == own[0].digest]
            by_name = [reference for reference in tags if _means(name, reference)]
        leaving = list(dict.fromkeys(by_name or tags))
        staying = {each.digest for reference, each in images if reference and reference not in leaving}
        meant = {each.id: each for each in (*own, *(each for reference, each in images if reference in leaving))}
        gone_images = [each for each in meant.values() if each.digest not in staying]
        ids = {str(each.id) for each in gone_images}
        users = [each for each in engine.containers() if each.info.image_id in ids]
        if users:
            _refuse_used(name, users, force=force, by_name=bool(by_name))
        if not by_name and len({each.familiar_repository for each in tags}) > 1 and not force:
            raise InUse(
                f"{name} has names in several repositories", why=", ".join(each.familiar for each in tags),
                hint=f"rmi -f {name} removes all of them, or name those that are to go",
            )  # fmt: skip
        gone = [f"Untagged: {reference.familiar}" for reference in leaving]
        for reference in leaving:
            engine.store.images.remove(reference)
            about = str(next(iter(meant.values())).id) if meant else reference.familiar
            engine.events.record("image", "untag", about, {"name": reference.familiar})
        needed = {each.info.image_id for each in users}
        for image in gone_images:
            if str(image.id) not in needed:
                engine.store.images.forget(image)
                gone.append(f"Deleted: {image.id}")
                engine.events.record("image", "delete", str(image.id), {"name": str(image.id)})
        if gone_images or not own:
            self.collect(wait=False)
        return gone

    def collect(self, *, wait: bool = True) -> int:
        """Remove what no image and no container needs, dangling images kept; the bytes of it.

        Not to `wait` for others is to leave it to the next one.
        """
        return gc.collect(self._engine.store, self._engine.owners, dangling=False, wait=wait).size_bytes


def _of_labels(filters: Sequence[str]) -> list[str]:
    """Of a prune's filters those that speak of volumes."""
    return [each for each in filters if each.lower().startswith("label")]


def _refuse_used(name: str, users: Sequence[Container], *, force: bool, by_name: bool) -> None:
    """Raise InUse, unless it is forced and may be."""
    running = [each for each in users if each.status == "running"]
    if force and (by_name or not running):
        return
    steps = [f"%container stop {' '.join(each.name for each in running)}"] * bool(running)
    steps.append(f"%container rm {' '.join(each.name for each in users)}")
    can_force = by_name or not running
    raise InUse(
        f"{name} is in use",
        why="containers are made of it: " + ", ".join(f"{each.name} ({each.status})" for each in users),
        hint=("stop and remove them first:  " if running else "remove them first:  ") + "; ".join(steps)
        + ("   (or rmi -f: the containers keep their layers)" if can_force else ""),
    )  # fmt: skip


def _means(name: str, reference: Reference) -> bool:
    try:
        return Reference.parse(name) == reference
    except BadReference:
        return False


def _parts(images: Iterable[Image]) -> set[object]:
    """Blobs, by digest, and snapshots, by the hex of their chain ID, that these images are made of."""
    found: set[object] = set()
    for image in images:
        found |= {image.digest, image.id, *_of_layers(image.layers)}
    return found


def _of_layers(layers: Sequence[Layer]) -> set[object]:
    def parts() -> Iterator[object]:
        for layer, name in zip(layers, chain_ids(layer.diff_id for layer in layers), strict=True):
            yield layer.descriptor.digest
            yield name.hex

    return set(parts())


def _sum(sizes: dict[object, int], parts: Iterable[object]) -> int:
    return sum(sizes.get(part, 0) for part in parts)
