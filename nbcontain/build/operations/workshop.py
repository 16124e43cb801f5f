"""What operations work with: a store, a context, a sandbox; and how what they change becomes a layer.

Operations run in the same sandbox as containers, or in `Launcher.call`, which is that sandbox with a
function of ours as the program. Nothing here follows a path of an image with the host's eyes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import singledispatch
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from nbcontain.build.graph import Operation, RemoteFile, Repository
from nbcontain.errors import NbcontainError, StepFailed
from nbcontain.events import Emit
from nbcontain.oci.digest import ChainID, Digest, chain_id, chain_id_of
from nbcontain.oci.image import Layer
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    from pathlib import Path

    from nbcontain.build.access import Access
    from nbcontain.build.context import Context
    from nbcontain.build.http import Fetched
    from nbcontain.build.secrets import Secret
    from nbcontain.host import Host
    from nbcontain.oci.spec import Mount
    from nbcontain.runtime.launcher import Launcher
    from nbcontain.runtime.leash import Leash
    from nbcontain.runtime.rungs import Rung
    from nbcontain.store import Store
    from nbcontain.store.early import Early
    from nbcontain.store.snapshots import Active
    from nbcontain.store.stacks import Stacks

_OPERATIONS_VERSION = 2
"""Part of every cache key: raise it when an operation begins to do something else."""

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Filesystem:
    """What a solved vertex yields: a stack of layers, lowest first, whose chain ID names the snapshot."""

    layers: tuple[Layer, ...] = ()

    @property
    def chain_id(self) -> ChainID | None:
        """None is scratch."""
        return chain_id_of(layer.diff_id for layer in self.layers)


class Means(Protocol):
    """What there is to work with, each made when it is first asked for: an engine."""

    @property
    def store(self) -> Store: ...
    @property
    def host(self) -> Host: ...
    @property
    def profile(self) -> Requirements: ...
    @property
    def launcher(self) -> Launcher: ...
    @property
    def stacks(self) -> Stacks: ...
    @property
    def environ(self) -> Mapping[str, str]: ...


class Requirements(Protocol):
    """How containers run on this host, if they do."""

    @property
    def runs(self) -> bool: ...
    @property
    def rung(self) -> Rung: ...
    def require(self, host: Host, what: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """All that an operation may touch while it runs."""

    means: Means
    contexts: Mapping[str, Context] = field(default_factory=dict)
    """Directories of files by name; "" is the build's own context."""
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Sockets and keys by id, as --ssh gives them."""
    remotes: dict[RemoteFile | Repository, Fetched | str] = field(default_factory=dict)
    """What was found elsewhere when a step's key was made: the step copies that, and not what is there by then."""
    emit: Emit = field(default=lambda event: None)
    leash: Leash | None = None
    """Let go when the build is cancelled, so that a silent program ends too."""

    def for_step(self, emit: Emit) -> Workshop:
        return replace(self, emit=emit)

    @property
    def access(self) -> Access:
        """Who the build is to servers."""
        from nbcontain.build.access import Access

        return Access(self.secrets, self.ssh)

    @property
    def store(self) -> Store:
        return self.means.store

    @property
    def stacks(self) -> Stacks:
        return self.means.stacks

    @property
    def launcher(self) -> Launcher:
        return self.means.launcher

    @property
    def host(self) -> Host:
        return self.means.host

    @property
    def rung(self) -> Rung:
        """How containers are shut in here."""
        return self.means.profile.rung

    @property
    def can_run(self) -> bool:
        """Whether containers can be run on this host at all."""
        return self.means.profile.runs

    @property
    def can_enter(self) -> bool:
        """Whether our own functions can be run in a root file system here, besides programs."""
        return self.can_run and self.rung.enters

    def expect(self) -> None:
        """Something is going to be done: what does it gets ready meanwhile. Returns at once."""
        if self.can_run:
            self.launcher.warm()

    def require(self, what: str) -> None:
        """Raise Unavailable, for what is named, where this host cannot run containers."""
        self.means.profile.require(self.host, what)

    @contextmanager
    def ledger(self, active: Active) -> Iterator[tuple[int, ...]]:
        """An active snapshot's own ledger, and that of all that it shows, where owners may have to be recorded."""
        own = self.store.snapshots.open_ledger(active, wanted=self.stacks.records)
        with own as to, self.stacks.ledger(active) as known:
            yield (*to, *known)

    def unpack(
        self, layers: Sequence[Layer], early: Early | None = None, strike: Callable[[], None] = lambda: None
    ) -> None:
        """Make the snapshots of this stack exist. Idempotent; what another process unpacks meanwhile is taken.

        `strike` is called while that is waited for, and raises when nobody wants it any more.
        """
        if not self.store.snapshots.has_all(layers):
            self.stacks.unpack(layers, strike, early)

    def view(self, filesystem: Filesystem) -> tuple[Mount, ...]:
        """The mounts that show a file system read-only; none for scratch."""
        self.unpack(filesystem.layers)
        chain = filesystem.chain_id
        return self.store.snapshots.view(chain) if chain else ()

    def change(
        self, parent: Filesystem, do: Callable[[Active], Sequence[str]], *, for_programs: bool = False
    ) -> Filesystem:
        """`parent` with what `do` changed in an active snapshot on top of it, as one more layer; none if nothing.

        `do` gives the paths that were made as mount points only: they are no part of the layer. `for_programs` says
        that not only our own functions write there.
        """
        self.unpack(parent.layers)
        active = self.store.snapshots.prepare(
            f"build-{os.urandom(8).hex()}", parent.chain_id, for_programs=for_programs
        )
        try:
            try:
                stubs = do(active)
            except StepFailed as error:
                # What is wrong is found where it went wrong: the state is kept, to look around in. But not where
                # it may be what fills the disk.
                with suppress(NbcontainError, OSError):
                    if not _is_nearly_full(self.store.layout.root):
                        error.left = self._committed(parent, active, error.stubs)
                raise
            return self._committed(parent, active, stubs)
        except BaseException:
            self.store.snapshots.discard(active)
            raise

    def _committed(self, parent: Filesystem, active: Active, stubs: Sequence[str]) -> Filesystem:

        # Most that changes nothing is recognised without a process to look.
        untouched = self.store.snapshots.is_untouched(active, stubs)
        layer = None if untouched else self.stacks.pack(active, stubs)
        if layer is None:
            self.store.snapshots.discard(active)
            return parent
        self.store.snapshots.commit(active, chain_id(parent.chain_id, layer.diff_id))
        return Filesystem((*parent.layers, layer))


def key_of(*parts: object) -> Digest:
    """A cache key of everything that it is to depend on."""
    return Digest.of(json.dumps([_OPERATIONS_VERSION, *parts], sort_keys=True, default=str).encode())


def stack_of(filesystem: Filesystem) -> str:
    """A file system's name in a cache key."""
    return str(filesystem.chain_id or "scratch")


@singledispatch
def cache_key(operation: Operation, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    """The name of what this operation makes of these file systems; None where there is nothing to keep."""
    raise TypeError(f"no cache key for {operation!r}")


@singledispatch
def execute(operation: Operation, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    """Do it. Raises BuildError or what the store and the runtime raise; nothing is left behind then."""
    # The modules of what takes a while are imported when it has to be done.
    for name in ("copy", "run"):
        import_module(f"{__package__}.{name}")
    if execute.dispatch(type(operation)) is execute.dispatch(object):
        raise TypeError(f"cannot execute {operation!r}")
    return execute(operation, inputs, workshop)


def _is_nearly_full(path: Path) -> bool:
    """Whether less than a twentieth of the file system that holds `path` is free."""
    status = os.statvfs(path)
    return status.f_bavail * 20 < status.f_blocks
