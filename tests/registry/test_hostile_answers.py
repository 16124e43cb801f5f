"""A registry that lies, or answers what nobody foresaw: nothing wrong is believed, and nothing ends in a traceback."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from server import Registry, says, status

from nbcontain.engine import Engine
from nbcontain.errors import BadAnswer, DigestMismatch, ManifestUnknown
from nbcontain.oci.image import INDEX, MANIFEST, Image, Layer
from nbcontain.store import ingest
from nbcontain.values import replace


def sha512(data: bytes) -> str:
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


def pulled(engine: Engine, registry: Registry, name: str = "team/app:1", **options: Any) -> Any:
    return engine.registry.pull(f"{registry.host}/{name}", **options).result()


# --- digests ---


def test_a_name_with_a_digest_is_verified_whatever_its_algorithm(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    raw = sample[0].raw_manifest
    right, wrong = sha512(raw), sha512(b"what was asked for")
    for name in (right, wrong):
        registry.manifests["team/app", name] = (MANIFEST, raw)
    with pytest.raises(BadAnswer, match="altered"):
        pulled(engine, registry, f"team/app@{wrong}")
    assert engine.images() == []
    assert pulled(engine, registry, f"team/app@{right}")[0].digest == sample[0].digest
    assert engine.image(f"{registry.host}/team/app@{right}").digest == sample[0].digest


def test_what_an_index_names_by_another_algorithm_is_verified_by_that(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    raw = sample[0].raw_manifest
    for name, called in (("right", sha512(raw)), ("wrong", sha512(b"another"))):
        registry.manifests["team/app", called] = (MANIFEST, raw)
        entry = {"mediaType": MANIFEST, "digest": called, "size": len(raw)}
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        registry.manifests["team/app", name] = (INDEX, index)
    with pytest.raises(BadAnswer, match="altered"):
        pulled(engine, registry, "team/app:wrong")
    assert pulled(engine, registry, "team/app:right")[0].digest == sample[0].digest


def test_the_digest_that_a_registry_says_itself_is_verified_whatever_its_algorithm(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    raw = sample[0].raw_manifest
    registry.fault("manifests/1", says(raw, Docker_Content_Digest=sha512(b"another")))
    with pytest.raises(BadAnswer, match="altered"):
        pulled(engine, registry)
    registry.fault("manifests/1", says(raw, Docker_Content_Digest=sha512(raw)))
    assert pulled(engine, registry)[0].digest == sample[0].digest


# --- what is here ---


def with_size(image: Image, size: int) -> Image:
    """An image whose manifest gives its first layer another size."""
    first, *rest = image.layers
    return Image.of(image.config, [Layer(replace(first.descriptor, size=size), first.diff_id), *rest])


def test_a_manifest_with_a_wrong_size_takes_no_blob_from_another_image(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    good, blobs = sample
    evil = with_size(good, 7)
    registry.add("team/app", "1", good, blobs)
    registry.add("team/evil", "1", evil, blobs | {evil.id: evil.raw_config})
    pulled(engine, registry)
    size = good.layers[0].descriptor.size
    with pytest.raises(DigestMismatch) as caught:
        pulled(engine, registry, "team/evil:1")
    assert f"gives it 7 bytes, and it has {size}" in caught.value.why
    for digest in blobs:
        assert engine.store.blobs.read(digest, 1 << 23) == blobs[digest]


@pytest.mark.parametrize("damaged", [b"", b"x", b"x" * 4_000_000])
def test_a_damaged_blob_is_here_until_a_whole_one_takes_its_place(
    engine: Engine, registry: Registry, sample: Any, damaged: bytes
) -> None:
    registry.add("team/app", "1", *sample)
    digest = sample[0].layers[1].descriptor.digest
    pulled(engine, registry)
    path = engine.store.blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(damaged)
    registry.fault("GET .*/blobs/", status(404))
    with pytest.raises(ManifestUnknown):
        pulled(engine, registry)
    assert path.read_bytes() == damaged
    pulled(engine, registry)
    assert path.read_bytes() == sample[1][digest]


def test_a_blob_that_somebody_publishes_meanwhile_is_taken(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look that does not find it, and the one that is made with its place held."""
    layer = sample[0].layers[1].descriptor
    data, is_named = sample[1][layer.digest], ingest._is_named

    def published(*place: Any) -> bool:
        engine.store.blobs.put([data], layer.media_type, layer)
        return is_named(*place)

    monkeypatch.setattr(ingest, "_is_named", published)
    with ingest.arriving(engine.store.layout, engine.store.write_back, layer, lambda size: None) as coming:
        assert coming is None
