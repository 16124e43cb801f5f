from __future__ import annotations

import json

import pytest

from nbcontain.errors import BadDocument
from nbcontain.oci import indexes
from nbcontain.oci.codec import DOCKER_INDEX, DOCKER_MANIFEST
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import INDEX, LAYER_TAR, Descriptor, Image, ImageConfig, Platform

AMD64 = Image.of(ImageConfig(platform=Platform("linux", "amd64"), cmd=("sh",)), [])
ARM = Image.of(ImageConfig(platform=Platform("linux", "arm", "v7"), cmd=("sh",)), [])
BOTH = indexes.index_of(map(indexes.entry_of, (AMD64, ARM)), {"a": "b"})


def test_an_index_of_two_images_says_which_is_for_which_platform() -> None:
    document = json.loads(BOTH.raw)
    assert [each["platform"] for each in document["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]
    assert (document["mediaType"], document["annotations"]) == (INDEX, {"a": "b"})


def test_it_is_read_back_as_it_was_made() -> None:
    assert indexes.index_from(BOTH.raw) == BOTH
    assert (BOTH.descriptor.digest, BOTH.descriptor.size) == (Digest.of(BOTH.raw), len(BOTH.raw))


def test_foreign_bytes_stay_as_they_are() -> None:
    spaced = json.dumps(json.loads(BOTH.raw), indent=3).encode()
    index = indexes.index_from(spaced)
    assert (index.raw, index.digest, index.index) == (spaced, Digest.of(spaced), BOTH.index)


def test_an_entry_is_added_once_and_replaced_where_it_stands() -> None:
    again = indexes.with_entry(BOTH, indexes.entry_of(AMD64, Platform("linux", "amd64", "v3")))
    assert [str(each) for each in again.platforms] == ["linux/amd64/v3", "linux/arm/v7"]


def test_an_entry_is_annotated_and_keeps_what_was_said_of_it() -> None:
    once = indexes.annotated(BOTH, ARM.digest, annotations={"x": "1"})
    twice = indexes.annotated(once, ARM.digest, platform=Platform("linux", "arm", "v6"), annotations={"y": "2"})
    assert dict(twice.entry(ARM.digest).annotations) == {"x": "1", "y": "2"}
    assert twice.entry(ARM.digest).platform == Platform("linux", "arm", "v6")
    assert dict(twice.index.annotations) == {"a": "b"}


def test_an_entry_is_taken_out_and_cannot_be_twice() -> None:
    less = indexes.without_entry(BOTH, ARM.digest)
    assert [each.digest for each in less.entries] == [AMD64.digest]
    with pytest.raises(BadDocument, match="has no manifest"):
        indexes.without_entry(less, ARM.digest)


def test_attestations_are_no_platform() -> None:
    attestation = Descriptor(AMD64.manifest.media_type, Digest.of(b"x"), 1, platform=Platform("unknown", "unknown"))
    assert indexes.with_entry(BOTH, attestation).platforms == BOTH.platforms


def test_a_layer_cannot_stand_in_an_index() -> None:
    with pytest.raises(BadDocument, match="cannot stand"):
        indexes.index_of([Descriptor(LAYER_TAR, Digest.of(b""), 0)])


def test_dockers_manifest_list_has_no_annotations() -> None:
    entry = Descriptor(DOCKER_MANIFEST, Digest.of(b"x"), 1, platform=Platform())
    index = indexes.index_of([entry], {"a": "b"}, DOCKER_INDEX)
    assert (indexes.index_from(index.raw).media_type, "annotations" in json.loads(index.raw)) == (DOCKER_INDEX, False)
