"""Pull and push, against a registry that speaks the specification, and one that goes wrong."""

from __future__ import annotations

import json
import socket
import threading
import time
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest
from samples import image_of, new_engine
from server import Registry, cut, hang_up, says, status

from archives import archive, layer_of, member
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import (
    BadAnswer,
    BadDocument,
    Cancelled,
    DigestMismatch,
    ImageNotFound,
    ManifestUnknown,
    NbcontainError,
    NoSuchPlatform,
    RateLimited,
    RegistryError,
    Unauthorized,
    Unreachable,
    Unsupported,
)  # fmt: skip
from nbcontain.events import Event, Notice, Progress, Started
from nbcontain.inspection import image_document
from nbcontain.oci import indexes
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import INDEX, LAYER_TAR, LAYER_TAR_GZIP, Descriptor, Image, ImageConfig, Layer, Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.profiles import PROFILES
from nbcontain.registry.client import SCHEMA_1
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import stacks
from nbcontain.store.ingest import Partial
from nbcontain.store.layer_forms import GZIP, PLAIN
from nbcontain.store.layer_writer import layer_writer
from nbcontain.values import replace


def pulled(engine: Engine, registry: Registry, name: str = "team/app:1", **options: Any) -> Any:
    return engine.registry.pull(f"{registry.host}/{name}", **options).result()[0]


def nobody(event: Event) -> None:
    """Nobody is told."""


