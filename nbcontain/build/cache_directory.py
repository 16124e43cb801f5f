"""A build cache in a directory, to be carried to another machine: --cache-to and --cache-from type=local.

It is an OCI image layout (image-layout.md) with the cache under a tag, as BuildKit writes one. What is damaged there,
or is not what its name says, is as if it were not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from nbcontain.build import cache_document
from nbcontain.build.cache_document import CACHE_CONFIG, Records
from nbcontain.errors import BadDocument, BuildError, StoreError
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import MANIFEST, REF_NAME, Descriptor, Index
from nbcontain.oci.strict_json import DOCUMENT_LIMIT
from nbcontain.store import Store, files
from nbcontain.store.archive_writer import OCI_LAYOUT, blob_path
from nbcontain.values import dataclass

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """One such directory."""

    path: Path
    tag: str = "latest"

    def records(self) -> Records:
        """What it knows of. Raises StoreError where there is none."""
        entries = [entry for entry in self._entries() if entry.annotations.get(REF_NAME, "latest") == self.tag]
        for entry in entries:
            config = cache_document.config_of(self._document(entry))
            if config is not None:
                return cache_document.parse(self._document(config))
        raise StoreError(f"{self.path} holds no build cache" + (f" {self.tag}" if self.tag != "latest" else ""))

    def take(self, descriptor: Descriptor, store: Store) -> None:
        """Have this blob in the store. Raises StoreError, OSError."""
        store.blobs.put(self._read(descriptor), descriptor.media_type, descriptor)

    def keep(self, records: Records, store: Store) -> None:
        """Write these here, in place of what the tag stood for. Raises BuildError where that cannot be."""
        data, blobs = cache_document.document_of(records)
        config = Descriptor(CACHE_CONFIG, Digest.of(data), len(data))
        manifest = cache_document.manifest_of(config, blobs)
        entry = Descriptor(MANIFEST, Digest.of(manifest), len(manifest), {REF_NAME: self.tag})
        try:
            files.make_directory(self.path / "blobs" / "sha256", 0o755)
            for layer in blobs:
                self._write(layer, store)
            for digest, document in ((config.digest, data), (entry.digest, manifest)):
                files.replace(self.path / blob_path(digest), document, 0o644, durable=False)
            files.replace(self.path / "oci-layout", OCI_LAYOUT, 0o644, durable=False)
            others = [each for each in self._entries_there() if each.annotations.get(REF_NAME) != self.tag]
            # Last, since it says that the rest is there.
            files.replace(self.path / "index.json", codec.dump_index(Index((*others, entry))), 0o644, durable=False)
        except OSError as error:
            raise BuildError(f"--cache-to {self.path} cannot be written", why=error.strerror or "") from error

    def _entries(self) -> Sequence[Descriptor]:
        try:
            return codec.parse_index(files.read(self.path / "index.json", DOCUMENT_LIMIT)).manifests
        except OSError as error:
            raise StoreError(f"{self.path} holds no build cache", why=error.strerror or "") from error

    def _entries_there(self) -> Sequence[Descriptor]:
        try:
            return self._entries()
        except StoreError:
            return ()

    def _document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > DOCUMENT_LIMIT:
            raise BadDocument(f"a document of the build cache has {descriptor.size} bytes")
        try:
            data = b"".join(self._read(descriptor))
        except OSError as error:
            raise StoreError(f"{self.path} is not whole", why=error.strerror or "") from error
        if Digest.of(data) != descriptor.digest:
            raise BadDocument(f"a document of the build cache in {self.path} is not what its digest says")
        return data

    def _read(self, descriptor: Descriptor) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self.path / blob_path(descriptor.digest), flags)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != descriptor.size:
                raise StoreError(f"a blob in {self.path} is not what its name says")
            while chunk := file.read(_READ_BYTES):
                yield chunk

    def _write(self, descriptor: Descriptor, store: Store) -> None:
        path = self.path / blob_path(descriptor.digest)
        if path.exists() and path.stat().st_size == descriptor.size:
            return
        with store.blobs.open(descriptor.digest) as blob, files.temporary(path.parent, 0o644) as (temporary, fd):
            while chunk := blob.read(_READ_BYTES):
                files.write(fd, chunk)
            files.move(temporary, path)
