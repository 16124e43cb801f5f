"""An image with its layers compressed in another way: the same files, history and image ID, another manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from nbcontain.errors import BadArchive
from nbcontain.events import Emit, Progress, TaskId, scope
from nbcontain.oci import codec
from nbcontain.oci.image import CONFIG, LAYER_TAR, MANIFEST, Image, Layer
from nbcontain.store.blobs import Blobs, damaged
from nbcontain.store.compression import uncompressed
from nbcontain.store.layer_forms import Form
from nbcontain.store.layer_writer import layer_writer
from nbcontain.store.tar import Readable
from nbcontain.values import replace

TOLD_BYTES = 8 << 20
"""What goes on is told of once in so many."""
Step = Callable[[Layer], AbstractContextManager[Callable[[int], object]]]
"""Around the work on one layer; what it gives hears of bytes."""


@contextmanager
def layer_step(emit: Emit, parent: TaskId, layer: Layer, *, doing: str = "") -> Iterator[Callable[[int], None]]:
    """One layer of several, as a step of what goes on; what it gives hears of bytes."""
    task = f"layer {layer.descriptor.digest.short}"
    done = told = 0

    def hear(size_bytes: int) -> None:
        nonlocal done, told
        done += size_bytes
        if done - told >= TOLD_BYTES:
            told = done
            emit(Progress(task, done))

    with scope(emit, task, f"{doing} {task}".strip(), parent):
        yield hear


def has_plain_layers(image: Image) -> bool:
    """Whether a layer of it is not compressed, by what its manifest says."""
    return any(_is_plain(layer) for layer in image.layers)


def converted(
    image: Image, form: Form, blobs: Blobs, step: Step = lambda layer: nullcontext(lambda size: None), *,
    first: int = 0, again: bool = False, plain_only: bool = False,
) -> Image:  # fmt: skip
    """The image with its layers from the `first` on in this form; the layers are stored, and the image is not.

    What has the form stays as it is, unless it is to be made `again`, as for another level; with `plain_only` so does
    what is compressed in whichever way. The very same image where nothing was to be done. Around each layer there is
    a `step`, which hears how many bytes of its tar were read. The store's lock must be held until something names the
    layers. Raises BadArchive, StoreError, DigestMismatch for layers that are not what they should be.
    """

    def is_right(layer: Layer) -> bool:
        if plain_only:
            return not _is_plain(layer)
        return _oci(layer.descriptor.media_type) == form.media_type and not again

    layers = [
        layer if number < first or is_right(layer) else _converted(layer, form, blobs, step)
        for number, layer in enumerate(image.layers)
    ]
    if layers == list(image.layers):
        return image
    # docker's own family of documents has no word for zstd.
    manifest = replace(
        image.manifest, media_type=MANIFEST, config=replace(image.manifest.config, media_type=CONFIG),
        layers=tuple(replace(layer.descriptor, media_type=_oci(layer.descriptor.media_type)) for layer in layers),
    )  # fmt: skip
    return replace(image, manifest=manifest, raw_manifest=codec.dump_manifest(manifest))


def _converted(layer: Layer, form: Form, blobs: Blobs, step: Step) -> Layer:
    digest, algorithm = layer.descriptor.digest, layer.diff_id.algorithm
    # A plain tar's digest is its diff ID, and compared as that.
    is_plain = digest == layer.diff_id
    opened: AbstractContextManager[Any] = blobs.opened(digest) if is_plain else blobs.open_beside(digest)
    with opened as blob, step(layer) as told, layer_writer(blobs, form=form, algorithm=algorithm) as writer:
        stream = blob if is_plain else uncompressed(cast(Readable, blob))
        while count := writer.read(stream.readinto):
            told(count)
        # To its end, where the digest is compared.
        while blob.read(1 << 20):
            pass
        writer.finish()
        if writer.diff_id != layer.diff_id:
            if is_plain:
                raise damaged(digest, writer.diff_id)
            why = f"it unpacks to {writer.diff_id}, and the config says {layer.diff_id}"
            raise BadArchive(f"layer {layer.descriptor.digest.short} is not what its image says", why=why)
        return writer.commit()


def _is_plain(layer: Layer) -> bool:
    return _oci(layer.descriptor.media_type) == LAYER_TAR


def _oci(media_type: str) -> str:
    """OCI's word for what docker's says."""
    return codec.OCI_LAYERS.get(media_type, media_type)
