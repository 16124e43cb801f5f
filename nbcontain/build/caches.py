"""Where results of steps come from besides the store, and where they are kept too: --cache-from and --cache-to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nbcontain.build.cache_directory import CacheDirectory
from nbcontain.build.cache_document import Records, is_part_of
from nbcontain.errors import BadDocument, Cancelled, NbcontainError, UsageError
from nbcontain.events import Emit, Notice, Progress
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, Image, Layer, Platform
from nbcontain.oci.reference import Reference
from nbcontain.store import Store
from nbcontain.store.cache import CacheRecord
from nbcontain.store.compression import uncompressed
from nbcontain.truth import truth
from nbcontain.values import dataclass, field

if TYPE_CHECKING:
    from nbcontain.registry.registries import Registries
    from nbcontain.store.stacks import Stacks

_KINDS = ("local", "registry", "inline")
_READ_BYTES = 1 << 20
_UNUSED = ("compression", "compression-level", "force-compression", "oci-mediatypes", "image-manifest", "digest")
"""What buildx's users write too, and what is so in any case."""


class Cache(Protocol):
    """One that is at hand."""

    def records(self) -> Records: ...
    def take(self, descriptor: Descriptor, store: Store) -> None: ...
    def keep(self, records: Records, store: Store) -> None: ...


@dataclass(frozen=True, slots=True)
class CachePlace:
    """One --cache-from or --cache-to."""

    kind: str
    place: str
    """A directory, or a name in a registry; "" for inline."""
    is_max: bool = False
    """The results of all steps, and not only of those that the image stands on."""
    may_fail: bool = False
    tag: str = "latest"

    @classmethod
    def parse(cls, text: str, flag: str) -> CachePlace:
        """Read type=local,dest=DIR (or src=DIR), type=registry,ref=NAME, type=inline, NAME. Raises UsageError."""
        writes = flag == "--cache-to"
        place = "dest" if writes else "src"
        hint = f"{flag} type=registry,ref=NAME, {flag} type=local,{place}=DIR" + (", or type=inline" if writes else "")
        pairs = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"ref": text}
        kind = pairs.pop("type", "registry")
        if kind not in _KINDS or (kind == "inline" and not writes):
            raise UsageError(f"{flag} {text}: there is no cache of type {kind}", hint=hint)
        name = "ref" if kind == "registry" else place
        where, mode, tag = pairs.pop(name, ""), pairs.pop("mode", "min"), pairs.pop("tag", "latest")
        may_fail = truth(pairs.pop("ignore-error", "false"))
        for each in _UNUSED:
            pairs.pop(each, None)
        if pairs or may_fail is None or mode not in ("min", "max") or bool(where) == (kind == "inline"):
            raise UsageError(f"{flag} {text} cannot be read", hint=hint)
        if kind == "registry":
            Reference.parse(where)
        if kind == "local":
            where = str(Path(where).expanduser().absolute())
        return cls(kind, where, mode == "max", may_fail, tag)

    @contextmanager
    def opened(
        self, registries: Registries, stacks: Stacks, emit: Emit, platform: Platform, *, writing: bool = False
    ) -> Iterator[Cache]:
        """The cache that is there."""
        if self.kind == "local":
            yield CacheDirectory(Path(self.place), self.tag)
            return
        # Not loaded before it is needed: it brings HTTP with it.
        from nbcontain.build.cache_repository import CacheRepository

        reference = Reference.parse(self.place)
        with registries.client(reference, writing=writing) as client:
            yield CacheRepository(reference, client, stacks, emit, platform)


@dataclass(slots=True)
class CacheImport:
    """Foreign results, taken over one by one; nothing in them is believed that can be looked at."""

    cache: Cache
    store: Store
    emit: Emit
    known: dict[Digest, CacheRecord] = field(default_factory=dict)
    verified: set[Layer] = field(default_factory=set)

    def begin(self, name: str) -> CacheImport:
        """Look what there is. One that cannot be read is told of, and is as if it were empty."""
        try:
            self.known = dict(self.cache.records())
        except (NbcontainError, OSError) as error:
            why = getattr(error, "why", "") or ""
            self.emit(Notice("build", f"--cache-from {name} is not used: {error}", why))
        return self

    def fetch(self, key: Digest, store: Store) -> CacheRecord | None:
        """Take a step's result over into the store, if it is there and whole."""
        record = self.known.get(key)
        if record is None:
            return None
        try:
            for layer in record.layers:
                self._take(layer)
        except Cancelled:
            raise
        except (NbcontainError, OSError):
            del self.known[key]
            return None
        store.cache.put(key, record)
        return record

    def _take(self, layer: Layer) -> None:
        if layer in self.verified:
            return
        if not self.store.blobs.has(layer.descriptor):
            self.cache.take(layer.descriptor, self.store)
        # A right blob under a wrong diff ID would stand in for another layer of the same name.
        whole = hashlib.new(layer.diff_id.algorithm)
        with self.store.blobs.open(layer.descriptor.digest) as blob:
            stream, buffer = uncompressed(blob), memoryview(bytearray(_READ_BYTES))
            while count := stream.readinto(buffer):
                whole.update(buffer[:count])
                self.emit(Progress("build", 0))
        if whole.hexdigest() != layer.diff_id.hex:
            raise BadDocument(f"the layer {layer.descriptor.digest.short} of the build cache is not what it says")
        self.verified.add(layer)


def results(keys: tuple[Digest, ...], store: Store) -> dict[Digest, CacheRecord]:
    """What the store knows under these keys."""
    return {key: record for key in keys if (record := store.cache.peek(key)) is not None}


def kept(place: CachePlace, made: Mapping[Digest, CacheRecord], images: tuple[Image, ...]) -> Records:
    """What of these goes into a cache."""
    if place.is_max:
        return made
    return {key: record for key, record in made.items() if any(is_part_of(record, image) for image in images)}
