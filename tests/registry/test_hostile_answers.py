"""A registry that lies, or answers what nobody foresaw: nothing wrong is believed, and nothing ends in a traceback."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from server import Fault, Registry, says, status

from nbcontain.engine import Engine
from nbcontain.errors import (
    BadAddress,
    BadAnswer,
    BadDocument,
    BadReference,
    DigestMismatch,
    ManifestUnknown,
    NbcontainError,
    RegistryError,
    Unreachable,
    UsageError,
)  # fmt: skip
from nbcontain.oci.image import INDEX, MANIFEST, Image, Layer
from nbcontain.oci.reference import Reference
from nbcontain.registry import wire
from nbcontain.registry.client import Patience
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


# --- where it sends us ---

NOWHERE = ["http://[", "http://127.0.0.1:99999/x", "http://127.0.0.1:abc/x", "/v2/\u00e9", "/v2/a b",
           f"http://{'a' * 70}.com/", "http://.a..b/"]  # fmt: skip


@pytest.mark.parametrize("place", NOWHERE)
def test_a_redirect_to_what_cannot_be_asked_for_is_one_error_at_once(
    engine: Engine, registry: Registry, sample: Any, place: str
) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault("manifests/1", status(307, Location=place), 99)
    with pytest.raises(BadAnswer):
        pulled(engine, registry)
    assert registry.asked("manifests/1") == 1


@pytest.mark.parametrize("place", [NOWHERE[0], NOWHERE[3], "http://169.254.169.254/"])
def test_a_layer_that_cannot_be_had_there_is_asked_for_once(
    engine: Engine, registry: Registry, sample: Any, place: str
) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault("GET .*/blobs/", status(307, Location=place), 99)
    with pytest.raises(BadAddress):
        pulled(engine, registry)
    for digest in sample[1]:
        assert registry.asked(f"GET .*/blobs/{digest}") <= 1


@pytest.mark.parametrize(
    "realm", ["http://[", "https://127.0.0.1:99999/x", f"https://{'a' * 70}.com/", "http://HOST/\u00e9", ""]
)
def test_a_token_server_that_cannot_be_asked_is_one_error_at_once(
    engine: Engine, registry: Registry, sample: Any, realm: str
) -> None:
    registry.add("team/app", "1", *sample)
    challenge = f'Bearer realm="{realm.replace("HOST", registry.host)}",service="x"'
    registry.fault("manifests/1", status(401, WWW_Authenticate=challenge), 99)
    with pytest.raises(BadAnswer):
        pulled(engine, registry)
    assert registry.asked("manifests/1") == 1


@pytest.mark.parametrize("place", NOWHERE)
def test_an_upload_to_what_cannot_be_asked_for_is_one_error(
    engine: Engine, registry: Registry, sample: Any, place: str
) -> None:
    registry.add("team/app", "1", *sample)
    pulled(engine, registry)
    registry.holders.clear()
    registry.fault("POST .*/uploads/", status(202, Location=place), 99)
    with pytest.raises(BadAnswer):
        engine.registry.push(f"{registry.host}/team/app:1").result()


@pytest.mark.parametrize("place", NOWHERE)
def test_a_next_page_that_cannot_be_asked_for_is_one_error(engine: Engine, registry: Registry, place: str) -> None:
    registry.fault("tags/list", says(b'{"tags": ["a"]}', Link=f'<{place}>; rel="next"'))
    with pytest.raises(BadAnswer):
        engine.registry.tags(f"{registry.host}/team/app")


@pytest.mark.parametrize("name", [f"{'a' * 70}.com/x", "localhost:99999/x", "127.0.0.1:0/x"])
def test_a_host_that_there_cannot_be_is_one_error(engine: Engine, name: str) -> None:
    with pytest.raises(RegistryError):
        engine.registry.pull(name).result()


@pytest.mark.parametrize("proxy", ["http://[", "http://127.0.0.1:99999", "127.0.0.1:abc"])
def test_a_proxy_that_there_cannot_be_is_one_error(root: Path, tmp_path: Path, registry: Registry, proxy: str) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "http_proxy": proxy, "https_proxy": proxy}
    with Engine(root, environ) as engine, pytest.raises(UsageError, match="proxy"):
        engine.registry.pull(f"{registry.host}/team/app:1").result()


# --- numbers ---


@pytest.mark.parametrize("lasts", ["1" + "0" * 400, "1e400", "NaN", "-1", "-Infinity", "0", "true", '"x"', "[]"])
def test_however_long_a_token_is_said_to_last_it_is_used(
    engine: Engine, registry: Registry, sample: Any, lasts: str
) -> None:
    registry.add("team/app", "1", *sample)
    registry.auth, registry.tokens["t"] = "bearer", (math.inf, "")
    registry.fault("/token", says(f'{{"token": "t", "expires_in": {lasts}}}'.encode()), 99)
    assert pulled(engine, registry)[0].digest == sample[0].digest


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_number_without_end_is_none(engine: Engine, registry: Registry, sample: Any, digits: int) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault("GET .*/blobs/", status(206, Content_Range=f"bytes {'0' * digits}-1/2"), 99)
    with pytest.raises(BadAnswer):
        pulled(engine, registry)


def test_a_length_without_end_is_none(engine: Engine, registry: Registry) -> None:
    def endless(handler: Any) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{")
        handler.close_connection = True
        return True

    registry.fault("manifests/1", endless, 99)
    with pytest.raises(NbcontainError):
        pulled(engine, registry)


# --- tags ---


@pytest.mark.parametrize("tag", ["../../evil", "a\nb", f"x@sha256:{'0' * 64}", "", "\u00e9", "a" * 129, "a:b", "a b"])
def test_a_list_with_what_is_no_tag_is_refused_as_a_whole(
    engine: Engine, registry: Registry, sample: Any, tag: str
) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault("tags/list", says(json.dumps({"tags": ["1", tag]}).encode()), 99)
    with pytest.raises(BadDocument):
        engine.registry.tags(f"{registry.host}/team/app")
    with pytest.raises(BadDocument):
        pulled(engine, registry, "team/app", all_tags=True)
    assert engine.images() == []


@pytest.mark.parametrize("tag", ["../../evil", "a\nb", "", f"x@sha256:{'0' * 64}"])
def test_the_store_takes_no_name_that_does_not_read_back(engine: Engine, sample: Any, tag: str) -> None:
    image = sample[0]
    for data in sample[1].values():
        engine.store.blobs.put([data], "")
    with pytest.raises(BadReference):
        engine.store.images.put(image, Reference("registry.example", "team/app", tag))
    assert engine.images() == []


# --- answers without end ---


def without_end(head: bytes, piece: bytes, every_s: float = 0.0) -> Fault:
    """Send `head`, and then `piece` until the client has gone, or for 20 s."""

    def do(handler: Any) -> bool:
        handler.close_connection = True
        until_s = time.monotonic() + 20
        with suppress(OSError):
            handler.wfile.write(head)
            while time.monotonic() < until_s:
                handler.wfile.write(piece)
                time.sleep(every_s)
        return True

    return do


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


@pytest.mark.parametrize("where", ["/v2/$", "manifests/1", "GET .*/blobs/"])
@pytest.mark.parametrize(
    "fault",
    [
        without_end(b"", CONTINUE * 2000),
        without_end(b"", CONTINUE[:-2] + b"X: " + b"y" * 60_000 + b"\r\n\r\n"),
        without_end(CHUNKED, b"X: y\r\n" * 2000),
        without_end(b"", CONTINUE, 0.02),
        without_end(CHUNKED, b"X: y\r\n", 0.02),
        without_end(b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.02),
    ],
    ids=["interim", "interim-large", "trailer", "slow-interim", "slow-trailer", "slow-header"],
)
def test_an_answer_without_end_is_a_lost_connection(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch, fault: Fault, where: str
) -> None:
    monkeypatch.setattr(wire, "_STEP_S", 0.2)
    engine.registry.patience = Patience(2, 0.001, 0.01)
    registry.add("team/app", "1", *sample)
    registry.fault(where, fault, 99)
    began = time.monotonic()
    with pytest.raises(NbcontainError):
        pulled(engine, registry)
        if where == "/v2/$":
            # What it says to that does not matter, if only it says it.
            raise Unreachable("")
    assert time.monotonic() - began < 10
