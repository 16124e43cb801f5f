"""Images from the store to a registry: what it has already is not sent again."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from nbcontain.errors import BadAddress, BadAnswer, ImageNotFound, ManifestUnknown
from nbcontain.events import Emit, Finished, Progress, Started
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, Image
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.registry.addresses import joined
from nbcontain.registry.client import RegistryClient
from nbcontain.registry.wire import Response
from nbcontain.store import Store
from nbcontain.store.blobs import damaged
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.oci.attestations import Attested

PARALLEL = 3
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Push:
    """Images of `store` on their way to the registry of `client`."""

    client: RegistryClient
    store: Store
    emit: Emit
    task: str

    def named(
        self, what: Image | ImageIndex, reference: Reference, sources: Callable[[Digest], Sequence[str]],
        attested: Attested | None = None,
    ) -> Digest:  # fmt: skip
        """Send an image, or an index and every image in it, under a name. Raises ImageNotFound for what is not here.

        What the index says of its images is no image, and comes in `attested`.
        """
        if isinstance(what, Image):
            return self.image(what, reference, sources)
        statements = attested.blobs if attested else {}
        for entry in what.entries:
            if entry.digest in statements:
                continue
            image = self.store.images.child(entry)
            if image is None:
                raise ImageNotFound(
                    f"the index {reference.familiar} is not whole here",
                    why=f"its image for {entry.platform or entry.digest.short} is missing",
                    hint="pull that platform, or build the index again",
                )
            self.image(image, replace(reference, tag=None, digest=entry.digest), sources)
        if attested:
            self._attest(attested, reference.repository)
        return self.client.put_manifest(
            reference.repository, reference.tag or str(what.digest), what.media_type, what.raw
        )

    def image(self, image: Image, reference: Reference, sources: Callable[[Digest], Sequence[str]]) -> Digest:
        """Send an image under a name.

        `sources` are repositories of the same registry that may have a blob already.
        """
        repository = reference.repository
        layers = tuple(dict.fromkeys(image.manifest.layers))
        for layer in layers:
            self.emit(Started(_name(layer), f"layer {layer.digest.short}", self.task, waiting=True))
            self.emit(Progress(_name(layer), 0, layer.size))
        with ThreadPoolExecutor(PARALLEL, "nbcontain push") as pool:
            running = [pool.submit(self._blob, repository, layer, sources) for layer in layers]
            try:
                for each in running:
                    each.result()
            except BaseException:
                self.client.wire.shut()
                raise
        self._send(repository, image.manifest.config, (), lambda size: None)
        name = str(reference.tag or image.digest)
        return self.client.put_manifest(repository, name, image.manifest.media_type, image.raw_manifest)

    def _attest(self, attested: Attested, repository: str) -> None:
        """What is said of images that are there: what the manifests need first, then these."""
        manifests = {entry.digest for entry in attested.manifests}
        for digest, data in attested.blobs.items():
            descriptor = Descriptor("application/octet-stream", digest, len(data))
            if digest not in manifests and not self.client.has_blob(repository, descriptor):
                self._upload_bytes(repository, descriptor, data)
        for entry in attested.manifests:
            self.client.put_manifest(repository, str(entry.digest), entry.media_type, attested.blobs[entry.digest])

    def _upload_bytes(self, repository: str, descriptor: Descriptor, data: bytes) -> None:
        # It is in no store here: a file in memory can be sent again as well.
        fd = os.memfd_create("nbcontain-push", os.MFD_CLOEXEC)
        try:
            os.write(fd, data)
            self._upload(repository, descriptor, (), fd, lambda size: None)
        finally:
            os.close(fd)

    def blob(self, repository: str, descriptor: Descriptor) -> None:
        """Have any blob of the store in the repository. Raises RegistryError."""
        self._send(repository, descriptor, (), lambda size: None)

    def _blob(self, repository: str, descriptor: Descriptor, sources: Callable[[Digest], Sequence[str]]) -> None:
        name = _name(descriptor)
        self.emit(Started(name, f"layer {descriptor.digest.short}", self.task))
        try:
            how = self._send(repository, descriptor, sources(descriptor.digest),
                             lambda size: self.emit(Progress(name, size, descriptor.size)))  # fmt: skip
        except BaseException as error:
            self.emit(Finished(name, "failed", str(error)))
            raise
        self.emit(Finished(name, "cached", how) if how else Finished(name, "done", size_bytes=descriptor.size))

    def _send(
        self, repository: str, descriptor: Descriptor, sources: Sequence[str], report: Callable[[int], None]
    ) -> str:
        """Have this blob in the repository; how, if nothing had to be sent."""
        if self.client.has_blob(repository, descriptor):
            return "already there"
        with self.store.blobs.opened(descriptor.digest) as blob:
            return self._upload(repository, descriptor, sources, blob.fileno(), report)

    def _upload(
        self, repository: str, descriptor: Descriptor, sources: Sequence[str], fd: int, report: Callable[[int], None]
    ) -> str:
        """end-4, end-5, end-6, end-11: in one piece; if that breaks, in the pieces that are missing."""
        patience, failures = self.client.patience, 0
        while True:
            location, mounted = self._begin(repository, descriptor, sources if not failures else ())
            if mounted:
                return f"mounted from {mounted}"
            sent = 0

            def on_sent(count: int) -> None:
                nonlocal sent
                sent += count
                report(sent)

            try:
                self._put(location, repository, descriptor, (fd, 0, descriptor.size), on_sent, once=True)
                return ""
            except BadAddress:
                raise
            except (OSError, http.client.HTTPException, BadAnswer) as error:
                self.client.wire.strike()
                if not failures:
                    _check_whole(fd, descriptor, is_refused=isinstance(error, BadAnswer))
                failures += 1
                if failures >= patience.tries:
                    raise error if isinstance(error, BadAnswer) else self.client.unreachable(error) from error
                self.client.wire.pause(patience.delay_s(failures))
            try:
                self._go_on(location, repository, descriptor, fd, report)
                return ""
            except (OSError, http.client.HTTPException, BadAnswer, ManifestUnknown):
                self.client.wire.strike()

    def _begin(self, repository: str, descriptor: Descriptor, sources: Sequence[str]) -> tuple[str, str]:
        """Where to send it, or which repository it was mounted from."""
        for source in (*sources, ""):
            query = f"?{urlencode({'mount': str(descriptor.digest), 'from': source})}" if source else ""
            scopes = _scopes(repository) + ((f"repository:{source}:pull",) if source else ())
            response = self.client.request("POST", f"/v2/{repository}/blobs/uploads/{query}", scopes, ok=(201, 202))
            response.read(1 << 20)
            if response.status == 201:
                return "", source
            return self._location(response), ""
        raise AssertionError

    def _location(self, response: Response) -> str:
        location = joined(response.url, response.headers.get("Location", ""))
        if not location.startswith(("http://", "https://")) or location.startswith(
            "http:"
        ) > self.client.base.startswith("http:"):
            raise BadAnswer(f"{self.client.endpoint.host} does not say where to upload to")
        return location

    def _put(
        self, location: str, repository: str, descriptor: Descriptor, body: tuple[int, int, int],
        on_sent: Callable[[int], None], once: bool,
    ) -> None:  # fmt: skip
        mark = "&" if "?" in location else "?"
        response = self.client.request(
            "PUT", f"{location}{mark}digest={quote(str(descriptor.digest), safe='')}", _scopes(repository),
            {"Content-Type": "application/octet-stream"}, body, (201, 204), once, on_sent,
        )  # fmt: skip
        response.read(1 << 20)

    def _go_on(
        self, location: str, repository: str, descriptor: Descriptor, fd: int, report: Callable[[int], None]
    ) -> None:
        """Ask how much arrived, and send the rest in chunks."""
        response = self.client.request("GET", location, _scopes(repository), ok=(204,))
        response.read(1 << 20)
        match = _RANGE.fullmatch(response.headers.get("Range", ""))
        done = int(match[1]) + 1 if match and int(match[1]) else 0
        while done < descriptor.size:
            size = min(_CHUNK_BYTES, descriptor.size - done)
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{done}-{done + size - 1}"}
            response = self.client.request(
                "PATCH", location, _scopes(repository), headers, (fd, done, size), (202, 204), once=True
            )
            response.read(1 << 20)
            location, done = self._location(response), done + size
            report(done)
        self._put(location, repository, descriptor, (fd, descriptor.size, 0), lambda count: None, once=False)


def _check_whole(fd: int, descriptor: Descriptor, *, is_refused: bool) -> None:
    """Before anybody else is blamed: whether what was sent is what it should be. Raises DigestMismatch.

    It is hashed only where the registry has refused it: that takes as long as to read it.
    """
    digest = descriptor.digest
    size = os.fstat(fd).st_size
    found = f"{size} bytes"
    if size == descriptor.size:
        if not is_refused:
            return
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            found = hashlib.file_digest(file, digest.algorithm).hexdigest()
    if found != digest.hex:
        raise damaged(f"{descriptor.size} bytes of {digest}", found)


def _scopes(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def _name(descriptor: Descriptor) -> str:
    return f"layer {descriptor.digest}"
