"""The build cache: what a step yielded, by the digest of all it depended on.

It may be lost and is never wrong: a record that is damaged, or whose blobs are not all there, is
dropped when it is read.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from nbcontain.errors import BadDigest, BadDocument, StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import Descriptor, Layer
from nbcontain.oci.strict_json import load
from nbcontain.store import files
from nbcontain.store.blobs import Blobs
from nbcontain.store.builds import layers_to_json
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass

_LIMIT = 1 << 20
_POLL_S = 0.03


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """The layers of a step's file system, lowest first; when it was made (RFC 3339), from which line."""

    layers: tuple[Layer, ...]
    created: str
    created_by: str


class BuildCache:
    """The records of one store, a file each."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def get(self, key: Digest) -> CacheRecord | None:
        """What is known under that key, all of whose blobs are there; using it makes it young again."""
        record = self.peek(key)
        if record is not None:
            with suppress(FileNotFoundError):
                files.touch(self._layout.cache_record(key))
        return record

    def peek(self, key: Digest) -> CacheRecord | None:
        """The same, without using it."""
        try:
            record = self._sound(key)
        except FileNotFoundError:
            return None
        if record is None:
            files.unlink(self._layout.cache_record(key))
        return record

    def is_sound(self, key: Digest) -> bool:
        """Whether there is such a record, and it is worth something; it is left alone either way."""
        try:
            return self._sound(key) is not None
        except FileNotFoundError:
            return False

    def _sound(self, key: Digest) -> CacheRecord | None:
        """A record that can be read and whose blobs are all there; None for a useless one."""
        try:
            record = decode(files.read(self._layout.cache_record(key), _LIMIT), key)
        except StoreError:
            return None
        return record if all(self._blobs.has(layer.descriptor) for layer in record.layers) else None

    def put(self, key: Digest, record: CacheRecord) -> None:
        """Remember it. Not synced: a record that a power cut damaged is recognised and dropped."""
        files.replace(self._layout.cache_record(key), encode(record, key), durable=False)

    @contextmanager
    def making(self, key: Digest, waiting: Callable[[float], None]) -> Iterator[None]:
        """Held by whoever makes what `key` stands for: one at a time, in whichever process.

        While another is at it, `waiting` is called again and again with the seconds so far; it may raise. If
        the other dies, its place is free at once. Look the key up again afterwards.
        """
        path = self._layout.being_made(key)
        started = time.monotonic()
        while True:
            fd = files.try_lock(path)
            if fd is None:
                waiting(time.monotonic() - started)
                time.sleep(_POLL_S)
                continue
            if os.fstat(fd).st_nlink:
                break
            # Its last holder took it away between our opening and locking.
            os.close(fd)
        try:
            yield
        finally:
            files.unlink(path)
            os.close(fd)

    def remove(self, key: Digest) -> None:
        """Idempotent."""
        files.unlink(self._layout.cache_record(key))

    def walk(self) -> Iterator[tuple[Digest, float]]:
        """Every key and when it was last used, in seconds since the epoch."""
        with os.scandir(self._layout.cache) as listing:
            for entry in listing:
                try:
                    yield Digest.parse(f"sha256:{entry.name.removesuffix('.json')}"), entry.stat().st_mtime
                except (BadDigest, FileNotFoundError):
                    continue


def encode(record: CacheRecord, key: Digest) -> bytes:
    """A record as it is kept."""
    layers = layers_to_json(record.layers)
    document = {"key": str(key), "layers": layers, "created": record.created, "created_by": record.created_by}
    return json.dumps(document, separators=(",", ":")).encode()


def decode(data: bytes, key: Digest) -> CacheRecord:
    """The inverse. Raises BadDocument, also for another key's record, whatever way it came there."""
    fields = load(data, "cache record")
    if fields.text("key") != str(key):
        raise BadDocument("the cache record is another key's")
    layers = tuple(
        Layer(
            Descriptor(
                layer.text("mediaType", required=True), layer.digest("digest"), layer.count("size", required=True)
            ),
            DiffID(layer.digest("diffID")),
        )
        for layer in fields.objects("layers", required=True)
    )
    return CacheRecord(layers, fields.text("created"), fields.text("created_by"))
