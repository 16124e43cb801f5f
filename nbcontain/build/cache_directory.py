"""A build cache in a directory, to be carried to another machine: --cache-to and --cache-from type=local.

`<key>.json` is what `store.cache` knows of a step's result, `blobs/sha256/` are its layers. What is damaged
there, or is not what its name says, is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from nbcontain.errors import BuildError, StoreError, UsageError
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor
from nbcontain.store import Store, cache, files
from nbcontain.store.cache import CacheRecord
from nbcontain.values import dataclass

_READ_BYTES = 1 << 20
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """One such directory."""

    path: Path

    @classmethod
    def parse(cls, text: str, flag: str) -> CacheDirectory:
        """Read type=local,dest=DIR (or src=DIR, as --cache-from says it). Raises UsageError."""
        pairs = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"type": "registry"}
        kind = pairs.pop("type", "registry")
        place = pairs.pop("dest", "") or pairs.pop("src", "")
        if kind != "local":
            raise UsageError(
                f"{flag} {text}: caches of builds are kept in directories",
                why=f"type={kind} is not here",
                hint=f"{flag} type=local,{'dest' if flag == '--cache-to' else 'src'}=DIR",
            )
        for name in ("mode", "compression", "ignore-error", "tag"):
            pairs.pop(name, None)
        if not place or pairs:
            raise UsageError(f"{flag} {text} cannot be read", hint=f"{flag} type=local,dest=DIR")
        return cls(Path(place).expanduser().absolute())

    def fetch(self, key: Digest, store: Store) -> CacheRecord | None:
        """Take a step's result over into the store, if it is here and whole."""
        try:
            record = cache.decode(files.read(self.path / f"{key.hex}.json", _LIMIT), key)
            if record is None:
                return None
            for layer in record.layers:
                if not store.blobs.has(layer.descriptor):
                    store.blobs.put(self._read(layer.descriptor), layer.descriptor.media_type, layer.descriptor)
        except (FileNotFoundError, NotADirectoryError, StoreError, ValueError, KeyError, TypeError, RecursionError):
            return None
        store.cache.put(key, record)
        return record

    def keep(self, keys: Iterable[Digest], store: Store) -> None:
        """Write the results of these steps here. Raises BuildError where that cannot be."""
        blobs = self.path / "blobs" / "sha256"
        try:
            files.make_directory(blobs, 0o755)
            for key in keys:
                record = store.cache.peek(key)
                if record is None:
                    continue
                for layer in record.layers:
                    self._write(blobs / layer.descriptor.digest.hex, layer.descriptor, store)
                # Last, since it says that the layers are there.
                files.replace(self.path / f"{key.hex}.json", cache.encode(record, key), 0o644, durable=False)
        except OSError as error:
            raise BuildError(f"--cache-to {self.path} cannot be written", why=error.strerror or "") from error

    def _read(self, descriptor: Descriptor) -> Iterator[bytes]:
        with open(self.path / "blobs" / "sha256" / descriptor.digest.hex, "rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk

    def _write(self, path: Path, descriptor: Descriptor, store: Store) -> None:
        if path.exists() and path.stat().st_size == descriptor.size:
            return
        with store.blobs.open(descriptor.digest) as blob, files.temporary(path.parent, 0o644) as (temporary, fd):
            while chunk := blob.read(_READ_BYTES):
                files.write(fd, chunk)
            files.move(temporary, path)
