"""What is done to an image when all its steps are: annotations, and times that do not depend on when it was built.

With SOURCE_DATE_EPOCH (reproducible-builds.org) nothing in the image is younger than that: neither its config and
history nor the files of the layers made here, as BuildKit does with rewrite-timestamp.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import cast

from nbcontain.build.graph import Base, BuildGraph
from nbcontain.build.outputs import Output, compression_of
from nbcontain.events import Emit, Progress
from nbcontain.oci import codec
from nbcontain.oci.image import Image, Layer
from nbcontain.store import Store, tar
from nbcontain.store.compression import uncompressed
from nbcontain.store.conversion import converted, layer_step
from nbcontain.store.layer_forms import GZIP, form_of
from nbcontain.store.layer_writer import layer_writer
from nbcontain.store.tar_writing import header_of
from nbcontain.values import replace

_READ_BYTES = 1 << 20


def finished(
    image: Image, graph: BuildGraph, store: Store, emit: Emit, *, annotations: Mapping[str, str],
    outputs: Sequence[Output] = (),
) -> Image:  # fmt: skip
    """The image as it is handed out."""
    if graph.epoch is not None:
        image = _dated(image, graph, store, emit, graph.epoch)
    if (compression := compression_of(outputs)) is not None:
        first = 0 if compression.all_layers else _bottom_layers(graph)
        form = form_of(compression.name, compression.level)
        # Whoever wants no more of it is heard at each.
        step = nullcontext(lambda size: emit(Progress("build", 0)))
        again = compression.level is not None
        image = converted(image, form, store.blobs, lambda layer: step, first=first, again=again)
    elif any(each.push for each in outputs):
        # As `push` does it: a base may have come in an archive of docker's.
        compress = partial(layer_step, emit, "build", doing="compress")
        image = converted(image, GZIP, store.blobs, compress, plain_only=True)
    if not annotations:
        return image
    manifest = replace(image.manifest, annotations={**image.manifest.annotations, **annotations})
    return replace(image, manifest=manifest, raw_manifest=codec.dump_manifest(manifest))


def _dated(image: Image, graph: BuildGraph, store: Store, emit: Emit, epoch: int) -> Image:
    text = datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
    below = len(graph.config.history) - len(graph.history_steps)
    history = tuple(
        entry if number < below else replace(entry, created=text) for number, entry in enumerate(image.config.history)
    )
    bottom = _bottom_layers(graph)
    layers = [
        layer if number < bottom else _rewritten(layer, store, emit, epoch) for number, layer in enumerate(image.layers)
    ]
    return Image.of(replace(image.config, created=text, history=history), layers)


def _bottom_layers(graph: BuildGraph) -> int:
    """How many of the image's layers are its base's, which stay as they are."""
    vertex = graph.target
    while vertex.inputs:
        vertex = vertex.inputs[0]
    base = vertex.operation
    return len(base.image.layers) if isinstance(base, Base) and base.image else 0


def _rewritten(layer: Layer, store: Store, emit: Emit, epoch: int) -> Layer:
    """The layer with no file younger than `epoch`."""
    latest_ns = epoch * 1_000_000_000
    with store.blobs.open(layer.descriptor.digest) as blob, layer_writer(store.blobs) as writer:
        reader = tar.Reader(uncompressed(cast(tar.Readable, blob)))
        while (entry := reader.next()) is not None:
            emit(Progress("build", 0))
            entry.mtime_ns = min(entry.mtime_ns, latest_ns)
            writer.write(header_of(entry))
            if entry.size:
                _copy_body(reader, entry.size, writer.write, store)
        reader.finish()
        writer.write(bytes(2 * tar.BLOCK))
        return writer.commit()


def _copy_body(reader: tar.Reader, size_bytes: int, write: Callable[[bytes], object], store: Store) -> None:
    with tempfile.TemporaryFile(dir=store.layout.tmp) as body:
        reader.copy_to(body.fileno())
        body.seek(0)
        while chunk := body.read(_READ_BYTES):
            write(chunk)
    write(bytes(-size_bytes % tar.BLOCK))
