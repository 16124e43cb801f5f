"""The containers of a store by name: what their directories say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from nbcontain.errors import AmbiguousContainer, ContainerNotFound, NameTaken, StoreError, did_you_mean
from nbcontain.runtime.bundle import Bundle, ContainerInfo
from nbcontain.runtime.container import Container
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.runtime.bundle_writer import Put

C = TypeVar("C", bound=Container)
_RACY_NS, _COARSE_NS = 20_000_000, 2_000_000_000
"""A file changed this shortly before it was read may change again within its time stamp's grain: ten milliseconds at
most where the stamp has parts of a second, a second or two where it has none."""
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Known:
    """One container as it was when its file was read."""

    path: Path
    seen: tuple[int, ...]
    info: ContainerInfo


class Containers(Generic[C]):
    """Finds containers, and keeps their names unique, among any number of processes."""

    def __init__(self, layout: Layout, handle: Callable[[Bundle], C]) -> None:
        self._layout = layout
        self._handle = handle
        self._known: dict[str, _Known] = {}
        """What container.json of each said. Only what can no longer change without a trace is kept."""

    def all(self) -> list[C]:
        """Every container that is whole, newest first."""
        ids, now_ns = self._ids(), time.time_ns()
        found = [each for each in (self._container(container_id, now_ns) for container_id in ids) if each is not None]
        return sorted(found, key=lambda each: each.info.created, reverse=True)

    def _ids(self) -> list[str]:
        """What there are directories of; of others nothing is remembered any more."""
        try:
            ids = os.listdir(self._layout.containers)
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise StoreError(
                f"the store at {self._layout.root} is somebody else's", why=error.strerror or "",
                hint="Set NBCONTAIN_ROOT to a directory of yours.",
            ) from error
        self._known = {container_id: known for container_id in ids if (known := self._known.get(container_id))}
        return ids

    def _container(self, container_id: str, now_ns: int) -> C | None:
        """The container of that directory; None if it is not whole, or is being removed while we look."""
        known = self._known.get(container_id)
        path = known.path if known else self._layout.container(container_id)
        seen = _seen(path)
        if not seen:
            return None
        if known is not None and known.seen == seen:
            return self._handle(Bundle(path, known.info))
        container = self._handle(Bundle(path))
        if not _is_there(container):
            return None
        changed_ns = seen[-1]
        if now_ns - changed_ns > (_RACY_NS if changed_ns % _SECOND_NS else _COARSE_NS):
            self._known[container_id] = _Known(path, seen, container.info)
        return container

    def get(self, name: str) -> C:
        """A container by name, id or the beginning of its id. Raises ContainerNotFound."""
        for container_id, each in list(self._known.items()):
            # It has the name still if its file is what it was; and no other can have it meanwhile.
            if name in (each.info.name, container_id):
                there = self._container(container_id, time.time_ns())
                if there is not None and name in (there.name, there.id):
                    return there
        known = self.all()
        for container in known:
            if name in (container.name, container.id):
                return container
        matching = [each for each in known if name and each.id.startswith(name)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise AmbiguousContainer(
                f"{name} is the beginning of {len(matching)} containers' ids", hint="give more of it"
            )
        hint = did_you_mean(name, (each.name for each in known), "%container ps -a lists all there are")
        raise ContainerNotFound(f"there is no container {name!r}", hint=hint)

    def sweep(self, remove_tree: Callable[[Path], None]) -> None:
        """Remove the bundles whose writer died over them. Only while nobody can be writing one: under gc's lock."""
        for name in os.listdir(self._layout.containers):
            bundle = Bundle(self._layout.container(name))
            if not bundle.is_alive():
                bundle.end_orphan()
                if not bundle.is_whole():
                    bundle.remove(remove_tree)

    def rename(self, container: Container, name: str) -> None:
        """Give it a name that no other has. Raises NameTaken."""
        with files.lock(self._layout.names_lock, exclusive=True):
            self.refuse_taken(name)
            container.bundle.write_info(name=name)

    def refuse_taken(self, name: str) -> None:
        """Raises NameTaken if one has this name; only under the lock it is certain that none is going to."""
        holder = self._holder(name) if name else None
        if holder is not None:
            raise NameTaken(
                f"there is a container named {name} already",
                why=f"{holder.id[:12]} of {holder.image}, {holder.status}",
                hint=f"%container rm {name}, or choose another --name",
            )

    def _holder(self, name: str) -> C | None:
        """Who has this name. Asked by each of many that are made at once, while others wait for the lock."""
        now_ns = time.time_ns()
        for container_id in self._ids():
            known = self._known.get(container_id)
            if known is not None and known.info.name != name and known.seen == _seen(known.path):
                continue
            each = self._container(container_id, now_ns)
            if each is not None and each.name == name:
                return each
        return None

    def naming(self, info: ContainerInfo, put: Put) -> ContainerInfo:
        """Have a new container written down, with the name that it was given or one of ours. Raises NameTaken."""
        if info.name:
            put(info, self._taking(info.name))
            return info
        from nbcontain import names

        while True:
            named = replace(info, name=names.random_name())
            # Somebody has it: another one then.
            with suppress(NameTaken):
                put(named, self._taking(named.name))
                return named

    @contextmanager
    def _taking(self, name: str) -> Iterator[None]:
        """Hold the lock under which no other container takes the same name."""
        with files.lock(self._layout.names_lock, exclusive=True):
            self.refuse_taken(name)
            yield


def _seen(path: Path) -> tuple[int, ...]:
    return files.known_by(f"{path}/container.json")


def _is_there(container: Container) -> bool:
    """Whether it is whole; it may be removed by somebody else while we look."""
    try:
        return container.info.id == container.id
    except (OSError, ValueError, StoreError, RecursionError):
        # Gone, or damaged: `system check` says which.
        return False
