"""Images as one tar that everybody reads: an OCI image layout (image-spec image-layout.md) with docker's manifest.json.

As docker writes it since 25: the blobs once, named by their digests, and two tables of contents. skopeo, umoci and
containerd read index.json, older dockers and podman manifest.json. The same images always give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.errors import UsageError
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import REF_NAME, Descriptor, Image, Index, Platform
from nbcontain.oci.indexes import ImageIndex, entry_of
from nbcontain.oci.reference import Reference
from nbcontain.store import files, removal, tar
from nbcontain.store.blobs import Blobs
from nbcontain.store.tar_writing import header_of
from nbcontain.values import dataclass, field, replace

CONTAINERD_NAME = "io.containerd.image.name"
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_READ_BYTES = 1 << 20
Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Saved:
    """An image, and the names that it is to have in the archive."""

    image: Image
    names: tuple[Reference, ...] = ()
    index: ImageIndex | None = None
    """What the names point at, if it is not the image itself."""
    blobs: Mapping[Digest, bytes] = field(default_factory=dict, repr=False)
    """What else the index leads to."""
    entry_annotations: Mapping[str, str] = field(default_factory=dict)
    """Of its entry in index.json."""
    with_docker_table: bool = True
    """Whether docker's manifest.json names it, too."""


def documents_of(saved: Sequence[Saved]) -> dict[str, bytes]:
    """The small files of the archive: what it is, its two tables of contents, manifests and configs."""
    # The images of an index have one entry together.
    meant: dict[str, set[Digest]] = {}
    for one in saved:
        for name in one.names:
            meant.setdefault(name.tag or "", set()).add(_plain(one).digest)
    alike = frozenset(tag for tag, digests in meant.items() if len(digests) > 1)
    entries = {(str(each.digest), *each.annotations.items()): each for one in saved for each in _entries(one, alike)}
    found = {
        "oci-layout": OCI_LAYOUT,
        "index.json": codec.dump_index(Index(tuple(entries.values()))),
    }
    if table := [_docker_entry(each) for each in saved if each.with_docker_table]:
        found["manifest.json"] = json.dumps(table, separators=(",", ":")).encode()
    for each in saved:
        if each.index is not None:
            found[blob_path(each.index.digest)] = each.index.raw
        found |= {blob_path(digest): data for digest, data in each.blobs.items()}
        found[blob_path(each.image.digest)] = each.image.raw_manifest
        found[blob_path(each.image.id)] = each.image.raw_config
    return found


def layers_of(saved: Sequence[Saved]) -> tuple[Descriptor, ...]:
    """The layers that the archive holds, each once."""
    return tuple({layer.digest: layer for each in saved for layer in each.image.manifest.layers}.values())


def write_archive(saved: Sequence[Saved], blobs: Blobs, write: Write, told: Callable[[int], None]) -> None:
    """Write these images as a tar; `told` is given how many bytes of layers are through, now and then.

    Raises StoreError, and DigestMismatch for a layer that the disk has damaged.
    """
    documents = documents_of(saved)
    folders = sorted({path.rpartition("/")[0] + "/" for path in documents if "/" in path} | {"blobs/"})
    for folder in folders:
        write(header_of(_entry(folder, tar.DIRECTORY, 0o755, 0)))
    # What is small first: whoever reads from a pipe knows then what is to come.
    for path, data in documents.items():
        write(header_of(_entry(path, tar.REGULAR, 0o644, len(data))) + data + bytes(-len(data) % tar.BLOCK))
    done = 0
    for layer in layers_of(saved):
        with blobs.open(layer.digest) as blob:
            write(header_of(_entry(blob_path(layer.digest), tar.REGULAR, 0o444, layer.size)))
            while data := blob.read(_READ_BYTES):
                write(data)
                done += len(data)
                told(done)
        write(bytes(-layer.size % tar.BLOCK))
    write(bytes(2 * tar.BLOCK))


def write_directory(saved: Sequence[Saved], blobs: Blobs, target: Path, told: Callable[[int], None]) -> None:
    """Write these images as an OCI layout into a directory that is empty or not there.

    It is made beside its place, and moved there when it is whole: the same again succeeds whenever this is interrupted.
    Raises UsageError for another directory, OSError, StoreError, DigestMismatch.
    """
    if target.is_dir() and os.listdir(target):
        raise UsageError(f"{target} is not empty", hint="An OCI layout goes into a directory of its own.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.disk(target.parent), files.temporary_directory(target.parent) as made:
        try:
            _fill(made, saved, blobs, told)
            files.set_mode(made, 0o755)
            files.move(made, target)
        finally:
            removal.remove_tree(made)


def _fill(directory: Path, saved: Sequence[Saved], blobs: Blobs, told: Callable[[int], None]) -> None:
    done = 0
    for layer in layers_of(saved):
        path = directory / blob_path(layer.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with blobs.open(layer.digest) as blob, files.temporary(path.parent, 0o644) as (temporary, fd):
            while data := blob.read(_READ_BYTES):
                files.write(fd, data)
                told(done := done + len(data))
            files.move(temporary, path)
    for name, data in documents_of(saved).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, data, 0o644, durable=False)


def blob_path(digest: Digest) -> str:
    """Where a blob is in an image layout (image-layout.md#blobs)."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _entry(path: str, kind: bytes, mode: int, size: int) -> tar.Entry:
    return tar.Entry(path.encode(), kind, mode, 0, 0, size, 0)


def _plain(saved: Saved) -> Descriptor:
    return saved.index.descriptor if saved.index is not None else entry_of(saved.image)


def _entries(saved: Saved, alike: Collection[str]) -> list[Descriptor]:
    """Its entries in index.json, one for each name. `alike` are tags that several images have: these have whole names,
    as their tags say nothing. A name with the digest of an index that is not in the archive is left out."""
    plain = replace(_plain(saved), annotations=saved.entry_annotations)
    names = [
        {**saved.entry_annotations, CONTAINERD_NAME: str(name),
         **({REF_NAME: str(name) if name.tag in alike else name.tag} if name.tag else {})}
        for name in saved.names if name.digest in (None, plain.digest)
    ]  # fmt: skip
    return [replace(plain, annotations=each) for each in names] or [plain]


def _docker_entry(saved: Saved) -> dict[str, Any]:
    # manifest.json knows no platforms: there the names are this machine's.
    is_meant = saved.index is None or len(saved.index.platforms) < 2 or saved.image.config.platform == Platform.here()
    return {
        "Config": blob_path(saved.image.id),
        "RepoTags": [name.familiar for name in saved.names if is_meant and name.digest is None] or None,
        "Layers": [blob_path(layer.digest) for layer in saved.image.manifest.layers],
    }
