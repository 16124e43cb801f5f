"""A build cache in a registry: --cache-to and --cache-from type=registry, and what images bring along (type=inline)."""

from __future__ import annotations

from nbcontain.build import cache_document
from nbcontain.build.cache_document import CACHE_CONFIG, Records
from nbcontain.errors import BadDocument
from nbcontain.events import Emit
from nbcontain.oci import codec, indexes, platforms
from nbcontain.oci.image import MANIFEST, Descriptor, Platform
from nbcontain.oci.reference import Reference
from nbcontain.oci.strict_json import DOCUMENT_LIMIT
from nbcontain.registry.client import RegistryClient
from nbcontain.registry.pull import Pull
from nbcontain.registry.push import Push
from nbcontain.store import Store
from nbcontain.store.stacks import Stacks
from nbcontain.values import dataclass

_TASK = "build cache"


@dataclass(frozen=True, slots=True)
class CacheRepository:
    """What a name in a registry stands for, over an open connection."""

    reference: Reference
    client: RegistryClient
    stacks: Stacks
    emit: Emit
    platform: Platform

    def records(self) -> Records:
        """What it knows of: of a cache, or of what an image brings along. Raises RegistryError, BadDocument."""
        descriptor, raw = self.client.manifest(self.reference.repository, self._tag)
        if descriptor.media_type in codec.INDEXES:
            chosen = platforms.choose(indexes.index_from(raw).entries, self.platform, self.reference.familiar)
            raw = self.client.manifest(self.reference.repository, str(chosen.digest))[1]
        config = cache_document.config_of(raw)
        if config is not None:
            return cache_document.parse(self._document(config))
        image = codec.image_from(raw, self._document(codec.parse_manifest(raw).config))
        return cache_document.parse_inline(image.config.inline_cache, image) if image.config.inline_cache else {}

    def take(self, descriptor: Descriptor, store: Store) -> None:
        """Have this blob in the store, verified. Raises RegistryError, DigestMismatch."""
        Pull(self.client, self.stacks, self.emit, _TASK).blob(self.reference, descriptor)

    def keep(self, records: Records, store: Store) -> None:
        """Send these, in place of what the name stood for. Raises RegistryError."""
        data, blobs = cache_document.document_of(records)
        config = store.blobs.put([data], CACHE_CONFIG)
        push = Push(self.client, store, self.emit, _TASK)
        for each in (*blobs, config):
            push.blob(self.reference.repository, each)
        manifest = cache_document.manifest_of(config, blobs)
        self.client.put_manifest(self.reference.repository, self._tag, MANIFEST, manifest)

    @property
    def _tag(self) -> str:
        return str(self.reference.digest or self.reference.tag or "latest")

    def _document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > DOCUMENT_LIMIT:
            raise BadDocument(f"the build cache {self.reference.familiar} is larger than {DOCUMENT_LIMIT >> 20} MiB")
        self.take(descriptor, self.stacks.store)
        return self.stacks.store.blobs.read(descriptor.digest, DOCUMENT_LIMIT)
