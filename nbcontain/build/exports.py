"""Handing out what was built: files, archives of the image, its id, a description of it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from nbcontain.build.operations import Workshop
from nbcontain.build.outputs import Output
from nbcontain.build.sources import Writer, unpack_stream
from nbcontain.errors import BuildError
from nbcontain.oci.attestations import Attested
from nbcontain.oci.image import Descriptor, Image
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.store import destinations, files, tar
from nbcontain.store.archive_writer import Saved, write_archive, write_directory
from nbcontain.store.tar_writing import header_of
from nbcontain.values import dataclass, field

_READ_BYTES = 1 << 20
_PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class Variant:
    """The image for one platform."""

    image: Image
    statement: bytes = b""
    """Its provenance, for what has no index to put it in."""

    @property
    def place(self) -> str:
        """What the directory of its files is called where there are several."""
        return str(self.image.config.platform).replace("/", "_")


@dataclass(frozen=True, slots=True)
class Product:
    """What was built, what it is called, and what is said of it."""

    variants: tuple[Variant, ...]
    """At least one."""
    names: tuple[Reference, ...] = ()
    index: ImageIndex | None = None
    """Of several images."""
    attested: Attested | None = None
    entry_annotations: Mapping[str, str] = field(default_factory=dict)
    """Of its entry in an OCI layout's index.json."""

    @property
    def outermost(self) -> ImageIndex | None:
        """What leads to all of it, if that is not the one image."""
        return self.attested.index if self.attested else self.index

    @property
    def descriptor(self) -> Descriptor:
        """Of its index if it has one, or of its manifest."""
        if (index := self.outermost) is not None:
            return index.descriptor
        return self.variants[0].image.descriptor


def write(output: Output, product: Product, workshop: Workshop) -> None:
    """Write an output that is a file or a directory. Raises BuildError where it cannot be."""
    if not output.destination:
        return
    try:
        if output.kind == "local":
            _write_files(output, product, workshop)
        elif output.kind == "tar":
            _write_tar(output, product, workshop)
        else:
            _write_image(output, product, workshop)
    except OSError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=error.strerror or "") from error
    except tarfile.TarError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=str(error)) from error


class _Outside(Writer):
    """Files that are no longer whose they are in the image: set-id bits would speak of whoever builds."""

    def file(self, path: str, data: IO[bytes], mode: int) -> None:
        super().file(path, data, mode & ~tar.SET_IDS)


def _write_files(output: Output, product: Product, workshop: Workshop) -> None:
    splits = len(product.variants) > 1 if output.platform_split is None else output.platform_split
    if not splits:
        _refuse_twice(product, workshop)
    for each in product.variants:
        directory = Path(output.destination, each.place if splits else "")
        directory.mkdir(parents=True, exist_ok=True)
        with _Outside.at(directory) as writer:
            _read_files(each.image, workshop, partial(unpack_stream, writer=writer, what=str(directory)))
        if each.statement:
            # BuildKit's names: those of several in one directory are told apart.
            name = f"provenance.{each.place}.json" if output.platform_split is False else _PROVENANCE
            files.replace(directory / name, each.statement, 0o644, durable=False)


def _refuse_twice(product: Product, workshop: Workshop) -> None:
    """Files of several platforms go into one directory only where none of them is in two. Raises BuildError."""
    owners: dict[bytes, str] = {}
    for each in product.variants if len(product.variants) > 1 else ():
        _read_files(each.image, workshop, partial(_refuse_owned, owners, each.place))


def _refuse_owned(owners: dict[bytes, str], place: str, stream: IO[bytes]) -> None:
    reader = tar.Reader(cast(tar.Readable, stream))
    while (entry := reader.next()) is not None:
        reader.skip()
        if entry.kind != tar.DIRECTORY and (other := owners.setdefault(entry.name, place)) != place:
            raise BuildError(
                f"{os.fsdecode(entry.name)} of {place} would overwrite that of {other}",
                hint="leave platform-split=false away: each platform has a directory of its own then",
            )


