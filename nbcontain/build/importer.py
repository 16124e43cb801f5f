"""Images that come from no Dockerfile: a root file system as one layer, and this machine's own programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nbcontain.build.operations import Workshop
from nbcontain.errors import BadArchive, StoreError
from nbcontain.events import Notice, Progress
from nbcontain.oci.image import History, Image, ImageConfig, Platform, timestamp
from nbcontain.store.compression import uncompressed
from nbcontain.store.layer_writer import layer_writer
from nbcontain.store.layers import tar_of
from nbcontain.store.tar import Readable
from nbcontain.values import replace

_PROGRESS_BYTES = 8 << 20
Write = Callable[[bytes | memoryview], None]
Source = str | Readable
"""A path, - for standard input, or what is open already."""


def told_of(source: Source) -> str:
    """What to call it."""
    return source if isinstance(source, str) else "an open file"


def imported_image(source: Source, workshop: Workshop, task: str) -> Image:
    """An image of one layer: a tar file, - for standard input, or a directory.

    Raises BadArchive for what is no whole tar, StoreError for what cannot be read; the store is then as before.
    """
    path = Path(told_of(source))
    if isinstance(source, str) and source != "-" and os.path.isdir(path):
        return _stored(
            workshop,
            task,
            f"import of directory {path.name}",
            lambda write: tar_of(str(path), write, overlay=False, userxattr=False),
        )
    with _opened(source) as stream:

        def copy(write: Write) -> None:
            inside, is_empty = uncompressed(stream), True
            while chunk := inside.chunk():
                write(chunk)
                is_empty = False
            if is_empty:
                raise BadArchive("the archive is empty", hint="a tar of a file system; one of no files has 1,024 bytes")

        return _stored(workshop, task, f"import of {'standard input' if source == '-' else path.name}", copy)


def host_image(programs: Sequence[str], workshop: Workshop, task: str, packages: Sequence[str] = ()) -> Image:
    """A small image of this machine's own shell, coreutils and Python, and of these programs and Python packages."""
    # Here, since %load_ext imports this module, and few sessions make the image.
    from nbcontain.build.host_image import make_host_tar

    config: list[ImageConfig] = []

    def make(write: Write) -> None:
        made = make_host_tar(programs, write, packages=packages)
        for notice in made.notices:
            workshop.emit(Notice(task, notice))
        config.append(ImageConfig(env=made.env, cmd=made.cmd))

    created_by = " ".join(("from-host", *programs, *(f"--package {each}" for each in packages)))
    return _stored(workshop, task, created_by, make, config)


def _stored(
    workshop: Workshop, task: str, created_by: str, make: Callable[[Write], object],
    config: list[ImageConfig] | None = None,
) -> Image:  # fmt: skip
    """Store what `make` writes as a layer, and unpack it at once: a bad archive is told of here and not kept."""
    store, emit = workshop.store, workshop.emit
    done = told = 0
    with layer_writer(store.blobs) as writer:

        def write(chunk: bytes | memoryview) -> None:
            nonlocal done, told
            writer.write(chunk)
            done += len(chunk)
            if done - told >= _PROGRESS_BYTES:
                told = done
                emit(Progress(task, done))

        make(write)
        layer = writer.commit()
    emit(Progress(task, done, done))
    if workshop.can_run:
        try:
            workshop.unpack((layer,))
        except BadArchive:
            store.blobs.remove(layer.descriptor.digest)
            raise
    now = timestamp()
    base = config[0] if config else ImageConfig()
    history = (History(created=now, created_by=created_by.strip(), comment="nbcontain"),)
    return Image.of(replace(base, platform=Platform.here(), created=now, history=history), (layer,))


@contextmanager
def _opened(source: Source) -> Iterator[Readable]:
    """The file, or standard input; what is open stays so."""
    if not isinstance(source, str):
        yield source
        return
    try:
        raw = cast(BinaryIO, sys.stdin.buffer) if source == "-" else open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise StoreError(f"cannot read {source}", why=os.strerror(error.errno or 0)) from error
    with raw:
        yield cast(Readable, raw)
