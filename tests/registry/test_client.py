"""What the client promises beside bytes: how many at once, how long it waits, how it goes on, what it asks for."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samples import image_of
from server import Registry, cut, hang_up, says, status

from nbcontain.engine import Engine
from nbcontain.errors import Unauthorized
from nbcontain.events import Notice
from nbcontain.oci.image import INDEX
from nbcontain.registry import wire
from nbcontain.registry.client import Patience
from nbcontain.registry.credentials import Credentials, Keychain
from nbcontain.registry.pull import PARALLEL


def test_no_more_than_three_layers_come_at_a_time(engine: Engine, registry: Registry) -> None:
    image, blobs = image_of(*(bytes([n]) * 1000 for n in range(9)))
    registry.add("team/app", "1", image, blobs)
    lock, now, most = threading.Lock(), 0, 0

    def counting(handler: Any) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return False

    registry.fault("GET .*/blobs/", counting, 99)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    assert 1 < most <= PARALLEL == 3


@pytest.mark.parametrize("said", [7, 100_000])
@pytest.mark.parametrize("where", ["manifests/1", "blobs/", "/token"])
def test_a_registry_is_left_alone_for_as_long_as_it_says(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch, said: int, where: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(wire.Wire, "pause", lambda self, seconds: pauses.append(seconds))
    registry.auth = "bearer"
    registry.add("team/app", "1", *sample)
    registry.fault(f"GET .*{where}", status(429, Retry_After=str(said)))
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    assert pauses == [min(said, 120)]


def test_pauses_grow_and_are_never_the_same_for_all() -> None:
    patience = Patience(6, 0.5, 30.0)
    for failures, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (20, 30.0)):
        found = [patience.delay_s(failures) for _ in range(300)]
        assert 0 <= min(found) < longest / 4
        assert longest * 3 / 4 < max(found) <= longest


def test_an_upload_that_is_cut_goes_on_in_pieces(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    registry.holders.clear()
    big = sample[0].manifest.layers[1]

    def half(handler: Any) -> bool:
        """Take half of it and hang up."""
        name = handler.path.partition("?")[0].rpartition("/")[2]
        handler.registry.uploads[name] += handler.body[: len(handler.body) // 2]
        return hang_up(handler)

    registry.fault(f"PUT .*uploads/.*{big.digest.hex}", half)
    engine.registry.push(f"{registry.host}/team/app:1").result()
    sent = [headers["Content-Range"] for method, _, headers in registry.requests if method == "PATCH"]
    assert sent == [f"{big.size // 2}-{big.size - 1}"]
    assert registry.blobs[str(big.digest)] == sample[1][big.digest]


def test_all_tags_of_a_repository_are_pushed_and_no_others(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    other = Registry()
    for name in ("mine:1", "mine:2", "yours:1"):
        engine.tag(f"{registry.host}/team/app:1", f"{other.host}/{name}")
    sent = engine.registry.push(f"{other.host}/mine", all_tags=True).result()
    assert sorted(name.tag or "" for name, _ in sent) == ["1", "2"]
    assert {(name, tag) for name, tag in other.manifests if ":" not in tag} == {("mine", "1"), ("mine", "2")}
    other.close()


@pytest.mark.parametrize("is_old", [False, True], ids=["by the specification", "by the tag of older registries"])
def test_what_refers_to_an_image_is_found(engine: Engine, registry: Registry, sample: Any, is_old: bool) -> None:
    registry.add("team/app", "1", *sample)
    digest = sample[0].digest
    entries = [{"digest": f"sha256:{n * 64}", "size": 1, "mediaType": "m", "artifactType": f"t/{n}"} for n in "ab"]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    if is_old:
        registry.manifests["team/app", f"sha256-{digest.hex}"] = (INDEX, index)
    else:
        registry.fault(f"GET .*/referrers/{digest}", says(index, Content_Type=INDEX), 9)
    name = f"{registry.host}/team/app:1"
    assert engine.registry.referrers(name) == entries
    assert engine.registry.referrers(name, "t/b") == entries[1:]
    assert engine.registry.referrers(f"{registry.host}/team/app@{'sha256:' + 'c' * 64}") in ([], entries)


def test_a_store_of_credentials_is_asked_for_every_registry(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    document = {"credsStore": "mine", "credHelpers": {"r.example": "its"}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(document))
    for name in ("mine", "its"):
        helper = tmp_path / f"docker-credential-{name}"
        helper.write_text(
            "#!/bin/sh\nread host\n"
            '[ "$host" = unknown.example ] && { echo "credentials not found in native keychain"; exit 1; }\n'
            f'echo "{{\\"Username\\":\\"{name}\\",\\"Secret\\":\\"$host\\"}}"\n'
        )
        helper.chmod(0o755)
    found = Keychain.of({"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert found.find("r.example") == Credentials("its", "r.example")
    assert found.find("other.example") == Credentials("mine", "other.example")
    assert found.find("docker.io") == Credentials("mine", "https://index.docker.io/v1/")


def test_what_was_cut_is_asked_for_from_where_it_stopped(engine: Engine, registry: Registry, sample: Any) -> None:
    registry.add("team/app", "1", *sample)
    big = sample[0].manifest.layers[1]
    registry.fault(f"GET .*{big.digest}", cut(1_500_000))
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    asked = [headers.get("Range") for method, path, headers in registry.requests if str(big.digest) in path]
    assert asked == [None, "bytes=1500000-"]


def test_a_short_answer_that_comes_late_is_an_answer(
    engine: Engine, registry: Registry, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is slower than so many bytes in a while is lost; but what has come is not thrown away for it."""
    monkeypatch.setattr(wire, "_WINDOW_S", 0.05)
    monkeypatch.setattr(engine.registry, "patience", Patience(1, 0.0, 0.0))
    registry.add("team/app", "1", *sample)

    def late(handler: Any) -> bool:
        time.sleep(0.1)
        return False

    registry.fault("GET /v2/", late, 99)
    assert engine.registry.tags(f"{registry.host}/team/app") == ["1"]


