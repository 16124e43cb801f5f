"""A build cache as a document, in the shape of BuildKit's (application/vnd.buildkit.cacheconfig.v0). Pure.

`layers` is a forest of blobs, each with the number of the one below it; a record names the layer on top of its
result. The records' digests are our own keys: other programs carry such a cache about, look into it and find nothing
of theirs in it. With each image's config (`type=inline`) goes the same document, of whose layers the image is the list.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence

from nbcontain.errors import BadDocument
from nbcontain.oci import codec
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import Descriptor, Image, Layer, Manifest
from nbcontain.oci.strict_json import Fields, load
from nbcontain.store.cache import CacheRecord

CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYERS_LIMIT = 100_000
"""How many layers a document may list."""

Records = Mapping[Digest, CacheRecord]


def document_of(records: Records) -> tuple[bytes, tuple[Descriptor, ...]]:
    """The document, and the blobs that belong to it, each once. What left no layer is not kept."""
    numbers: dict[tuple[int, Layer], int] = {}
    listed: list[dict[str, object]] = []
    for record in records.values():
        below = -1
        for layer in record.layers:
            if (below, layer) not in numbers:
                numbers[below, layer] = len(listed)
                listed.append(_layer_json(layer, below))
            below = numbers[below, layer]
    found = []
    for key, record in records.items():
        top = -1
        for layer in record.layers:
            top = numbers[top, layer]
        if top >= 0:
            found.append(_record_json(key, record, top))
    blobs = {layer.descriptor.digest: layer.descriptor for _, layer in numbers}
    return codec.dump_document({"layers": listed, "records": found}), tuple(blobs.values())


def inline_of(records: Records, image: Image) -> str:
    """The document for the config of an image: of the steps that made its layers. Base64, as Go writes bytes."""
    found = [
        _record_json(key, record, len(record.layers) - 1)
        for key, record in records.items()
        if record.layers and is_part_of(record, image)
    ]
    return binascii.b2a_base64(codec.dump_document({"records": found}), newline=False).decode()


def is_part_of(record: CacheRecord, image: Image) -> bool:
    """Whether the image stands on what the step left (mode=min)."""
    return record.layers == image.layers[: len(record.layers)]


def parse(data: bytes) -> dict[Digest, CacheRecord]:
    """The records of a foreign document. Raises BadDocument."""
    top = load(data, "build cache")
    listed = top.objects("layers")
    if len(listed) > LAYERS_LIMIT:
        raise BadDocument(f"the build cache lists {len(listed)} layers")
    stacks: list[tuple[Layer, ...]] = []
    for number, fields in enumerate(listed):
        parent = fields.values.get("parent", -1)
        if not isinstance(parent, int) or not -1 <= parent < number:
            # As we write it; the other way round it could be a circle.
            raise BadDocument(f"layer {number} of the build cache stands on {parent!r}")
        below = stacks[parent] if parent >= 0 else ()
        if len(below) >= codec.LAYER_LIMIT:
            raise BadDocument(f"no more than {codec.LAYER_LIMIT} layers can be stacked")
        stacks.append((*below, _layer(fields)))
    return _records(top, stacks)


def parse_inline(text: str, image: Image) -> dict[Digest, CacheRecord]:
    """The records that an image's config brings along; none where that is another program's. Raises BadDocument."""
    try:
        data = binascii.a2b_base64(text.encode(), strict_mode=True)
    except ValueError as error:
        raise BadDocument("the image's build cache is not base64") from error
    return _records(load(data, "build cache"), [image.layers[: number + 1] for number in range(len(image.layers))])


def manifest_of(config: Descriptor, blobs: Sequence[Descriptor]) -> bytes:
    """The manifest that a registry or an image layout keeps the cache by (image-spec manifest.md, BuildKit's way)."""
    return codec.dump_manifest(Manifest(config, tuple(blobs)))


def config_of(raw_manifest: bytes) -> Descriptor | None:
    """The document's descriptor, if this is the manifest of a build cache. Raises BadDocument."""
    config = codec.parse_manifest(raw_manifest).config
    return config if config.media_type == CACHE_CONFIG else None


def _records(top: Fields, stacks: Sequence[tuple[Layer, ...]]) -> dict[Digest, CacheRecord]:
    found = {}
    for fields in top.objects("records"):
        for result in fields.objects("layers"):
            number = result.count("layer", required=True)
            if number >= len(stacks):
                raise BadDocument(f"the build cache has no layer {number}")
            created, made_by = result.text("createdAt"), fields.text("createdBy")
            found[fields.digest("digest")] = CacheRecord(stacks[number], created, made_by)
    return found


def _record_json(key: Digest, record: CacheRecord, top: int) -> dict[str, object]:
    result = {"layer": top, "createdAt": record.created or None}
    return {"digest": str(key), "layers": [result], "createdBy": record.created_by}


def _layer_json(layer: Layer, below: int) -> dict[str, object]:
    annotations = {
        "mediaType": layer.descriptor.media_type,
        "diffID": str(layer.diff_id),
        "size": layer.descriptor.size,
    }
    return {"blob": str(layer.descriptor.digest), "parent": below, "annotations": annotations}


def _layer(fields: Fields) -> Layer:
    said = fields.object("annotations", required=True)
    descriptor = Descriptor(
        said.text("mediaType", required=True), fields.digest("blob"), said.count("size", required=True)
    )
    return Layer(descriptor, DiffID(said.digest("diffID")))
