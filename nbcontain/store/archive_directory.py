"""Images in a directory, member by member as in a tar: an OCI layout, docker's archive unpacked, or skopeo's own.

`skopeo copy … dir:PATH` and `podman save --format docker-dir` write the last (containers-transports(5)): a manifest,
`manifest.json`, and beside it blobs by their digests without the algorithm; of an index its manifests too, as
`DIGEST.manifest.json`. No names. It is read as the OCI layout that it could be.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

from nbcontain.errors import BadArchive, BadDocument, StoreError
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX, MANIFEST, Descriptor, Index
from nbcontain.oci.strict_json import DOCUMENT_LIMIT, load
from nbcontain.store import files
from nbcontain.store.archive_writer import OCI_LAYOUT, blob_path

_PIECE_BYTES = 256 << 10
_BLOB = re.compile(r"([0-9a-f]{64})(?:\.manifest\.json)?")


class File:
    """A member's data."""

    def __init__(self, file: RawIOBase | io.BytesIO) -> None:
        self._file = file

    def chunk(self) -> bytes:
        return self._file.read(_PIECE_BYTES) or b""

    def readinto(self, buffer: memoryview, /) -> int:
        return self._file.readinto(buffer) or 0


Member = tuple[str, int, str, File]
"""A name, a size, where a link leads to or "", and the data."""


def members(root: Path) -> Iterator[Member]:
    """All that is in the directory; no link is followed. Raises StoreError, BadArchive, BadDocument."""
    if not (root / "index.json").exists() and not (root / "manifest.json").exists():
        raise StoreError(f"{root} holds no images", why="it has neither index.json nor manifest.json")
    if (root / "version").is_file() and not (root / "index.json").exists():
        yield from _of_skopeo(root)
        return
    for directory, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            yield from _member(path, os.path.relpath(path, root))


def _of_skopeo(root: Path) -> Iterator[Member]:
    for name in sorted(files.names(root)):
        if (match := _BLOB.fullmatch(name)) is not None:
            yield from _member(str(root / name), blob_path(Digest("sha256", match[1])))
    raw = files.read(root / "manifest.json", DOCUMENT_LIMIT)
    said = load(raw, "manifest.json")
    if said.number("schemaVersion") != 2:
        raise BadDocument(f"{root} holds a manifest of docker's old schema 1", hint="skopeo copy --format oci")
    media_type = said.text("mediaType") or (INDEX if said.objects("manifests") else MANIFEST)
    entry = Descriptor(media_type, Digest.of(raw), len(raw))
    index = codec.dump_index(Index((entry,)))
    for name, data in ((blob_path(entry.digest), raw), ("oci-layout", OCI_LAYOUT), ("index.json", index)):
        yield name, len(data), "", File(io.BytesIO(data))


def _member(path: str, shown: str) -> Iterator[Member]:
    try:
        if os.path.islink(path):
            # Of layers that two images have; it leads to another member, or nowhere.
            target = os.path.normpath(os.path.join(os.path.dirname(shown), os.readlink(path)))
            yield shown, 0, target, File(io.BytesIO())
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadArchive(f"{shown!r} cannot be read", why=error.strerror or "") from error
    with os.fdopen(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadArchive(f"{shown!r} is no file")
        yield shown, status.st_size, "", File(file)