def test_credentials_that_cannot_be_read_are_told_of_once_and_asked_without(
    engine: Engine, registry: Registry, sample: Any, tmp_path: Path
) -> None:
    """docker warns, and goes on as nobody; whom the registry then refuses is told why that may be."""
    for tag in ("1", "2"):
        registry.add("team/app", tag, *sample)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text("{")
    name = f"{registry.host}/team/app"
    pull = engine.registry.pull(name, all_tags=True)
    assert len(pull.result()) == 2
    push = engine.registry.push(f"{name}:1")
    push.result()
    for task in (pull, push):
        said = [record.event for record in task.journal.follow() if isinstance(record.event, Notice)]
        [told] = [each for each in said if "config.json" in each.message]
        assert "log in again" in told.hint
    registry.auth = "bearer-private"
    with pytest.raises(Unauthorized) as refused:
        engine.registry.tags(name)
    assert "config.json" in refused.value.hint


def test_time_that_a_reader_takes_is_not_the_registrys(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: clock.now))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched = wire._Watched(ours, io.BytesIO())
        for _ in range(4):
            theirs.sendall(b"few")
            assert watched.readinto(bytearray(10)) == 3
            clock.now += 60


def test_an_answer_that_comes_late_may_have_one_packet_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_WINDOW_S", 0.0)
    monkeypatch.setattr(wire, "_BEHIND_MS", 10)
    for packets in (1, 2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watched = wire._Watched(ours, io.BytesIO())
            for _ in range(packets):
                theirs.sendall(b"few")
                assert watched.readinto(bytearray(10)) == 3
            if packets == 2:
                theirs.sendall(b"few")
            with pytest.raises(TimeoutError, match="next to nothing"):
                watched.readinto(bytearray(10))