def test_a_pulled_image_is_whole_unpacked_and_named(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    image = pulled(engine, registry)
    assert image.raw_manifest == sample[0].raw_manifest
    assert engine.store.snapshots.exists(image.chain_id)
    assert engine.image(f"{registry.host}/team/app:1") == image


def test_an_image_whose_config_names_its_layers_by_sha512_goes_to_a_registry_and_comes_back_as_it_was(
    engine: Engine, registry: Registry
) -> None:
    data = [archive(member("a", data=b"x" * 3000)), archive(member("b"))]
    layers = [replace(layer_of(each), diff_id=DiffID(Digest("sha512", sha512(each).hexdigest()))) for each in data]
    for each in data:
        engine.store.blobs.put([each], "")
    made = Image.of(ImageConfig(cmd=("sh",)), layers)
    engine.store.images.put(made, Reference.parse(f"{registry.host}/team/app:1"))
    engine.registry.push(f"{registry.host}/team/app:1", preserve_digests=True).result()
    engine.remove_image(f"{registry.host}/team/app:1")
    engine.prune()
    image = pulled(engine, registry)
    assert (image.raw_config, image.raw_manifest) == (made.raw_config, made.raw_manifest)
    assert engine.store.snapshots.exists(image.chain_id)


def test_where_nothing_can_run_an_image_is_pulled_and_not_unpacked(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    engine.__dict__["profile"] = next(each for each in PROFILES if not each.runs)
    registry.add("team/app", "1", *sample)
    image = pulled(engine, registry)
    assert all(engine.store.blobs.has(layer) for layer in image.manifest.layers)
    assert list(engine.store.snapshots.walk()) == []


def test_what_is_here_is_not_fetched_again(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    pulled(engine, registry)
    registry.sent_bytes = 0
    pulled(engine, registry)
    assert registry.sent_bytes == 0


def test_a_download_that_is_cut_goes_on_where_it_stopped(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    registry.fault(f"GET .*{big.digest}", cut(1_000_000), 2)
    assert pulled(engine, registry).digest == sample[0].digest
    assert registry.sent_bytes < sum(map(len, sample[1].values())) + 1000


def test_the_next_pull_resumes_what_an_earlier_one_left(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    registry.fault(f"GET .*{big.digest}", cut(100_000), 6)
    with pytest.raises(Unreachable):
        pulled(engine, registry)
    registry.sent_bytes = 0
    assert pulled(engine, registry).digest == sample[0].digest
    assert registry.sent_bytes <= big.size - 500_000


def test_a_damaged_rest_of_an_earlier_pull_does_no_harm(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    engine.store.layout.ingest.mkdir()
    engine.store.layout.partial(big.digest).write_bytes(b"x" * 500_000)
    try:
        pulled(engine, registry)
    except NbcontainError:
        pulled(engine, registry)
    assert engine.store.blobs.read(big.digest, 1 << 23) == sample[1][big.digest]


def test_a_registry_that_ignores_the_range_is_listened_to_from_the_start(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    registry.fault(f"GET .*{big.digest}", cut(1_000_000))
    registry.fault(f"GET .*{big.digest}", says(sample[1][big.digest]))
    assert pulled(engine, registry).digest == sample[0].digest


def test_a_download_that_begins_anew_is_unpacked_anew(engine: Engine, registry: Registry, sample: Any) -> None:
    """Something between us and the registry gave other bytes, broke off, and cannot go on from there."""
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]

    def other(handler: Any) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(big.size))
        handler.end_headers()
        handler.wfile.write(b"\x1f\x8b" + bytes(1_000_000))
        handler.close_connection = True
        return True

    registry.fault(f"GET .*{big.digest}", other)
    registry.fault(f"GET .*{big.digest}", status(416))
    image = pulled(engine, registry)
    assert engine.store.snapshots.exists(image.chain_id)
    [top, _] = list(engine.store.snapshots.chain(image.chain_id))
    assert (top / "file1").stat().st_size == 3_000_000


@pytest.mark.parametrize(
    "fault",
    [status(429, Retry_After="0"), status(503), status(500), hang_up, status(502), status(429)],
    ids=["429-now", "503", "500", "hang-up", "502", "429"],
)
@pytest.mark.parametrize("where", ["manifests/1", "blobs/"])
def test_a_passing_fault_is_overcome(engine: Engine, registry: Registry, sample: Any, fault: Any, where: str) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault(f"GET .*{where}", fault, 2)
    assert pulled(engine, registry).digest == sample[0].digest


@pytest.mark.parametrize(
    ("where", "fault", "error"),
    [
        ("manifests", status(404), ManifestUnknown),
        ("manifests", status(403), Unauthorized),
        ("manifests", status(429, Retry_After="0"), RateLimited),
        ("manifests", status(500), BadAnswer),
        ("manifests", says(b"{"), NbcontainError),
        ("manifests", says(b"{}" + b" " * (9 << 20)), NbcontainError),
        ("manifests", says(b"{}", Docker_Content_Digest="sha256:" + "0" * 64), BadAnswer),
        ("manifests", says(b"{}", Content_Type=SCHEMA_1), Unsupported),
        ("manifests", says(b"x", Content_Encoding="gzip"), BadAnswer),
        ("manifests", status(302, Location="/v2/team/app/manifests/1"), BadAnswer),
        ("manifests", status(307, Location="file:///etc/passwd"), BadAnswer),
        ("blobs", status(307, Location="http://169.254.169.254/latest/meta-data"), BadAnswer),
        ("blobs", says(b"wrong"), NbcontainError),
        ("blobs", says(b"y" * 4_000_000), DigestMismatch),
        ("blobs", status(404), ManifestUnknown),
        ("blobs", status(416), RegistryError),
        ("blobs", status(206, Content_Range="bytes 7-9/10"), RegistryError),
        ("blobs", hang_up, Unreachable),
    ],
)  # fmt: skip
def test_a_lasting_fault_is_a_named_error_and_leaves_nothing_wrong(
    engine: Engine, registry: Registry, sample: Any, where: str, fault: Any, error: type[Exception]
) -> None:
    registry.add("team/app", "1", *sample)
    registry.fault(where, fault, 1000)
    with pytest.raises(error):
        pulled(engine, registry)
    assert engine.images() == []
    for digest in engine.store.blobs.walk():
        assert engine.store.blobs.read(digest, 1 << 23) == sample[1][digest]
    registry.faults.clear()
    assert pulled(engine, registry).digest == sample[0].digest


def test_an_error_that_nobody_foresaw_ends_the_pull_as_what_it_is_and_leaves_nothing(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread of one layer of several, in the middle of it, with the layer being unpacked meanwhile."""
    registry.add("team/app", "1", *sample)
    [small, big] = sample[0].manifest.layers
    write = Partial.write
    threads = set(threading.enumerate())

    def breaks(self: Partial, data: bytes) -> None:
        write(self, data)
        if self.size > 1_000_000:
            raise ZeroDivisionError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "write", breaks)
        with pytest.raises(ZeroDivisionError, match="nobody foresaw this"):
            pulled(engine, registry)
    assert engine.images() == []
    assert not engine.store.blobs.has(big)
    for thread in set(threading.enumerate()) - threads:
        if thread.name.startswith(("nbcontain pull", "nbcontain unpack", "nbcontain unzip")):
            thread.join(30)
            assert not thread.is_alive()
    assert list(engine.store.layout.tmp.iterdir()) == []
    assert pulled(engine, registry).digest == sample[0].digest
    assert engine.soundness.look().is_clean


def test_credentials_stay_with_their_host(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.auth = "basic"
    other = Registry()
    registry.add("team/app", "1", *sample)
    for path, data in sample[1].items():
        other.fault(f"/elsewhere/{path}", says(data), 9)
        registry.fault(f"GET .*blobs/{path}", status(307, Location=f"http://{other.host}/elsewhere/{path}"), 9)
    engine.registry.login(registry.host, "anna", "geheim")
    assert pulled(engine, registry).digest == sample[0].digest
    assert other.requests and not any("Authorization" in headers for _, _, headers in other.requests)
    other.close()


def test_a_token_that_runs_out_in_the_middle_is_renewed(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.auth = "bearer"
    registry.add("team/app", "1", *sample)

    def expire(handler: Any) -> bool:
        handler.registry.tokens.clear()
        return False

    registry.fault("GET .*/blobs/", expire, 1)
    assert pulled(engine, registry).digest == sample[0].digest
    assert registry.asked("GET /token") >= 2


def test_a_private_repository_needs_a_login(engine: Engine, registry: Registry, sample: Any, tmp_path: Path) -> None:
    registry.auth = "bearer-private"
    registry.add("team/app", "1", *sample)
    with pytest.raises(Unauthorized, match="does not let us") as caught:
        pulled(engine, registry)
    assert "login" in caught.value.hint
    with pytest.raises(Unauthorized):
        engine.registry.login(registry.host, "anna", "falsch")
    engine.registry.login(registry.host, "anna", "geheim")
    assert (tmp_path / ".docker" / "config.json").stat().st_mode & 0o777 == 0o600
    assert pulled(engine, registry).digest == sample[0].digest
    assert engine.registry.logout(registry.host) and not engine.registry.logout(registry.host)


@pytest.mark.parametrize(
    "realm", ["http://169.254.169.254/t", "http://elsewhere.example/t", "file:///t", "https://u@x/t"]
)
def test_a_token_server_that_could_steal_credentials_is_not_asked(
    engine: Engine, registry: Registry, sample: Any, realm: str
) -> None:
    registry.fault("GET", status(401, WWW_Authenticate=f'Bearer realm="{realm}"'), 99)
    with pytest.raises(BadAnswer, match="for a token"):
        pulled(engine, registry)


def test_the_image_for_this_machine_is_chosen_from_an_index(engine: Engine, registry: Registry, sample: Any) -> None:
    foreign, blobs = image_of(b"other", platform=Platform("linux", "s390x"))
    registry.add("team/app", "here", *sample)
    registry.add("team/app", "there", foreign, blobs)
    entries = [
        {"mediaType": each.manifest.media_type, "digest": str(each.digest), "size": len(each.raw_manifest),
         "platform": {"os": "linux", "architecture": each.config.platform.architecture}}
        for each in (foreign, sample[0])
    ]  # fmt: skip
    registry.manifests["team/app", "1"] = INDEX, json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    assert pulled(engine, registry).digest == sample[0].digest
    assert pulled(engine, registry, platform="linux/s390x").digest == foreign.digest
    with pytest.raises(NoSuchPlatform, match="riscv64") as caught:
        pulled(engine, registry, platform="riscv64")
    assert "linux/s390x" in caught.value.why


def index_in(registry: Registry, tag: str, *images: tuple[Image, Any]) -> ImageIndex:
    """An index of these, which has that tag; and each of them by its digest."""
    index = indexes.index_of([indexes.entry_of(image) for image, _ in images])
    for image, blobs in images:
        registry.add("team/app", str(image.digest), image, blobs)
    registry.manifests["team/app", tag] = registry.manifests["team/app", str(index.digest)] = INDEX, index.raw
    return index


def digests_of(engine: Engine, name: str) -> Any:
    return image_document(engine, name)["RepoDigests"]


def test_an_image_is_known_by_the_digest_of_the_index_that_it_was_chosen_from(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    index = index_in(registry, "1", sample, image_of(b"other", platform=Platform("linux", "s390x")))
    pulled(engine, registry)
    by_digest = f"{registry.host}/team/app@{index.digest}"
    assert digests_of(engine, f"{registry.host}/team/app:1") == [by_digest]
    # Whoever has written down the digest finds it without asking anybody, by that of the manifest as well.
    registry.manifests.clear()
    for each in (by_digest, f"{registry.host}/team/app@{sample[0].digest}"):
        assert engine.image(each).digest == sample[0].digest
        assert engine.registry.to_run(RunOptions(image=each, pull="never"), nobody).digest == sample[0].digest
    with pytest.raises(ImageNotFound):
        engine.image(f"{registry.host}/team/other@{index.digest}")
    # A name that comes to stand for another index says so, though the image is the same.
    other = index_in(registry, "1", sample)
    pulled(engine, registry)
    assert digests_of(engine, f"{registry.host}/team/app:1") == [f"{registry.host}/team/app@{other.digest}"]
    assert [name and name.tag for name, _ in engine.images()] == ["1"]
    # And what is pulled by digest has no tag.
    engine.remove_image(f"{registry.host}/team/app:1", force=True)
    index_in(registry, "1", sample, image_of(b"other", platform=Platform("linux", "s390x")))
    engine.registry.pull(by_digest).result()
    document = image_document(engine, by_digest)
    assert (document["RepoTags"], document["RepoDigests"]) == ([], [by_digest])


def test_a_platform_that_is_asked_for_is_one_that_the_image_is_for(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    with pytest.raises(NoSuchPlatform, match="is for .*, and not for linux/s390x"):
        pulled(engine, registry, platform="linux/s390x")
    assert engine.images() == []
    pulled(engine, registry, platform=str(Platform.here()))
    with pytest.raises(NoSuchPlatform):
        engine.registry.to_run(RunOptions(image=f"{registry.host}/team/app:1", platform="linux/s390x"), nobody)
    # BuildKit takes such a base as it is.
    name = Reference.parse(f"{registry.host}/team/app:1")
    for _ in range(2):
        engine.bases.image(name, nobody, platform=Platform("linux", "s390x"))
    assert [name and name.tag for name, _ in engine.images()] == ["1"]


def test_an_image_for_another_system_is_refused(engine: Engine, registry: Registry) -> None:
    registry.add("team/app", "1", *image_of(b"x", platform=Platform("windows", "amd64")))
    with pytest.raises(Unsupported, match="is for windows"):
        pulled(engine, registry)
    assert engine.images() == []


def test_an_image_is_found_in_an_index_within_an_index(engine: Engine, registry: Registry, sample: Any) -> None:
    inner = index_in(registry, "inner", image_of(b"other", platform=Platform("linux", "s390x")), sample)
    entry = {"mediaType": INDEX, "digest": str(inner.digest), "size": len(inner.raw)}
    outer = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    registry.manifests["team/app", "1"] = INDEX, outer
    assert pulled(engine, registry).digest == sample[0].digest
    assert digests_of(engine, f"{registry.host}/team/app:1") == [f"{registry.host}/team/app@{Digest.of(outer)}"]
    # One that leads into ever deeper ones leads nowhere.
    raw = outer
    for number in range(5):
        registry.manifests["team/app", str(Digest.of(raw))] = INDEX, raw
        entry = {"mediaType": INDEX, "digest": str(Digest.of(raw)), "size": len(raw)}
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        registry.manifests["team/app", f"deep{number}"] = INDEX, raw
    with pytest.raises(BadDocument, match="lead nowhere"):
        engine.registry.pull(f"{registry.host}/team/app:deep4").result()


def test_a_layer_of_no_bytes_is_one(engine: Engine, registry: Registry, sample: Any) -> None:
    layers = (Layer(Descriptor(LAYER_TAR, Digest.of(b""), 0), DiffID(Digest.of(b""))), *sample[0].layers)
    image = Image.of(sample[0].config, layers)
    registry.add("team/app", "1", image, {**sample[1], Digest.of(b""): b"", image.id: image.raw_config})
    found = pulled(engine, registry)
    assert found.digest == image.digest
    assert engine.anatomy.verify(f"{registry.host}/team/app:1").result()


def test_two_engines_fetch_each_blob_once(root: Path, tmp_path: Path, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]

    def slowly(handler: Any) -> bool:
        time.sleep(0.3)
        return False

    registry.fault(f"GET .*{big.digest}", slowly, 9)
    with new_engine(root, tmp_path) as one, new_engine(root, tmp_path) as two:
        tasks = [each.registry.pull(f"{registry.host}/team/app:1") for each in (one, two)]
        assert {task.result()[0].digest for task in tasks} == {sample[0].digest}
    assert registry.asked(f"GET .*{big.digest}") == 1


def test_a_stalled_pull_is_cancelled_within_a_second(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    stalled, over = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        stalled.set()
        over.wait(10)
        return True

    registry.fault("GET .*/blobs/", stall, 9)
    task = engine.registry.pull(f"{registry.host}/team/app:1")
    assert stalled.wait(5)
    before = time.monotonic()
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    assert time.monotonic() - before < 1
    over.set()


def test_a_pull_that_waits_for_a_handshake_is_cancelled_within_a_second(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task = engine.registry.pull(f"localhost:{silent.getsockname()[1]}/team/app:1")
        taken, _ = silent.accept()
        with taken:
            assert taken.recv(1)  # of TLS's first word, which nobody answers
            before = time.monotonic()
            task.cancel()
            assert task.wait(5)
            assert time.monotonic() - before < 1
    with pytest.raises(Cancelled):
        task.result()


def test_the_next_pull_goes_on_where_a_cancelled_one_was(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as it takes: a worker may only just be starting.
    monkeypatch.setattr(stacks, "_CLEARING_S", 20.0)
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    half, over = threading.Event(), threading.Event()

    def half_of_it(handler: Any) -> bool:
        data = sample[1][big.digest]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        half.set()
        over.wait(10)
        handler.close_connection = True
        return True

    registry.fault(f"GET .*{big.digest}", half_of_it, 1)
    task = engine.registry.pull(f"{registry.host}/team/app:1")
    assert half.wait(5)
    deadline = time.monotonic() + 5
    partial = engine.store.layout.partial(big.digest)
    while (not partial.exists() or partial.stat().st_size < big.size // 4) and time.monotonic() < deadline:
        time.sleep(0.01)
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    # By now: a terminal's process ends here, and with it whoever would clear away later.
    assert list(engine.store.layout.tmp.iterdir()) == []
    over.set()
    registry.sent_bytes = 0
    assert pulled(engine, registry).digest == sample[0].digest
    assert registry.sent_bytes < big.size * 3 // 4


def test_what_was_pushed_is_what_is_pulled(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    image = pulled(engine, registry)
    other = Registry()
    engine.tag(f"{registry.host}/team/app:1", f"{other.host}/mine:2")
    [(name, digest)] = engine.registry.push(f"{other.host}/mine:2").result()
    assert digest == image.digest
    assert other.blobs == registry.blobs
    assert other.manifests["mine", "2"][1] == image.raw_manifest
    engine.registry.push(f"{other.host}/mine:2").result()
    assert other.asked("^POST") == len(sample[1])
    engine.tag(f"{other.host}/mine:2", f"{other.host}/yours:1")
    engine.registry.push(f"{other.host}/yours:1").result()
    assert other.asked("mount=") == len(sample[0].layers)
    other.close()


@pytest.mark.parametrize("fault", [status(500), hang_up, status(503, Retry_After="0")], ids=["500", "hang-up", "503"])
@pytest.mark.parametrize("where", ["^PUT .*/blobs/", "^POST", "^PUT .*/manifests/", "^HEAD"])
def test_a_push_overcomes_passing_faults(
    engine: Engine, registry: Registry, sample: Any, fault: Any, where: str
) -> None:
    registry.add("team/app", "1", *sample)
    pulled(engine, registry)
    engine.tag(f"{registry.host}/team/app:1", f"{registry.host}/new:1")
    registry.holders.clear()
    registry.fault(where, fault, 2)
    engine.registry.push(f"{registry.host}/new:1").result()
    assert registry.manifests["new", "1"][1] == sample[0].raw_manifest


# --- what lies here as plain tars, as docker's archives have it ---


@pytest.fixture
def plain(engine: Engine, registry: Registry) -> Image:
    """An image of two such layers and a compressed one, with two names."""
    layers = []
    for number, form in enumerate((PLAIN, GZIP, PLAIN)):
        with layer_writer(engine.store.blobs, form=form) as writer:
            writer.write(archive(member(f"file{number}", data=bytes(2_000_000))))
            layers.append(writer.commit())
    image = Image.of(ImageConfig(cmd=("true",)), layers)
    for name in ("here:1", f"{registry.host}/app:1"):
        engine.store.images.put(image, Reference.parse(name))
    return image


def media_types(registry: Registry, repository: str, name: str) -> list[str]:
    return [each["mediaType"] for each in json.loads(registry.manifests[repository, name][1])["layers"]]


def test_a_push_compresses_plain_layers_first_here_as_there(engine: Engine, registry: Registry, plain: Image) -> None:
    task = engine.registry.push(f"{registry.host}/app:1")
    [(_, digest)] = task.result()
    assert media_types(registry, "app", "1") == [LAYER_TAR_GZIP] * 3
    for name in ("here:1", f"{registry.host}/app:1"):
        found = engine.image(name)
        assert (found.digest, found.id, found.config) == (digest, plain.id, plain.config)
    assert found.layers[1] == plain.layers[1]
    assert [each.diff_id for each in found.layers] == [each.diff_id for each in plain.layers]
    said = [each.event.message for each in task.journal.read() if isinstance(each.event, Notice)]
    assert any("compressed from now on" in message for message in said)
    # The tars are not kept besides, and nothing is to be done the next time.
    assert not engine.store.blobs.exists(plain.layers[0].descriptor.digest)
    assert engine.image("here:1").size_bytes < 100_000
    sent = registry.asked("^POST")
    assert engine.registry.push(f"{registry.host}/app:1").result()[0][1] == digest
    assert registry.asked("^POST") == sent
    assert pulled(engine, registry, "app:1").digest == digest


def test_a_push_may_leave_layers_as_they_are(engine: Engine, registry: Registry, plain: Image) -> None:
    name = f"{registry.host}/app:1"
    assert engine.registry.push(name, preserve_digests=True).result()[0][1] == plain.digest
    # Whoever names the digest means that one.
    engine.tag("here:1", f"{registry.host}/app:2")
    pinned = f"{registry.host}/app@{plain.digest}"
    engine.store.images.put(plain, Reference.parse(pinned))
    assert engine.registry.push(pinned).result()[0][1] == plain.digest
    assert registry.manifests["app", str(plain.digest)][1] == plain.raw_manifest
    # And a name with a digest keeps its image when another name of the same is pushed.
    engine.registry.push(f"{registry.host}/app:2").result()
    assert engine.image(pinned).digest == plain.digest != engine.image("here:1").digest
    assert engine.store.blobs.exists(plain.layers[0].descriptor.digest)


def test_all_tags_of_one_image_are_compressed_once(engine: Engine, registry: Registry, plain: Image) -> None:
    engine.tag("here:1", f"{registry.host}/app:2")
    task = engine.registry.push(f"{registry.host}/app", all_tags=True)
    [(_, one), (_, other)] = task.result()
    assert one == other
    began = [each.event.name for each in task.journal.read() if isinstance(each.event, Started)]
    assert len([name for name in began if name.startswith("compress layer")]) == 2
    assert media_types(registry, "app", "2") == [LAYER_TAR_GZIP] * 3


def test_what_a_push_cannot_send_is_compressed_all_the_same_and_nothing_is_lost(
    engine: Engine, registry: Registry, plain: Image
) -> None:
    registry.fault("^PUT .*/manifests/", status(403), 99)
    with pytest.raises(RegistryError):
        engine.registry.push(f"{registry.host}/app:1").result()
    registry.faults.clear()
    assert engine.image("here:1").id == plain.id
    # What they were is not kept for that.
    assert not engine.store.blobs.exists(plain.layers[0].descriptor.digest)
    assert engine.anatomy.verify("here:1").result()
    engine.registry.push(f"{registry.host}/app:1").result()
    assert media_types(registry, "app", "1") == [LAYER_TAR_GZIP] * 3


@pytest.mark.parametrize("harm", ["other bytes", "cut", "looks compressed"])
def test_a_plain_layer_that_is_damaged_here_is_not_sent_and_said_to_be_that(
    engine: Engine, registry: Registry, plain: Image, harm: str
) -> None:
    blobs = engine.store.blobs
    path, before = blobs.path(plain.layers[0].descriptor.digest), sorted(map(str, blobs.walk()))
    path.chmod(0o644)
    data = path.read_bytes()
    harmed = {"other bytes": b"X" + data[1:], "cut": data[:700_000], "looks compressed": b"BZh" + data[600:]}
    path.write_bytes(harmed[harm])
    with pytest.raises(DigestMismatch) as caught:
        engine.registry.push(f"{registry.host}/app:1").result()
    assert "damaged here" in caught.value.why and "system check --full --repair" in caught.value.hint
    assert not registry.asked("^(POST|PUT)")
    assert sorted(map(str, blobs.walk())) == before and engine.image("here:1") == plain


@pytest.mark.parametrize("fault", [hang_up, status(403)], ids=["not there", "lets nobody in"])
def test_a_registry_that_takes_nothing_changes_nothing_here(
    engine: Engine, registry: Registry, plain: Image, fault: Any
) -> None:
    registry.fault(".", fault, 99)
    with pytest.raises(RegistryError):
        engine.registry.push(f"{registry.host}/app:1").result()
    assert engine.image("here:1").digest == plain.digest


@pytest.mark.parametrize("compression", ["", ",compression=uncompressed,force-compression=true"])
def test_a_build_on_plain_layers_pushes_them_compressed_unless_that_is_not_wanted(
    engine: Engine, registry: Registry, plain: Image, compression: str
) -> None:
    output = Output.parse(f"type=registry,name={registry.host}/built:1{compression}")
    engine.build("FROM here:1\nENV A=b", BuildOptions(outputs=(output,), tags=("built",))).result()
    wanted = [LAYER_TAR] * 3 if compression else [LAYER_TAR_GZIP] * 3
    assert media_types(registry, "built", "1") == wanted
    assert engine.image("built").digest == Digest.of(registry.manifests["built", "1"][1])


def test_an_index_is_pushed_with_all_that_is_in_it(engine: Engine, registry: Registry) -> None:
    one, other = (image_of(b"x", platform=each) for each in (Platform.here(), Platform("linux", "s390x")))
    for image, blobs in (one, other):
        for data in blobs.values():
            engine.store.blobs.put([data], "application/octet-stream")
        engine.store.images.keep(image)
    name = Reference.parse(f"{registry.host}/team/app:1")
    index = indexes.index_of([indexes.entry_of(image) for image, _ in (one, other)])
    engine.store.images.put_index(index, name)
    [(_, digest)] = engine.registry.push(str(name)).result()
    assert digest == index.digest
    assert registry.manifests["team/app", "1"] == (INDEX, index.raw)
    for image, _ in (one, other):
        assert registry.manifests["team/app", str(image.digest)][1] == image.raw_manifest
    assert pulled(engine, registry, platform="linux/s390x") == other[0]


def test_from_takes_another_platforms_image_beside_the_one_that_has_the_name(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    other = image_of(b"there", platform=Platform("linux", "s390x"))
    registry.add("team/app", "1", *sample)
    name = Reference.parse(f"{registry.host}/team/app:1")
    pulled(engine, registry)
    index = indexes.index_of([indexes.entry_of(image) for image, _ in (sample, other)])
    registry.add("team/app", "2", *other)
    registry.manifests["team/app", "1"] = (INDEX, index.raw)
    for _ in range(2):
        found = engine.bases.image(name, lambda event: None, platform=Platform("linux", "s390x"))
        assert (found, engine.image(str(name))) == (other[0], sample[0])
        registry.manifests.clear()


def test_tags_come_page_by_page(engine: Engine, registry: Registry, sample: Any) -> None:
    for tag in "abcde":
        registry.add("team/app", tag, *sample)
    registry.page = 2
    assert engine.registry.tags(f"{registry.host}/team/app") == list("abcde")
    assert engine.registry.tags(f"{registry.host}/team/app", 3) == list("abc")
    assert len(engine.registry.pull(f"{registry.host}/team/app", all_tags=True).result()) == 5


def test_a_next_page_on_another_host_is_refused(engine: Engine, registry: Registry) -> None:
    registry.fault("tags", says(b'{"tags":["a"]}', Link='<http://elsewhere.example/x>; rel="next"'), 9)
    with pytest.raises(BadAnswer, match="elsewhere.example"):
        engine.registry.tags(f"{registry.host}/team/app")


def test_from_pulls_what_is_not_here(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    image = engine.build(f"FROM {registry.host}/team/app:1\nENV a=b\n").result()
    assert image.layers == sample[0].layers


def test_never_does_not_ask_the_registry(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    reference = Reference.parse(f"{registry.host}/team/app:1")
    with pytest.raises(NbcontainError):
        engine.registry.ensure(reference, "never", lambda event: None)
    assert registry.requests == []
    engine.registry.ensure(reference, "missing", lambda event: None)
    registry.close()
    assert engine.registry.ensure(reference, "newer", lambda event: None).digest == sample[0].digest


def test_a_quiet_run_says_nothing_of_its_pull_and_can_be_cancelled_all_the_same(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    name, heard = f"{registry.host}/team/app:1", list[Event]()
    found = engine.bases.to_run(RunOptions(image=name, quiet=True), heard.append)
    assert found.digest == sample[0].digest
    assert heard and not [event for event in heard if not isinstance(event, Progress) or event.task]

    def struck(event: Event) -> None:
        raise Cancelled("no longer wanted")

    with pytest.raises(Cancelled):
        engine.bases.to_run(RunOptions(image=name, quiet=True, pull="always"), struck)


def test_a_digest_wins_over_a_tag(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    name = f"{registry.host}/team/app:other@{sample[0].digest}"
    assert engine.registry.pull(name).result()[0].digest == sample[0].digest
