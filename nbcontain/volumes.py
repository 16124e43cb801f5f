"""Volumes: making, listing, removing, carrying elsewhere. `engine.volumes`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from nbcontain.errors import InUse, StoreError, UsageError, VolumeNotFound
from nbcontain.events import Emit, scope
from nbcontain.filters import VOLUMES, Filters
from nbcontain.oci.image import timestamp
from nbcontain.oci.spec import Mount
from nbcontain.runtime.container import Container
from nbcontain.runtime.mount_points import WORK, checked_driver
from nbcontain.store.gc import size_on_disk
from nbcontain.store.volumes import Volume, checked_name, checked_options, options_shown
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, slots=True)
class Use:
    """A container that uses a volume, and where it has it."""

    container: Container
    target: str
    is_readonly: bool

    def __str__(self) -> str:
        return f"{self.container.name} ({self.container.status})"


@dataclass(frozen=True, slots=True)
class Removed:
    """What a prune took away, and the room that it gave back."""

    volumes: tuple[str, ...]
    size_bytes: int


class Volumes:
    """The volumes of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # --- what a user asks ---

    def all(self, filters: Sequence[str] = ()) -> list[Volume]:
        """Every volume, by name. `filters` are docker's: dangling=, driver=, label=, name=."""
        asked = Filters.parse(filters, VOLUMES)
        found = self.engine.store.volumes.all()
        if names := asked.all("name"):
            found = [each for each in found if any(part in each.name for part in names)]
        if drivers := asked.all("driver"):
            found = [each for each in found if each.driver in drivers]
        if asked.all("label") or asked.all("label!"):
            found = [each for each in found if asked.labels_hold(each.labels)]
        if (dangling := asked.flag("dangling")) is not None:
            uses = self.uses()
            found = [each for each in found if (each.name not in uses) == dangling]
        return found

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises VolumeNotFound."""
        return self.engine.store.volumes.get(name)

    def __getitem__(self, name: str) -> Volume:
        return self.get(name)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self.all())

    def create(
        self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:  # fmt: skip
        """A volume of that name, which may be there already. Raises UsageError for options that are not local's."""
        checked_driver(driver)
        given = checked_options(options or {})
        if name and self.engine.store.volumes.exists(checked_name(name)) and given:
            there = self.get(name)
            if dict(there.options) != given:
                raise UsageError(
                    f"there is a volume {name} already", why=f"its options are {options_shown(there.options)}",
                    hint=f"%volume rm {name}, or choose another name",
                )  # fmt: skip
        is_new = not name or not self.engine.store.volumes.exists(name)
        with self.engine.store.shared():
            made = self.engine.store.volumes.create(name, created=timestamp(), labels=labels or {}, options=given)
        if is_new:
            self.engine.events.record("volume", "create", made.name, {"driver": made.driver})
        return made

    def uses(self) -> dict[str, list[Use]]:
        """By volume, the containers that have it, running or not."""
        found: dict[str, list[Use]] = {}
        for container in self.engine.containers():
            for each in container.info.mounts:
                if each.get("Type") == "volume":
                    use = Use(container, str(each["Destination"]), not each.get("RW", True))
                    found.setdefault(str(each["Name"]), []).append(use)
        return found

    def remove(self, name: str) -> None:
        """Remove a volume with all its files. Raises VolumeNotFound, and InUse with the containers that have it."""
        with self.engine.store.shared():
            self.engine.store.volumes.remove(name, lambda: self._users(name))
        self.engine.events.record("volume", "destroy", name, {"driver": "local"})

    def _users(self, name: str) -> list[str]:
        return [str(each) for each in self.uses().get(name, ())]

    def unused(self, *, all: bool = False, filters: Sequence[str] = ()) -> list[Volume]:
        """Volumes that no container has: the anonymous ones, or `all`. `filters` are label= and all=."""
        asked = Filters.parse(filters, ("label", "label!", "all"))
        uses, everything = self.uses(), all or bool(asked.flag("all"))
        return [
            each for each in self.engine.store.volumes.all()
            if each.name not in uses and (everything or each.is_anonymous) and asked.labels_hold(each.labels)
        ]  # fmt: skip

    def prune(self, *, all: bool = False, filters: Sequence[str] = ()) -> Removed:
        """Remove the volumes that no container has: the anonymous ones, or `all`."""
        gone, freed = [], 0
        for volume in self.unused(all=all, filters=filters):
            size_bytes = size_on_disk(volume.directory)
            with suppress(InUse, VolumeNotFound):
                self.remove(volume.name)
                gone.append(volume.name)
                freed += size_bytes
        return Removed(tuple(gone), freed)

    def export(self, name: str, destination: str) -> Task[Volume]:
        """Write everything in a volume as one tar, to a file or to standard output ("-")."""

        def body(emit: Emit) -> Volume:
            from nbcontain.store.destinations import opened
            from nbcontain.store.pipes import piped, poured

            volume = self._with_files(name, "exported")
            engine = self.engine
            with scope(emit, "export", f"export {name}"), engine.store.shared(), opened(destination) as write:
                piped(
                    lambda pipe: engine.launcher.call(
                        "export_volume", bind_of(volume, "ro"), {}, (pipe,), imports=(WORK,)
                    ), poured(write),
                )  # fmt: skip
            return volume

        return Task("export", body)

    def import_(self, name: str, source: str) -> Task[Volume]:
        """Unpack a tar, plain or compressed, into a volume: what is there is merged with. Raises BadArchive."""

        def body(emit: Emit) -> Volume:
            volume = self._with_files(name, "imported into")
            engine = self.engine
            with scope(emit, "import", f"import into {name}"), engine.store.shared(), _opened(source) as fd:
                engine.launcher.call("import_volume", bind_of(volume, "rw"), {}, (fd,),
                                     imports=(WORK, "nbcontain.build.decompressors"))  # fmt: skip
            return volume

        return Task("import", body)

    def _with_files(self, name: str, what: str) -> Volume:
        volume = self.get(name)
        if volume.options:
            raise UsageError(
                f"the volume {name} cannot be {what}", why=f"its files are elsewhere: {options_shown(volume.options)}"
            )
        return volume

    def size_bytes(self, volume: Volume) -> int:
        """What it takes of the disk, as far as this process may look."""
        return size_on_disk(volume.data)

    # --- containers ---

    def release(self, container: Container) -> list[str]:
        """Remove the anonymous volumes of a container that was removed, but for those that others use."""
        gone = []
        for name in container.info.anonymous_volumes:
            with suppress(InUse, VolumeNotFound, StoreError):
                self.remove(name)
                gone.append(name)
        return gone

    def sweep(self) -> None:
        """Remove what died with its container (--rm), and finish what was cut off. Under gc's lock."""
        volumes = self.engine.store.volumes
        there = {each.id for each in self.engine.containers()}
        for each in volumes.all():
            if each.container and each.container not in there:
                with suppress(InUse, VolumeNotFound):
                    volumes.remove(each.name, lambda name=each.name: self._users(name))  # type: ignore[misc]


def bind_of(volume: Volume, access: str) -> tuple[Mount, ...]:
    """A volume as a worker's root."""
    return (Mount("/", "bind", str(volume.data), ("bind", access)),)


@contextmanager
def _opened(source: str) -> Iterator[int]:
    if source == "-":
        yield sys.stdin.fileno()
        return
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"cannot read {source}", why=error.strerror or "") from error
    with file:
        yield file.fileno()
