"""Images made in a store without a container, and the question whether a store is sound."""

from __future__ import annotations

import io
from collections.abc import Sequence

from archives import archive, layer_of, member
from nbcontain.oci.digest import ChainID, chain_id
from nbcontain.oci.image import LAYER_TAR, Image, ImageConfig, Layer
from nbcontain.oci.reference import Reference
from nbcontain.store import Store
from nbcontain.store.layers import apply_tar


def add_layer(store: Store, data: bytes, below: ChainID | None = None) -> Layer:
    """Blob and snapshot of one layer."""
    store.blobs.put([data], LAYER_TAR)
    layer = layer_of(data)
    name = chain_id(below, layer.diff_id)
    if not store.snapshots.exists(name):
        with store.snapshots.staging() as staging:
            apply_tar(io.BytesIO(data), str(staging.fs), userxattr=True)
            staging.commit(name, below)
    return layer


def add_image(store: Store, *contents: str, name: str | None = "hello", cmd: Sequence[str] = ("sh",)) -> Image:
    """An image with a layer per text."""
    layers: list[Layer] = []
    below: ChainID | None = None
    for number, content in enumerate(contents):
        layer = add_layer(store, archive(member(f"file{number}", data=content.encode())), below)
        below = chain_id(below, layer.diff_id)
        layers.append(layer)
    image = Image.of(ImageConfig(cmd=tuple(cmd)), layers)
    store.images.put(image, Reference.parse(name) if name else None)
    return image


def check(store: Store) -> None:
    """Everything that can be seen is whole."""
    for digest in store.blobs.walk():
        with store.blobs.open(digest) as blob:
            blob.read()
    for _, image in store.images.list():
        for layer in image.manifest.layers:
            assert store.blobs.has(layer)
    for hex_name in store.snapshots.walk():
        directory = store.layout.snapshots / hex_name
        assert (directory / "fs").is_dir()
        assert (directory / "parent").read_bytes().endswith(b"\n")
