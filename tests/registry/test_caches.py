"""Build caches in registries: carried to another machine, brought along by an image, and hostile ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import new_engine
from server import Registry

from images import BUSYBOX
from nbcontain.build import cache_document
from nbcontain.build.cache_document import CACHE_CONFIG
from nbcontain.build.caches import CachePlace
from nbcontain.build.plan import BuildOptions
from nbcontain.builder import BuildTask
from nbcontain.engine import Engine
from nbcontain.errors import RegistryError
from nbcontain.events import Notice
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import LAYER_TAR, Descriptor, Layer
from nbcontain.store.cache import CacheRecord

STAGES = """
FROM base AS aside
RUN date +%N > /aside
FROM base
RUN date +%N > /when
COPY --from=aside /aside /brought
"""
layers = st.binary(max_size=1).map(
    lambda each: Layer(Descriptor(LAYER_TAR, Digest.of(each), len(each)), DiffID(Digest.of(b"tar" + each)))
)
records = st.dictionaries(
    st.binary(max_size=2).map(Digest.of),
    st.builds(
        CacheRecord, st.lists(layers, min_size=1, max_size=4).map(tuple), st.text(max_size=5), st.text(max_size=5)
    ),
    max_size=6,
)


@pytest.fixture
def another(root: Path, tmp_path: Path) -> Iterator[Engine]:
    """An engine that has built nothing yet."""
    with new_engine(root / "another", tmp_path) as engine:
        yield engine


@pytest.fixture
def text() -> str:
    """Two stages on one."""
    assert BUSYBOX.startswith("FROM scratch\n")
    return BUSYBOX.replace("FROM scratch", "FROM scratch AS base", 1) + STAGES


def built(engine: Engine, text: str, context: Path, **options: Any) -> BuildTask:
    task = engine.build(text, BuildOptions(context=context, **options))
    task.result()
    return task


def outcomes(task: BuildTask) -> set[str]:
    """Of the steps that make something."""
    return {each.outcome for each in task.report.steps if each.name.startswith(("RUN", "COPY"))}


def place(flag: str, text: str) -> dict[str, Any]:
    return {flag: (CachePlace.parse(text, f"--{flag.replace('_', '-')}"),)}


def test_a_cache_goes_to_a_registry_and_comes_from_it(
    engine: Engine, another: Engine, registry: Registry, busybox_context: Path, text: str
) -> None:
    """testImportExportReproducibleIDs"""
    ref = f"{registry.host}/team/cache:1"
    first = built(engine, text, busybox_context, **place("cache_to", f"type=registry,ref={ref},mode=max"))
    manifest = json.loads(registry.manifests["team/cache", "1"][1])
    assert manifest["config"]["mediaType"] == CACHE_CONFIG
    task = built(another, text, busybox_context, **place("cache_from", ref))
    assert outcomes(task) == {"cached"}
    assert task.result().digest == first.result().digest


def test_mode_min_has_only_what_the_image_stands_on(
    engine: Engine, another: Engine, registry: Registry, busybox_context: Path, text: str
) -> None:
    ref = f"{registry.host}/team/cache"
    built(engine, text, busybox_context, **place("cache_to", f"type=registry,ref={ref}"))
    task = built(another, text, busybox_context, **place("cache_from", f"type=registry,ref={ref}"))
    found = {each.name: each.outcome for each in task.report.steps}
    assert (found["RUN date +%N > /when"], found["RUN date +%N > /aside"]) == ("cached", "done")


def test_an_image_brings_its_own_cache_along(
    engine: Engine, another: Engine, registry: Registry, busybox_context: Path
) -> None:
    text, name = BUSYBOX + "RUN date +%N > /when\n", f"{registry.host}/team/app:1"
    image = built(engine, text, busybox_context, tags=(name,), **place("cache_to", "type=inline")).result()
    engine.registry.push(name).result()
    task = built(another, text, busybox_context, **place("cache_from", name))
    assert outcomes(task) == {"cached"}
    assert task.result().layers == image.layers
    above = built(another, f"FROM {name}\nENV A=b\n", busybox_context, pull="missing")
    assert above.result().config.inline_cache == ""


def _swap_diff_ids(document: dict[str, Any]) -> None:
    first, second, *_ = document["layers"]
    one, two = first["annotations"], second["annotations"]
    one["diffID"], two["diffID"] = two["diffID"], one["diffID"]


def _name_no_layer(document: dict[str, Any]) -> None:
    document["records"][0]["layers"][0]["layer"] = 99


def _make_a_circle(document: dict[str, Any]) -> None:
    document["layers"][0]["parent"] = 1


@pytest.mark.parametrize("harm", [_swap_diff_ids, _name_no_layer, _make_a_circle])
def test_a_hostile_cache_is_as_if_it_were_not_there(
    engine: Engine, another: Engine, registry: Registry, busybox_context: Path, harm: Any
) -> None:
    text, ref = BUSYBOX + "RUN date +%N > /when\n", f"{registry.host}/team/cache:1"
    built(engine, text, busybox_context, **place("cache_to", f"type=registry,ref={ref},mode=max"))
    media_type, raw = registry.manifests["team/cache", "1"]
    manifest = json.loads(raw)
    document = json.loads(registry.blobs[manifest["config"]["digest"]])
    harm(document)
    data = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    manifest["config"] |= {"digest": digest, "size": len(data)}
    registry.blobs[digest] = data
    registry.holders.add(("team/cache", digest))
    registry.manifests["team/cache", "1"] = (media_type, json.dumps(manifest).encode())
    assert outcomes(built(another, text, busybox_context, **place("cache_from", ref))) == {"done"}


def test_an_altered_blob_is_not_taken(
    engine: Engine, another: Engine, registry: Registry, busybox_context: Path
) -> None:
    text, ref = BUSYBOX + "RUN date +%N > /when\n", f"{registry.host}/team/cache:1"
    built(engine, text, busybox_context, **place("cache_to", f"type=registry,ref={ref},mode=max"))
    for layer in json.loads(registry.manifests["team/cache", "1"][1])["layers"]:
        registry.blobs[layer["digest"]] = bytes(layer["size"])
    assert outcomes(built(another, text, busybox_context, **place("cache_from", ref))) == {"done"}


def test_a_cache_that_is_not_there_is_told_of_and_builds(
    engine: Engine, registry: Registry, busybox_context: Path
) -> None:
    task = built(engine, BUSYBOX, busybox_context, **place("cache_from", f"{registry.host}/none:1"))
    said = [each.event.message for each in task.journal.read() if isinstance(each.event, Notice)]
    assert any(message.startswith(f"--cache-from {registry.host}/none:1 is not used") for message in said)


def test_a_cache_that_cannot_be_written_fails_the_build_unless_it_may(
    engine: Engine, registry: Registry, busybox_context: Path
) -> None:
    to = f"type=registry,ref={registry.host}/team/cache:1"
    registry.auth = "basic"
    with pytest.raises(RegistryError):
        built(engine, BUSYBOX, busybox_context, **place("cache_to", to))
    built(engine, BUSYBOX, busybox_context, **place("cache_to", f"{to},ignore-error=true"))


@given(records)
def test_a_document_is_read_back_as_it_was_written(known: dict[Digest, CacheRecord]) -> None:
    assert cache_document.parse(cache_document.document_of(known)[0]) == known
