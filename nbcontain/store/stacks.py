"""Stacks of layers as snapshots: layers are unpacked one on another, and a snapshot's changes packed into a layer.

The work on files is a worker's, which has the one directory for its whole world (see `layers`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import BadArchive, StoreError
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.digest import ChainID, DiffID, Digest, chain_id
from nbcontain.oci.image import Layer
from nbcontain.oci.spec import Mount
from nbcontain.store import files, tar
from nbcontain.store.compression import uncompressed
from nbcontain.store.growing import Growing
from nbcontain.store.layer_writer import layer_writer
from nbcontain.store.pipes import piped, poured
from nbcontain.store.ring import Sender
from nbcontain.store.snapshots import MAKERS, Active, Changes, Snapshotter, Staging, Worker, bind, ledger_in
from nbcontain.store.stage import Stage
from nbcontain.store.store import Store
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.store.early import Early

_STRIKE_S = 0.1
_CLEARING_S = 0.5
_AT_ONCE = 4
"""So many layers of a stack are unpacked at a time."""


def _nothing() -> None:
    """Where nobody can cancel."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """Between the layers of one store and its snapshots. `ids` are those that files can belong to here.

    Where they are not all there are, owners that cannot be are recorded (see `owners`).
    """

    store: Store
    worker: Worker
    ids: IdMap = IdMap.identity()
    can_unpack: bool = True
    """Whether the worker can do anything here: where nothing can run, images are blobs only."""

    def unpack(
        self, layers: Sequence[Layer], strike: Callable[[], None] = _nothing, early: Early | None = None
    ) -> None:
        """Make the snapshots of this stack exist, some layers at a time; the blobs are in the store.

        Idempotent; what another process unpacks meanwhile is taken, and what was unpacked `early`. `strike` is called
        now and then, and raises when nobody wants this any more. Raises BadArchive, StoreError, DiskFull.
        """
        with self.arriving(layers, strike, early):
            pass

    @contextmanager
    def arriving(
        self, layers: Sequence[Layer], strike: Callable[[], None] = _nothing, early: Early | None = None
    ) -> Iterator[Arrivals]:
        """The same for a stack whose layers come in one by one, in any order.

        Each can be unpacked while it is being written (`Arrivals.feed`), or once its blob is there
        (`Arrivals.stored`). At the end all of them are waited for; what nobody told of is taken from the blobs.
        """
        arrivals = Arrivals(self, layers, early)
        try:
            yield arrivals
            for layer in layers:
                arrivals.stored(layer)
            arrivals.wait(strike)
        except BaseException:
            arrivals.abandon()
            raise

    def pack(self, active: Active, stubs: Sequence[str] = ()) -> Layer | None:
        """The active snapshot's own changes as a layer, in the store; None if there are none.

        `stubs` are paths that were made as mount points only: what is empty of them is no part of the layer, nor are
        the directories above them that are otherwise as they were.
        """
        return self._packed(active, stubs, is_used=False)

    def pack_copy(self, active: Active, skip: Sequence[str] = ()) -> Layer | None:
        """The same of a snapshot that stays as it is, and may be in use; `skip` are the paths of mount points."""
        return self._packed(active, skip, is_used=True)

    def _packed(self, active: Active, stubs: Sequence[str], *, is_used: bool) -> Layer | None:
        changes = self.store.snapshots_of(active.key).changes(active, stubs, is_used=is_used)
        with layer_writer(self.store.blobs) as writer, self.ledger(active) as ledger, changes.opened() as more:
            entries = self._tar(changes, writer.read_from, ledger, more)
            return writer.commit() if entries else None

    def read_copy(self, active: Active, skip: Sequence[str], read: Callable[[int], object]) -> None:
        """The same as a tar that is kept nowhere: `read` reads it from a pipe."""
        changes = self.store.snapshots_of(active.key).changes(active, skip, is_used=True)
        with self.ledger(active) as ledger, changes.opened() as more:
            self._tar(changes, read, ledger, more)

    def export(self, shown: Active | ChainID, write: Callable[[bytes], object], skip: Sequence[str] = ()) -> int:
        """Write all the files of a snapshot, which may be in use, as one tar, without `skip`; the number of entries."""
        return self.read(shown, poured(write), skip)

    def read(self, shown: Active | ChainID, read: Callable[[int], object], skip: Sequence[str] = ()) -> int:
        """The same: `read` reads it from a pipe, to its end."""
        if isinstance(shown, Active):
            snapshots = self.store.snapshots_of(shown.key)
            mounts, more = snapshots.look(shown), snapshots.rooted(shown)
        else:
            mounts, more = self.store.snapshots.view(shown), {}
        with self.ledger(shown) as ledger:
            return self._tar(Changes(mounts, {"form": "plain", "skip": list(skip), **more}), read, ledger, ())

    def apply(self, staging: Staging, ring: Sender) -> None:
        """Have a worker unpack the plain tar that another thread writes to this ring, and hashes. Raises BadArchive."""
        arguments = {
            "userxattr": self.store.snapshots.userxattr, "form": self.store.snapshots.form,
            "ids": "single" if self.ids.is_single else "all",
        }  # fmt: skip
        try:
            with staging.inventory() as inventory, staging.seams() as seams:
                with staging.ledger(wanted=self.records) as ledger:
                    root = (Mount("/", "bind", str(staging.fs), ("bind",)),)
                    told = self.worker.call("apply_tar", root, arguments, (*ring.fds, inventory, seams, *ledger))
                if not told["inventory"]:
                    staging.leave_inventory()
        finally:
            ring.leave()

    def commit(self, staging: Staging, name: ChainID, parent: ChainID | None) -> None:
        """Give an unpacked layer its name, and settle before what of it depends on what it lies on: that is there."""
        snapshots = self.store.snapshots
        with staging.seams() as seams:
            lower = snapshots.ledger(parent) if self.records and snapshots.form == "overlay" else b""
            if os.fstat(seams).st_size or lower:
                below = snapshots.view(parent) if parent is not None else ()
                fields = {"userxattr": snapshots.userxattr, "below": bool(below), "ledger": bool(lower)}
                with _in_memory(lower) as memory, staging.ledger(wanted=bool(lower)) as ledger:
                    self.worker.call("fit_layer", staging.mounts, fields, (seams, memory, *ledger), source=below)
        staging.commit(name, parent)

    @property
    def records(self) -> bool:
        """Whether some owners and devices can only be recorded here."""
        return not self.ids.is_identity

    @contextmanager
    def ledger(self, shown: Active | ChainID | None) -> Iterator[tuple[int, ...]]:
        """Memory with the ledger of a snapshot and what it stands on; none where owners are on the disk."""
        if not self.records:
            yield ()
            return
        if isinstance(shown, Active):
            of = self.store.snapshots_of(shown.key)
            if makers := ledger_in(of.shelf.active(shown.key), MAKERS):
                self._name_makers(shown, of, makers)
        else:
            of = self.store.snapshots
        with _in_memory(of.ledger(shown)) as memory:
            yield (memory,)

    def _name_makers(self, active: Active, snapshots: Snapshotter, makers: bytes) -> None:
        """Record whose those files are that programs have made as others than root, whom the disk cannot name."""
        root = bind(snapshots.upper(active), "rw")
        below = snapshots.view(active.parent) if active.parent else ()
        arguments = {"form": snapshots.form, "makers": makers.decode()}
        with _in_memory(snapshots.ledger(active)) as memory, snapshots.open_ledger(active, wanted=True) as [own]:
            self.worker.call("name_makers", root, arguments, (memory, own), source=below)

    def _tar(
        self, changes: Changes, read: Callable[[int], object], ledger: Sequence[int], more: Sequence[int]
    ) -> int:
        """A worker packs into a pipe, which `read` reads to its end; the number of entries."""
        fields = {
            "userxattr": self.store.snapshots.userxattr, "stubs": [], "skip": [], "ledger": bool(ledger),
            **changes.arguments,
        }  # fmt: skip

        def pack(sink: int) -> dict[str, Any]:
            return self.worker.call("tar_of", changes.root, fields, (sink, *ledger, *more), source=changes.below)

        return int(piped(pack, read)["entries"])


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """A file that holds this, to be read."""
    memory = os.memfd_create("nbcontain-owners")
    try:
        files.write(memory, data)
        os.lseek(memory, 0, os.SEEK_SET)
        yield memory
    finally:
        os.close(memory)


class Arrivals:
    """The layers of one stack on their way to being snapshots."""

    def __init__(self, stacks: Stacks, layers: Sequence[Layer], early: Early | None = None) -> None:
        # Three are fed while they are downloaded, and one that is whole need not wait for those.
        self._slots = threading.Semaphore(_AT_ONCE)
        self._jobs: list[_Job] = []
        below: _Job | None = None
        for layer in layers:
            below = _Job(stacks, layer, below, self._slots, early)
            self._jobs.append(below)

    def stored(self, layer: Layer) -> None:
        """This layer's blob is in the store: unpack it in the background. Idempotent."""
        for job in self._jobs:
            if job.layer == layer:
                job.start(None)

    def feed(self, layer: Layer, path: Path) -> Growing | None:
        """Unpack this layer from the file that its bytes are being written to; None if its snapshot is there already.

        Whoever writes says so (`Growing.wrote`). If the unpacking fails, `wait` tells why.
        """
        for job in self._jobs:
            if job.layer == layer and not job.is_started and not job.must_wait:
                with ExitStack() as stack:
                    growing = stack.enter_context(closing(Growing(path)))
                    if job.start(growing):
                        # Its thread closes it.
                        stack.pop_all()
                        return growing
        return None

    def wait(self, strike: Callable[[], None] = _nothing) -> None:
        """Until all that was started is done; raises what went wrong with the lowest layer that failed."""
        for job in self._jobs:
            while not job.done.wait(_STRIKE_S):
                strike()
            if job.error is not None:
                raise job.error

    def abandon(self) -> None:
        """Nobody waits any more. What is being unpacked goes on to its end, and is there the next time.

        What was cut off is given a moment to clear away what it has made: its process may be about to end.
        """
        for job in self._jobs:
            job.abandon()
        until = time.monotonic() + _CLEARING_S
        for job in self._jobs:
            job.done.wait(max(0.0, until - time.monotonic()))


