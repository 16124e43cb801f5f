"""A registry that lies, or answers what nobody foresaw: nothing wrong is believed, and nothing ends in a traceback."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from server import Registry, says

from nbcontain.engine import Engine
from nbcontain.errors import BadAnswer
from nbcontain.oci.image import INDEX, MANIFEST


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
