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
    """Images in an index with what is said of them."""

    index: ImageIndex
    manifests: tuple[Descriptor, ...]
    """Those of the statements, one for each image."""
    blobs: Mapping[Digest, bytes] = field(repr=False)
    """The statements, their configs and their manifests, by digest."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An image, and what is said of it."""

    image: Image
    statements: Sequence[tuple[str, bytes]]
    """Each with the type of its predicate."""
    entry_annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the image's entry in the index."""


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry of an index is what is said of another one, and no image."""
    return entry.platform == _UNKNOWN


def statement(predicate_type: str, predicate: Mapping[str, object], subjects: Sequence[tuple[str, Digest]]) -> bytes:
    """An in-toto statement that the predicate holds for what has these names and digests."""
    document = {
        "_type": STATEMENT_TYPE,
        "predicateType": predicate_type,
        "subject": [{"name": name, "digest": {digest.algorithm: digest.hex}} for name, digest in subjects],
        "predicate": predicate,
    }
    return json.dumps(document, indent=2).encode()


def attested(subjects: Sequence[Subject], annotations: Mapping[str, str] | None = None) -> Attested:
    """The index of these images and of what is said of each: first all images, as BuildKit has it."""
    entries: list[Descriptor] = []
    blobs: dict[Digest, bytes] = {}
    for subject in subjects:
        entry, documents = _manifest_of(subject)
        entries.append(entry)
        blobs |= {Digest.of(data): data for data in documents}
    images = [entry_of(each.image, annotations=each.entry_annotations) for each in subjects]
    return Attested(index_of((*images, *entries), annotations), tuple(entries), blobs)


def _manifest_of(subject: Subject) -> tuple[Descriptor, list[bytes]]:
    """The manifest of the statements about an image, as an entry; and all documents that it leads to, with itself."""
    layers = tuple(
        Descriptor(STATEMENT, Digest.of(data), len(data), {"in-toto.io/predicate-type": kind})
        for kind, data in subject.statements
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
        "vnd.docker.reference.digest": str(subject.image.digest),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    entry = Descriptor(MANIFEST, Digest.of(manifest), len(manifest), about, _UNKNOWN)
    return entry, [*(data for _, data in subject.statements), config, manifest]
