"""Handing out what was built: files, archives of the image, its id, a description of it."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from nbcontain.build.operations import Workshop
from nbcontain.build.outputs import Output
from nbcontain.build.sources import Writer, unpack_stream
from nbcontain.errors import BuildError, UsageError
from nbcontain.oci.attestations import Attested
from nbcontain.oci.image import Descriptor, Image
from nbcontain.oci.reference import Reference
from nbcontain.store import files, tar
from nbcontain.store.archive_writer import Saved, write_archive, write_directory
from nbcontain.values import dataclass, field

_PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class Product:
    """An image, what it is called, and what is said of it."""

    image: Image
    names: tuple[Reference, ...] = ()
    attested: Attested | None = None
    statement: bytes = b""
    """Its provenance, for what has no index to put it in."""
    entry_annotations: Mapping[str, str] = field(default_factory=dict)
    """Of its entry in an OCI layout's index.json."""

    @property
    def descriptor(self) -> Descriptor:
        """Of its index if it has one, or of its manifest."""
        if self.attested is not None:
            return self.attested.index.descriptor
        manifest = self.image.manifest
        return Descriptor(manifest.media_type, self.image.digest, len(self.image.raw_manifest))


def write(output: Output, product: Product, workshop: Workshop) -> None:
    """Write an output that is a file or a directory. Raises BuildError where it cannot be."""
    if not output.destination:
        return
    try:
        if output.kind == "local":
            _write_files(output, product, workshop)
        elif output.kind == "tar":
            with tar_of_image(product.image, workshop) as stream, _sink(output.destination) as sink:
                if product.statement:
                    sink(_member(_PROVENANCE, product.statement))
                while chunk := stream.read(1 << 20):
                    sink(chunk)
        else:
            _write_image(output, product, workshop)
    except OSError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=error.strerror or "") from error
    except tarfile.TarError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=str(error)) from error


def _write_files(output: Output, product: Product, workshop: Workshop) -> None:
    directory = Path(output.destination)
    directory.mkdir(parents=True, exist_ok=True)
    with tar_of_image(product.image, workshop) as stream, Writer.at(directory) as writer:
        unpack_stream(stream, writer, str(directory))
    if product.statement:
        files.replace(directory / _PROVENANCE, product.statement, 0o644, durable=False)


def _write_image(output: Output, product: Product, workshop: Workshop) -> None:
    names = tuple(dict.fromkeys((*output.names, *product.names)))
    attested = product.attested if output.carries_attestations else None
    saved = Saved(
        product.image, names, attested.index if attested else None, attested.blobs if attested else {},
        product.entry_annotations, with_docker_table=output.kind == "docker",
    )  # fmt: skip
    blobs = workshop.store.blobs
    if output.is_directory:
        write_directory((saved,), blobs, Path(output.destination).absolute(), lambda size: None)
        return
    with _sink(output.destination) as sink:
        write_archive((saved,), blobs, sink, lambda size: None)


def _member(name: str, data: bytes) -> bytes:
    header = tar.header_of(tar.Entry(name.encode(), tar.REGULAR, 0o644, 0, 0, len(data), 0))
    return header + data + bytes(-len(data) % tar.BLOCK)


@contextmanager
def _sink(destination: str) -> Iterator[Callable[[bytes], None]]:
    """A file that appears whole, or standard output."""
    if destination == "-":
        stream = cast(IO[bytes] | None, getattr(sys.stdout, "buffer", None))
        if stream is None or sys.stdout.isatty():
            raise UsageError("an archive is nothing to look at", hint="dest=FILE, or a pipe")
        yield lambda data: cast(None, stream.write(data))
        stream.flush()
        return
    path = Path(destination).absolute()
    with files.disk(path.parent), files.temporary(path.parent, 0o644) as (temporary, fd):
        yield lambda data: files.write(fd, data)
        files.move(temporary, path)


@contextmanager
def tar_of_image(image: Image, workshop: Workshop) -> Iterator[IO[bytes]]:
    """All the files of an image as one tar, packed with the image as the whole world."""
    workshop.require("-o")
    workshop.unpack(image.layers)
    chain = image.chain_id
    source, sink = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            if chain is None:
                os.write(sink, bytes(1024))
                return
            workshop.stacks.export(chain, lambda data: files.write(sink, data))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)
        finally:
            os.close(sink)

    thread = threading.Thread(target=pack, name="nbcontain output", daemon=True)
    thread.start()
    with os.fdopen(source, "rb") as stream:
        try:
            yield stream
            while stream.read(1 << 20):
                pass
        finally:
            stream.close()
            thread.join()
    if failed:
        raise failed[0]


# --- what is told of it -----------------------------------------------------------------------


def metadata_of(product: Product, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """What buildx writes into --metadata-file, but for a reference to a builder's history, which there is not."""
    image, descriptor = product.image, product.descriptor
    created = {"org.opencontainers.image.created": image.config.created} if image.config.created else {}
    return {
        **({"buildx.build.provenance": provenance} if provenance is not None else {}),
        "containerimage.config.digest": str(image.id),
        "containerimage.descriptor": {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
            "annotations": {"config.digest": str(image.id), **created},
        },
        "containerimage.digest": str(descriptor.digest),
        **({"image.name": ",".join(map(str, product.names))} if product.names else {}),
    }


def write_text(path: str, text: str) -> None:
    """A small file beside the build, whole or not at all. Raises BuildError."""
    try:
        files.replace(Path(path).absolute(), text.encode(), 0o644, durable=False)
    except OSError as error:
        raise BuildError(f"{path} cannot be written", why=error.strerror or "") from error


def write_metadata(path: str, document: Mapping[str, Any]) -> None:
    """The file that --metadata-file names. Raises BuildError."""
    write_text(path, json.dumps(document, indent=2) + "\n")
