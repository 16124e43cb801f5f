"""Whether a store and its containers are sound, and putting right what is not: `system check`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nbcontain.errors import ContainerNotFound, StoreError
from nbcontain.events import Emit, Progress, scope
from nbcontain.oci.image import Layer
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.container import Container
from nbcontain.store import Store, files
from nbcontain.store.check import Check, Finding, Looked
from nbcontain.store.repair import repair
from nbcontain.task import Task
from nbcontain.values import dataclass, replace

T = TypeVar("T")
_TASK = "check"
_PASSES = 5
"""How often a repair looks again: blobs, then what names them, then what names that."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found, and what a repair left of it."""

    findings: tuple[Finding, ...]
    left: tuple[Finding, ...]
    """The same as `findings` unless something was repaired."""
    looked: Looked
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.left


class Soundness:
    """Checks one store. `unpack` makes the snapshots of some layers exist again."""

    def __init__(
        self, store: Store, unpack: Callable[[Sequence[Layer], Emit], None], settle: Callable[[], None] = lambda: None
    ) -> None:
        """`settle` puts right what the dead left of networks."""
        self._store = store
        self._unpack = unpack
        self._settle = settle

    def check(self, wrap: Callable[[Report], T], *, full: bool = False, fix: bool = False) -> Task[T]:
        """Look at everything; `full` reads every blob, `fix` waits until the store is idle and repairs.

        The task gives the report, wrapped.
        """

        def body(emit: Emit) -> T:
            with scope(emit, _TASK, "check of the store"):
                return wrap(self.look(full=full, fix=fix, emit=emit))

        return Task(_TASK, body)

    def look(self, *, full: bool = False, fix: bool = False, emit: Emit = lambda event: None) -> Report:
        """The same, at once."""
        begun = time.monotonic()

        def told(size_bytes: int) -> None:
            emit(Progress(_TASK, size_bytes, unit="bytes"))

        if not fix:
            with self._store.shared():
                check = Check(self._store, full=full, strike=told)
                found = (*check.everything(), *self._containers(check))
            with self._store.exclusive(wait=False) as is_alone:
                # Without waiting: a check must not hold up those who work.
                if is_alone:
                    found = (*found, *self._alone(check))
            # What somebody was removing meanwhile is gone by now.
            found = tuple(each for each in found if each.kind != "leftover" or each.path.exists())
            return Report(found, found, _looked(check, self._ids(), not is_alone), time.monotonic() - begun)
        self._settle()
        with self._store.exclusive():
            check = Check(self._store, full=full, strike=told)
            found = left = self._everything(check)
            for _ in range(_PASSES):
                if not left:
                    break
                for finding in left:
                    if finding.kind == "container-lost":
                        _end(finding.path)
                repair(self._store, check, left, lambda layers: self._unpack(layers, emit))
                # What is set aside may have been what something else relied on.
                check = Check(self._store, full=full, strike=told)
                left, before = self._everything(check), left
                found = (*found, *(each for each in left if each not in found))
                if left == before:
                    break
        return Report(found, left, _looked(check, self._ids(), False), time.monotonic() - begun)

    def _everything(self, check: Check) -> tuple[Finding, ...]:
        return (*check.everything(), *self._containers(check), *self._alone(check))

    def _ids(self) -> list[str]:
        return files.names(self._store.layout.containers)

    def _containers(self, check: Check) -> Iterator[Finding]:
        """What can be told of containers while others work."""
        for name in self._ids():
            bundle = Bundle(self._store.layout.container(name))
            if not bundle.is_whole():
                continue
            try:
                container = Container(bundle)
                shown = container.name
                _ = bundle.spec, bundle.rootfs
                status = container.status
            except (FileNotFoundError, ContainerNotFound):
                if bundle.is_whole():
                    yield Finding("container-damaged", name[:12], "a file of it is missing", bundle.path)
                continue
            except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                yield Finding("container-damaged", name[:12], str(error), bundle.path)
                continue
            except StoreError as error:
                yield Finding("container-damaged", name[:12], error.message, bundle.path)
                continue
            if status == "lost":
                yield Finding("container-lost", shown, "it was running, and nobody holds its lock", bundle.path)
            for finding in (*check.standing(name, shown), *self._its_volumes(bundle, shown)):
                if bundle.is_whole():
                    yield finding

    def _its_volumes(self, bundle: Bundle, shown: str) -> Iterator[Finding]:
        for each in bundle.info.mounts:
            name = str(each.get("Name", ""))
            if each.get("Type") == "volume" and not self._store.layout.volume(name).is_dir():
                yield Finding("volume-missing", shown, f"{name} at {each.get('Destination')}", bundle.path)

    def _alone(self, check: Check) -> Iterator[Finding]:
        """What can be judged only while nobody else works here."""
        owners: list[str] = []
        used: set[str] = set()
        for name in self._ids():
            bundle = Bundle(self._store.layout.container(name))
            owners.append(name)
            if not bundle.is_whole() and not bundle.is_alive():
                yield Finding("container-unfinished", name[:12], "its maker is dead", bundle.path)
                owners.pop()
            else:
                with suppress(OSError, ValueError, StoreError, AttributeError):
                    used |= {str(each.get("Name")) for each in bundle.info.mounts}
        yield from check.alone(owners)
        for volume in self._store.volumes.all():
            if volume.container and volume.container not in owners and volume.name not in used:
                yield Finding("volume-of-nobody", volume.name, "its container is gone", volume.directory)


def _end(path: Path) -> None:
    """Record that a lost container has ended; nobody knows how."""
    bundle = Bundle(path)
    if not bundle.is_alive():
        bundle.end_orphan()
        bundle.write_state(replace(bundle.state(), status="stopped", finished_at=time.time(), error="supervisor died"))


def _looked(check: Check, containers: Sequence[str], is_busy: bool) -> Looked:
    return Looked(
        blobs=check.blobs, bytes_read=check.bytes_read, images=check.images, snapshots=check.snapshots,
        cache_records=check.records, containers=len(containers), is_busy=is_busy,
    )  # fmt: skip
