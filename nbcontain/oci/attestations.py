"""Statements about an image, put beside it in an index as BuildKit does (its docs/attestations/attestation-storage.md).

The index names the image, and for the platform unknown/unknown a second manifest, whose layers are the statements
(in-toto's, as JSON). Whoever looks for an image to run passes over it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import CONFIG, MANIFEST, Descriptor, Image, Manifest, Platform
from nbcontain.oci.indexes import ImageIndex, entry_of, index_of
from nbcontain.values import dataclass, field

STATEMENT = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v0.1"
_UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class Attested:
    """An image in an index with what is said of it."""

    index: ImageIndex
    manifest: Descriptor
    """The statements' manifest."""
    blobs: Mapping[Digest, bytes] = field(repr=False)
    """The statements, their config and their manifest, by digest."""


def statement(predicate_type: str, predicate: Mapping[str, object], subjects: Sequence[tuple[str, Digest]]) -> bytes:
    """An in-toto statement that the predicate holds for what has these names and digests."""
    document = {
        "_type": STATEMENT_TYPE,
        "predicateType": predicate_type,
        "subject": [{"name": name, "digest": {digest.algorithm: digest.hex}} for name, digest in subjects],
        "predicate": predicate,
    }
    return json.dumps(document, indent=2).encode()


def attested(
    image: Image, statements: Sequence[tuple[str, bytes]], *, annotations: Mapping[str, str] | None = None,
    entry_annotations: Mapping[str, str] | None = None,
) -> Attested:  # fmt: skip
    """The index of an image and these statements, each with the type of its predicate."""
    layers = tuple(
        Descriptor(STATEMENT, Digest.of(data), len(data), {"in-toto.io/predicate-type": kind})
        for kind, data in statements
    )
    config = codec.dump_document(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    manifest = codec.dump_manifest(Manifest(Descriptor(CONFIG, Digest.of(config), len(config)), layers))
    about = {
        "vnd.docker.reference.digest": str(image.digest),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    entry = Descriptor(MANIFEST, Digest.of(manifest), len(manifest), about, _UNKNOWN)
    index = index_of((entry_of(image, annotations=entry_annotations), entry), annotations)
    return Attested(index, entry, {Digest.of(data): data for data in (*(d for _, d in statements), config, manifest)})
