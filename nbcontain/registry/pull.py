"""Images from a registry into the store: fetched, verified and unpacked at the same time."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from nbcontain.errors import BadAddress, BadAnswer, BadDocument, DigestMismatch, RegistryError, Unsupported
from nbcontain.events import Emit, Finished, Progress, Started, scope
from nbcontain.oci import codec, platforms
from nbcontain.oci.image import CONFIG, Descriptor, Image, Layer, Platform
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import DOCUMENT_LIMIT
from nbcontain.registry.client import RegistryClient
from nbcontain.registry.wire import Response
from nbcontain.store.growing import Growing
from nbcontain.store.ingest import InMemory, Partial, arriving
from nbcontain.store.stacks import Arrivals, Stacks
from nbcontain.values import dataclass

PARALLEL = 3
_CONFIGS = frozenset({CONFIG, "application/vnd.docker.container.image.v1+json"})
_REPORT_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,19})-\d*/(?:\d+|\*)")
_DEPTH, _MANIFESTS = 3, 1000
"""How far indexes are in each other, and how much may be in them: more is a trap."""
_FOREIGN = ("nondistributable", "foreign")
Kept = Literal["named", "beside", "nowhere"]
"""What becomes of an image that came: it gets the name; or the name stays what it is here and this is another
platform's image of it; or it is listed nowhere and not unpacked, for an index that will name it."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One image on its way from `client` into the store of `stacks`."""

    client: RegistryClient
    stacks: Stacks
    emit: Emit
    task: str
    """The events' parent."""
    kept: Kept = "named"
    parallel: int = PARALLEL
    must_fit: bool = False
    """Whether an image that comes alone must be for the platform, too, which somebody has asked for."""

    def image(self, reference: Reference, platform: Platform) -> tuple[Image, Descriptor]:
        """Fetch what a name points at; stored under that name. Gives what the name itself points at, too.

        Raises RegistryError, DigestMismatch, BadDocument, DiskFull; what came so far is kept for the next time.
        """
        which = str(reference.digest) if reference.digest else reference.tag or "latest"
        named, raw = self.client.manifest(reference.repository, which)
        chosen = named
        if _is_index(named, raw):
            chosen = platforms.choose(self._manifests(reference, raw), platform, reference.familiar)
            raw = self._document(reference, chosen)
        manifest = codec.parse_manifest(_of_schema_2(raw, chosen, reference))
        if manifest.config.media_type not in _CONFIGS:
            raise Unsupported(f"{reference.familiar} is an artifact and no image", why=manifest.config.media_type)
        for layer in manifest.layers:
            if any(word in layer.media_type for word in _FOREIGN):
                raise Unsupported(f"{reference.familiar} has a foreign layer", why="its bytes are not in the registry")
        image = codec.image_from(raw, self._config(reference, manifest.config))
        if image.config.platform.os not in ("", "linux") and self.kept != "nowhere":
            system = image.config.platform.os
            raise Unsupported(f"{reference.familiar} is for {system}", why="containers here are Linux's")
        if self.must_fit and chosen is named:
            platforms.require(image.config.platform, platform, reference.familiar)
        images = self.stacks.store.images
        # Whoever has the digest of the index, as others' tools show it, finds the image by that.
        within = named.digest if named.digest != image.digest and reference.digest is None else None
        is_new = self.kept == "named" and not images.is_known(image, [reference], within)
        # Its own documents are written while the layers come.
        self._layers(reference, image, partial(images.prepare, image) if is_new else lambda: None)
        match self.kept:
            case "named" if is_new:
                images.enter([(image, [reference])], within)
            case "named":
                images.put(image, reference)
            case "beside":
                images.put_beside(image, reference)
            case "nowhere":
                images.keep(image)
        return image, named

    def blob(self, reference: Reference, descriptor: Descriptor) -> None:
        """Have any blob of that repository in the store, verified. Raises RegistryError, DigestMismatch."""
        self._fetch(reference, descriptor, _nobody, lambda size: None)

    def _manifests(self, reference: Reference, raw: bytes, depth: int = 0) -> list[Descriptor]:
        """The manifests of an index, and of the indexes in it."""
        found: list[Descriptor] = []
        for entry in codec.parse_index(raw).manifests:
            if entry.media_type not in codec.INDEXES:
                found.append(entry)
            elif depth == _DEPTH or len(found) > _MANIFESTS:
                raise BadDocument(f"the indexes of {reference.familiar} lead nowhere", why="one is within the other")
            else:
                found += self._manifests(reference, self._document(reference, entry), depth + 1)
        return found

    def _document(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A manifest that an index names; from the store if it is there."""
        if self.stacks.store.blobs.has(descriptor):
            return self.stacks.store.blobs.read(descriptor.digest, DOCUMENT_LIMIT)
        found, raw = self.client.manifest(reference.repository, str(descriptor.digest))
        # Its digest was verified: it was asked for by that.
        if found.size != descriptor.size:
            raise DigestMismatch(f"{descriptor.size} bytes for {descriptor.digest}", f"{found.size}")
        return raw

    def _config(self, reference: Reference, config: Descriptor) -> bytes:
        if config.size > DOCUMENT_LIMIT:
            raise BadDocument(f"the config of {reference.familiar} is larger than {DOCUMENT_LIMIT >> 20} MiB")
        if self.stacks.store.blobs.has(config):
            return self.stacks.store.blobs.read(config.digest, DOCUMENT_LIMIT)
        # The layers need not wait until it is on the disk.
        held = InMemory(config)
        self._receive(reference, config, held, None, lambda size: None)
        return held.whole()

    # --- layers ---

    def _layers(self, reference: Reference, image: Image, meanwhile: Callable[[], object]) -> None:
        layers = tuple(dict.fromkeys(image.layers))
        for layer in layers:
            self.emit(Started(_name(layer), f"layer {layer.descriptor.digest.short}", self.task, waiting=True))
            # So that it can be told from the beginning how much is to come.
            self.emit(Progress(_name(layer), 0, layer.descriptor.size))
        unpacks = self.kept != "nowhere" and self.stacks.can_unpack
        with ExitStack() as stack:
            arrivals = stack.enter_context(self.stacks.arriving(image.layers, self._strike)) if unpacks else None
            pool = stack.enter_context(ThreadPoolExecutor(self.parallel, "nbcontain pull"))
            stopping = threading.Event()
            running = {pool.submit(self._layer, reference, layer, arrivals, stopping) for layer in layers}
            try:
                meanwhile()
                _all_of(running, self._strike)
            except BaseException:
                stopping.set()
                self.client.wire.shut()
                raise
            if arrivals is not None and image.layers and not self._is_unpacked(image):
                with scope(self.emit, f"{self.task} unpack", "unpacking", self.task):
                    for layer in image.layers:
                        arrivals.stored(layer)
                    arrivals.wait(self._strike)

    def _is_unpacked(self, image: Image) -> bool:
        return image.chain_id is None or self.stacks.store.snapshots.exists(image.chain_id)

    def _strike(self) -> None:
        self.client.wire.strike()

    def _layer(self, reference: Reference, layer: Layer, arrivals: Arrivals | None, stopping: threading.Event) -> None:
        if stopping.is_set():
            return
        name, descriptor = _name(layer), layer.descriptor
        emit = self.emit
        if self.stacks.store.blobs.has(descriptor):
            emit(Finished(name, "cached", "already here"))
            return
        emit(Started(name, f"layer {descriptor.digest.short}", self.task))
        try:
            feed = (lambda path: arrivals.feed(layer, path)) if arrivals is not None else _nobody
            self._fetch(reference, descriptor, feed, lambda size: emit(Progress(name, size, descriptor.size)))
        except BaseException as error:
            emit(Finished(name, "cancelled" if stopping.is_set() else "failed", str(error)))
            raise
        emit(Finished(name, "done", size_bytes=descriptor.size))

    def _fetch(
        self,
        reference: Reference,
        descriptor: Descriptor,
        feed: Callable[[Path], Growing | None],
        report: Callable[[int], None],
    ) -> None:
        """Have this blob in the store. What `feed` gives is told of its bytes as they come, `report` how many."""

        def waiting(size: int) -> None:
            report(size)
            self._strike()

        store = self.stacks.store
        with arriving(store.layout, store.write_back, descriptor, waiting) as coming:
            if coming is None:
                return
            coming.recall()
            report(coming.size)
            if coming.size:
                # What an earlier attempt left may be damaged, so nothing is unpacked before all of it was verified.
                try:
                    self._receive(reference, descriptor, coming, None, report)
                    coming.commit()
                    return
                except DigestMismatch:
                    coming.forget()
            with feed(coming.path) or nullcontext() as fed:
                self._receive(reference, descriptor, coming, fed, report)
            coming.commit()

    def _receive(
        self, reference: Reference, descriptor: Descriptor, taken: Partial | InMemory, fed: Growing | None,
        report: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Until all is there: what is cut off is gone on with where it stopped. Raises RegistryError."""
        failures, before = 0, taken.size
        patience = self.client.patience
        while taken.size < descriptor.size:
            try:
                response = self.client.blob(reference.repository, descriptor.digest, taken.size)
                self._read(response, descriptor, taken, fed, report)
                if taken.size == descriptor.size:
                    return
                trouble: Exception = ConnectionError("the answer ended too early")
            except BadAddress:
                raise
            except (OSError, http.client.HTTPException, BadAnswer) as error:
                self._strike()
                trouble = error
            if taken.size - before >= _REPORT_BYTES:
                failures, before = 0, taken.size
            failures += 1
            if failures >= patience.tries:
                raise self._given_up(trouble) from trouble
            self.client.wire.pause(patience.delay_s(failures))

    def _given_up(self, trouble: Exception) -> RegistryError:
        return trouble if isinstance(trouble, RegistryError) else self.client.unreachable(trouble)

    def _read(
        self, response: Response, descriptor: Descriptor, taken: Partial | InMemory, fed: Growing | None,
        report: Callable[[int], None],
    ) -> None:  # fmt: skip
        skip = 0
        if response.status == 416:
            response.close()
            if fed is not None:
                # Before the file becomes shorter: whoever reads it takes that for its end.
                fed.cut()
            taken.forget()
            raise BadAnswer("the registry cannot go on where the download stopped")
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != taken.size:
                response.close()
                raise BadAnswer("the registry gives another part of the blob than was asked for")
        else:
            # All of it, from the start: what is here already is passed over, and the digest tells at the end.
            skip = taken.size
        told = taken.size
        while data := response.read1():
            if skip:
                passed = min(skip, len(data))
                data, skip = data[passed:], skip - passed
            if not data:
                continue
            try:
                taken.write(data)
            except DigestMismatch:
                response.close()
                raise
            if fed is not None:
                fed.wrote(data)
            if taken.size - told >= _REPORT_BYTES:
                told = taken.size
                report(told)
            if taken.size == descriptor.size and response.raw.length == 0:
                break
        report(taken.size)
        if response.raw.length == 0:
            response.release()
        else:
            response.close()


def _nobody(path: Path) -> None:
    """Where what comes is not to be unpacked."""


def _all_of(running: set[Future[None]], strike: Callable[[], None]) -> None:
    """Until all are done; the first error at once."""
    while running:
        done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        for each in done:
            each.result()
        strike()


def _name(layer: Layer) -> str:
    return f"layer {layer.descriptor.digest}"


def _is_index(descriptor: Descriptor, raw: bytes) -> bool:
    return descriptor.media_type in codec.INDEXES or (b'"manifests"' in raw and b'"layers"' not in raw)


def _of_schema_2(raw: bytes, descriptor: Descriptor, reference: Reference) -> bytes:
    if "manifest.v1+" in descriptor.media_type and "docker.distribution" in descriptor.media_type:
        raise Unsupported(
            f"{reference.familiar} is of docker's old schema 1", why="such manifests cannot be verified",
            hint="push it again with a docker that is newer than 2016",
        )  # fmt: skip
    return raw
