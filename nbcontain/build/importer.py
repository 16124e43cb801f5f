"""Images that come from no Dockerfile: a root file system as one layer, and this machine's own programs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from nbcontain.build.operations import Workshop, timestamp
from nbcontain.errors import BadArchive, StoreError
from nbcontain.events import Notice, Progress
from nbcontain.oci.digest import DiffID
from nbcontain.oci.image import LAYER_TAR, History, Image, ImageConfig, Layer, Platform
from nbcontain.store.layers import tar_of

_READ_BYTES = 1 << 20
_PROGRESS_BYTES = 8 << 20
_MAGICS: tuple[tuple[bytes, Callable[[BinaryIO], object]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)


def imported_image(source: str, workshop: Workshop, task: str) -> Image:
    """An image of one layer: a tar file, - for standard input, or a directory.

    Raises BadArchive for what is no whole tar, StoreError for what cannot be read; the store is then as before.
    """
    path = Path(source)
    if source != "-" and path.is_dir():
        return _stored(
            workshop,
            task,
            f"import of directory {path.name}",
            lambda write: tar_of(str(path), write, overlay=False, userxattr=False),
        )
    with _opened(source) as stream:

        def copy(write: Callable[[bytes], None]) -> None:
            try:
                while chunk := stream.read(_READ_BYTES):
                    write(chunk)
            except (EOFError, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise BadArchive(f"{source} is a damaged archive", why=str(error)) from error

        return _stored(workshop, task, f"import of {'standard input' if source == '-' else path.name}", copy)


def host_image(programs: Sequence[str], workshop: Workshop, task: str) -> Image:
    """A small image of this machine's own shell, coreutils and Python, and of these programs."""
    # Here, since %load_ext imports this module, and few sessions make the image.
    from nbcontain.build.host_image import make_host_tar

    config: list[ImageConfig] = []

    def make(write: Callable[[bytes], None]) -> None:
        made = make_host_tar(programs, write)
        for notice in made.notices:
            workshop.emit(Notice(task, notice))
        config.append(ImageConfig(env=made.env, cmd=made.cmd))

    return _stored(workshop, task, "from-host " + " ".join(programs), make, config)


def _stored(
    workshop: Workshop, task: str, created_by: str, make: Callable[[Callable[[bytes], None]], object],
    config: list[ImageConfig] | None = None,
) -> Image:  # fmt: skip
    """Store what `make` writes as a layer, and unpack it at once: a bad archive is told of here and not kept."""
    store, emit = workshop.store, workshop.emit
    done = told = 0
    with store.blobs.writer() as writer:

        def write(chunk: bytes) -> None:
            nonlocal done, told
            writer.write(chunk)
            done += len(chunk)
            if done - told >= _PROGRESS_BYTES:
                told = done
                emit(Progress(task, done))

        make(write)
        descriptor = writer.commit(LAYER_TAR)
    emit(Progress(task, done, done))
    layer = Layer(descriptor, DiffID(descriptor.digest))
    if workshop.can_run:
        try:
            workshop.unpack((layer,))
        except BadArchive:
            store.blobs.remove(descriptor.digest)
            raise
    now = timestamp()
    base = config[0] if config else ImageConfig()
    history = (History(created=now, created_by=created_by.strip(), comment="nbcontain"),)
    return Image.of(replace(base, platform=Platform.here(), created=now, history=history), (layer,))


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The file, decompressed by what it is and not by its name."""
    try:
        raw = cast(BinaryIO, sys.stdin.buffer) if source == "-" else open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"cannot read {source}", why=os.strerror(error.errno or 0)) from error
    with raw:
        head = raw.peek(8)[:8] if hasattr(raw, "peek") else b""
        for magic, opener in _MAGICS:
            if head.startswith(magic):
                yield cast(BinaryIO, opener(raw))
                return
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            raise StoreError(f"{source} is compressed with zstd, which is not read yet", hint="zstd -d it first")
        yield raw