class _Job:
    """One layer, unpacked by a thread of its own. It gets its name once the layers below have theirs."""

    def __init__(
        self, stacks: Stacks, layer: Layer, below: _Job | None, slots: threading.Semaphore, early: Early | None
    ) -> None:
        self.layer = layer
        self.name: ChainID = chain_id(below.name if below else None, layer.diff_id)
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._stacks = stacks
        self._below = below
        self._slots = slots
        self._early = early
        self._lock = threading.Lock()
        self._stored = threading.Event()
        """The blob is in the store, or never will be."""
        self._is_given_up = False
        self.is_started = False
        self.is_here = False

    @property
    def must_wait(self) -> bool:
        """Whether it cannot be begun as yet: a whole tree begins as the one below."""
        is_tree = self._stacks.store.snapshots.form == "tree"
        return is_tree and self._below is not None and not self._below.done.is_set()

    def start(self, stream: Growing | None) -> bool:
        """Unpack from this file, or from the blob. False if it is started already, or need not be."""
        if stream is None:
            self._stored.set()
        with self._lock:
            if self.is_started:
                return False
            self.is_started = True
        snapshots = self._stacks.store.snapshots
        try:
            # From the lowest up, so that each need not look at all below it.
            stands = self._below is None or self._below.is_here or snapshots.exists(self._below.name)
            self.is_here = stands and snapshots.holds(self.name)
            if self.is_here:
                self.done.set()
                return False
            threading.Thread(target=self._run, args=(stream,), name="nbcontain unpack", daemon=True).start()
        except BaseException as error:
            # Layers above wait for this one.
            self.error = error
            self.done.set()
            raise
        return True

    def abandon(self) -> None:
        self._is_given_up = True
        self._stored.set()
        with self._lock:
            if self.is_started:
                return
            self.is_started = True
        self.error = StoreError("the unpacking was given up")
        self.done.set()

    def _run(self, stream: Growing | None) -> None:
        try:
            if stream is None or not self._made_of(stream):
                self._make(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self.error = error
        finally:
            self.done.set()

    def _made_of(self, stream: Growing) -> bool:
        """Unpack what comes. False if that began anew meanwhile, and the blob is to be taken: it is there by now."""
        try:
            with closing(stream):
                self._make(stream)
        except BadArchive:
            if not stream.is_cut:
                raise
            self._stored.wait()
            if self._is_given_up:
                raise
            return False
        return True

    def _make(self, raw: Growing | None) -> None:
        if self.must_wait:
            self._wait_for_below()
        if self._early is not None and (ready := self._early.take(self.layer.diff_id)) is not None:
            self._wait_for_below()
            self._stacks.commit(ready, self.name, self._below.name if self._below else None)
            return
        with self._stacks.store.snapshots.staging(self._below.name if self._below else None) as staging:
            with self._slots:
                if raw is not None:
                    self._apply(staging, raw)
                else:
                    # The diff ID says whether it is the right layer; so the blob need not be hashed too.
                    with self._stacks.store.blobs.opened(self.layer.descriptor.digest) as blob:
                        self._apply(staging, blob)
            self._wait_for_below()
            self._stacks.commit(staging, self.name, self._below.name if self._below else None)

    def _wait_for_below(self) -> None:
        if self._below is not None:
            self._below.done.wait()
            if self._below.error is not None:
                raise StoreError(f"the layer below {self.layer.descriptor.digest.short} is missing")

    def _apply(self, staging: Staging, source: Any) -> None:
        diff_id = unpacked(self._stacks, staging, source, self.layer.diff_id.algorithm)
        if diff_id != self.layer.diff_id:
            raise BadArchive(
                f"layer {self.layer.descriptor.digest.short} is not what its image says",
                why=f"it unpacks to {diff_id}, and the config says {self.layer.diff_id}",
            )


def unpacked(stacks: Stacks, staging: Staging, source: Any, algorithm: str = "sha256") -> DiffID:
    """Unpack the layer that `source` reads, compressed or not, into a directory; the diff ID, by that algorithm.

    Raises BadArchive.

    Unzipped and hashed here, by two threads, and written by the worker: that way two processors have work.
    """
    sender = Sender()
    try:
        pump = _Pump(source, sender, algorithm)
    except BaseException:
        sender.close()
        sender.leave()
        raise
    try:
        stacks.apply(staging, sender)
    except BadArchive:
        # The tar may have been cut off by what went wrong here.
        pump.finish()
        raise
    finally:
        # Whoever opened the source closes it next.
        pump.join()
    return pump.finish()


class _Pump:
    """A thread that uncompresses `source` into a ring, and closes that; another hashes what is there."""

    def __init__(self, source: tar.Readable, sink: Sender, algorithm: str) -> None:
        self._source, self._algorithm = source, algorithm
        self._sink = sink
        self._error: BaseException | None = None
        self._sum = hashlib.new(algorithm)
        # One is hashed and these wait: the slot that comes next is none of them.
        self._hashing = Stage(self._sum.update, sink.slots - 2)
        self._thread = threading.Thread(target=self._run, name="nbcontain unzip", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._hashing.abandon()
            raise

    def join(self) -> None:
        """Wait for its end: that of the source, or that nobody reads any more."""
        self._thread.join()

    def finish(self) -> DiffID:
        """The same; gives the diff ID. Raises what ended it, unless that is that nobody reads any more."""
        self.join()
        if self._error is not None:
            raise self._error
        return DiffID(Digest(self._algorithm, self._sum.hexdigest()))

    def _run(self) -> None:
        try:
            stream = uncompressed(self._source)
            while count := stream.readinto(slot := self._sink.slot()):
                self._sink.send(count)
                self._hashing.put(slot[:count])
        except BrokenPipeError:
            # The worker has given up, and says why itself.
            return
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            self._error = error
        finally:
            self._sink.close()
            self._hashing.finish()