def _write_tar(output: Output, product: Product, workshop: Workshop) -> None:
    """The files of the image; those of several below the names of their platforms."""
    [first, *others] = product.variants
    with destinations.opened(output.destination, hint="dest=FILE, or a pipe") as sink:
        for each in product.variants:
            prefix = f"{each.place}/" if others else ""
            if prefix:
                sink(header_of(tar.Entry(prefix.encode(), tar.DIRECTORY, 0o755, 0, 0, 0, 0)))
            if each.statement:
                sink(_member(prefix + _PROVENANCE, each.statement))
            _read_files(each.image, workshop, partial(_below, prefix.encode(), sink) if prefix else partial(_all, sink))
        if others:
            sink(bytes(2 * tar.BLOCK))


def _all(sink: Callable[[bytes], None], stream: IO[bytes]) -> None:
    while chunk := stream.read(_READ_BYTES):
        sink(chunk)


def _below(prefix: bytes, sink: Callable[[bytes], None], stream: IO[bytes]) -> None:
    """All of an archive but for its end, below a directory."""
    reader = tar.Reader(cast(tar.Readable, stream))
    while (entry := reader.next()) is not None:
        entry.name = prefix + entry.name
        if entry.kind == tar.LINK:
            entry.link = prefix + entry.link
        sink(header_of(entry))
        size = 0
        while piece := reader.chunk():
            size += len(piece)
            sink(bytes(piece))
        sink(bytes(-size % tar.BLOCK))
    reader.finish()


def _write_image(output: Output, product: Product, workshop: Workshop) -> None:
    names = tuple(dict.fromkeys((*output.names, *product.names)))
    attested = product.attested if output.carries_attestations else None
    saved = [
        Saved(
            each.image, names, attested.index if attested else product.index, attested.blobs if attested else {},
            product.entry_annotations, with_docker_table=output.kind == "docker",
        )
        for each in product.variants
    ]  # fmt: skip
    blobs = workshop.store.blobs
    if output.is_directory:
        write_directory(saved, blobs, Path(output.destination).absolute(), lambda size: None)
        return
    with destinations.opened(output.destination, hint="dest=FILE, or a pipe") as sink:
        write_archive(saved, blobs, sink, lambda size: None)


def _member(name: str, data: bytes) -> bytes:
    header = header_of(tar.Entry(name.encode(), tar.REGULAR, 0o644, 0, 0, len(data), 0))
    return header + data + bytes(-len(data) % tar.BLOCK)


def _read_files(image: Image, workshop: Workshop, read: Callable[[IO[bytes]], object]) -> None:
    """Have all the files of an image read as one tar, packed with the image as the whole world."""
    workshop.require("-o")
    workshop.unpack(image.layers)

    def read_all(source: int) -> None:
        with open(source, "rb", closefd=False) as stream:
            read(stream)
            while stream.read(_READ_BYTES):
                pass

    if image.chain_id is None:
        read(io.BytesIO(bytes(2 * tar.BLOCK)))
    else:
        workshop.stacks.read(image.chain_id, read_all)


# --- what is told of it -----------------------------------------------------------------------


def metadata_of(product: Product, provenances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What buildx writes into --metadata-file, but for a reference to a builder's history, which there is not.

    `provenances` are those of the images, or none.
    """
    descriptor, [first, *others] = product.descriptor, product.variants
    images = [each.image for each in product.variants]
    told = {
        f"buildx.build.provenance/{image.config.platform}" if others else "buildx.build.provenance": each
        for image, each in zip(images, provenances, strict=False)
    }
    document: dict[str, Any] = {"mediaType": descriptor.media_type, "digest": str(descriptor.digest)}
    document["size"] = descriptor.size
    one: dict[str, Any] = {}
    if not others:
        created = first.image.config.created
        about = {"org.opencontainers.image.created": created} if created else {}
        document["annotations"] = {"config.digest": str(first.image.id), **about}
        one["containerimage.config.digest"] = str(first.image.id)
    return {
        **told,
        **one,
        "containerimage.descriptor": document,
        "containerimage.digest": str(descriptor.digest),
        **({"image.name": ",".join(map(str, product.names))} if product.names else {}),
    }


def write_text(path: str, text: str) -> None:
    """A small file beside the build, whole or not at all. Raises BuildError."""
    try:
        destinations.write(path, text.encode())
    except OSError as error:
        raise BuildError(f"{path} cannot be written", why=error.strerror or "") from error


def write_metadata(path: str, document: Mapping[str, Any]) -> None:
    """The file that --metadata-file names. Raises BuildError."""
    write_text(path, json.dumps(document, indent=2) + "\n")
