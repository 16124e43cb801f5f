"""What a build hands out beside the image in the store: its files, its id, a description of what was built."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from nbcontain.build.sources import Writer, unpack_stream
from nbcontain.errors import BuildError, UsageError
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.store import files
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.build.operations import Workshop

_HINT = "-o type=local,dest=DIR, -o type=tar,dest=FILE, -o DIR or -o - for a tar on standard output"
_KINDS = ("local", "tar", "image", "docker")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the files of the image go, as buildx's --output says it."""

    kind: str
    """local: a directory of files; tar: one tar of them; image: the store, and nothing besides."""
    destination: str
    """"-" is standard output."""

    @classmethod
    def parse(cls, text: str) -> Output:
        """Read type=…,dest=…, a directory's name, or -. Raises UsageError."""
        if "=" not in text:
            return cls("tar" if text == "-" else "local", text)
        pairs = dict(part.partition("=")[::2] for part in text.split(","))
        kind, destination = pairs.pop("type", ""), pairs.pop("dest", "")
        if kind in ("oci", "docker", "registry"):
            raise UsageError(
                f"-o type={kind}: a build writes files, or into the store",
                hint="%image save writes archives of images, and %image push hands them to a registry.",
            )
        if kind not in _KINDS or pairs:
            raise UsageError(f"-o {text}: there is no such output", hint=_HINT)
        if kind in ("local", "tar") and not destination:
            if kind == "local":
                raise UsageError(f"-o {text}: where to?", hint=_HINT)
            destination = "-"
        return cls(kind, destination)


def write(output: Output, image: Image, workshop: Workshop) -> None:
    """Write the files of the image. Raises BuildError where they cannot go."""
    if output.kind == "image":
        return
    import tarfile

    try:
        if output.kind == "local":
            directory = Path(output.destination)
            directory.mkdir(parents=True, exist_ok=True)
            with tar_of_image(image, workshop) as stream, Writer.at(directory) as writer:
                unpack_stream(stream, writer, str(directory))
        else:
            with tar_of_image(image, workshop) as stream, _sink(output.destination) as sink:
                while chunk := stream.read(1 << 20):
                    sink(chunk)
    except OSError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=error.strerror or "") from error
    except tarfile.TarError as error:
        raise BuildError(f"the output {output.destination} cannot be written", why=str(error)) from error


@contextmanager
def _sink(destination: str) -> Iterator[Callable[[bytes], None]]:
    """A file that appears whole, or standard output."""
    if destination == "-":
        stream = cast(IO[bytes], sys.stdout.buffer)
        yield lambda data: cast(None, stream.write(data))
        stream.flush()
        return
    path = Path(destination).absolute()
    with files.temporary(path.parent, 0o644) as (temporary, fd):
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
            arguments = {"overlay": False, "userxattr": workshop.store.snapshots.userxattr, "stubs": []}
            workshop.launcher.call("tar_of", workshop.store.snapshots.view(chain), arguments, (sink,))
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


def metadata_of(image: Image, tags: list[Reference]) -> dict[str, Any]:
    """What buildx writes into --metadata-file."""
    manifest = image.manifest
    return {
        "containerimage.config.digest": str(image.id),
        "containerimage.descriptor": {
            "mediaType": manifest.media_type,
            "digest": str(image.digest),
            "size": len(image.raw_manifest),
        },
        "containerimage.digest": str(image.digest),
        **({"image.name": ",".join(str(tag) for tag in tags)} if tags else {}),
    }


def write_text(path: str, text: str) -> None:
    """A small file beside the build, whole or not at all. Raises BuildError."""
    try:
        files.replace(Path(path).absolute(), text.encode(), 0o644, durable=False)
    except OSError as error:
        raise BuildError(f"{path} cannot be written", why=error.strerror or "") from error


def write_metadata(path: str, image: Image, tags: list[Reference]) -> None:
    """The file that --metadata-file names. Raises BuildError."""
    write_text(path, json.dumps(metadata_of(image, tags), indent=2) + "\n")
