"""Our own registry: what distribution-spec 1.1 asks of one, by raw HTTP and by the clients that people have."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from samples import new_engine
from server import Registry as FakeRegistry

import needs
from machine import until
from nbcontain.commands import serving as commands
from nbcontain.engine import Engine
from nbcontain.errors import ManifestUnknown, PortTaken, RegistryError
from nbcontain.events import Emit
from nbcontain.oci.image import INDEX, MANIFEST, Image
from nbcontain.registry import repositories
from nbcontain.registry.repositories import Repositories
from nbcontain.registry.server import Heard, Server
from nbcontain.store import files
from nbcontain.task import Task


@pytest.fixture
def server(engine: Engine) -> Iterator[Server]:
    """The registry of the engine's store, in this process."""
    found = engine.serving.open(0, lambda heard: None)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def host(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


class Asker:
    """One connection to it."""

    def __init__(self, host: str) -> None:
        self.connection = http.client.HTTPConnection(host, timeout=5)

    def __call__(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.connection.request(method, path, data, dict(headers or {}))
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def error(self, *words: Any) -> tuple[int, str]:
        status, _, data = self(*words)
        return status, json.loads(data)["errors"][0]["code"]


@pytest.fixture
def ask(host: str) -> Asker:
    return Asker(host)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pushed(ask: Asker, repository: str, data: bytes) -> str:
    """A blob, in one request."""
    status, headers, _ = ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", data)
    assert (status, headers["Docker-Content-Digest"]) == (201, digest_of(data))
    return digest_of(data)


def manifest_of(ask: Asker, repository: str, *blobs: bytes, **more: Any) -> bytes:
    """The bytes of a manifest of these blobs, which are pushed: the first is the config."""
    parts = [
        {"mediaType": "application/x", "digest": pushed(ask, repository, blob), "size": len(blob)} for blob in blobs
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:], **more}
    return json.dumps(document).encode()


def test_a_blob_that_comes_in_pieces_is_whole_or_refused(ask: Asker) -> None:
    status, headers, _ = ask("POST", "/v2/a/b/blobs/uploads/")
    place = headers["Location"]
    assert (status, headers["Range"]) == (202, "0-0")
    octets = {"Content-Type": "application/octet-stream"}
    status, headers, _ = ask("PATCH", place, b"01234", {"Content-Range": "0-4", **octets})
    assert (status, headers["Range"]) == (202, "0-4")
    # As docker sends them: of a length that it does not know yet.
    status, headers, _ = ask("PATCH", place, iter([b"56", b"789"]), octets)
    assert (status, headers["Range"]) == (202, "0-9")
    # A piece that does not begin where the last one ended changes nothing.
    status, headers, _ = ask("PATCH", place, b"x", {"Content-Range": "3-3"})
    assert (status, headers["Range"]) == (416, "0-9")
    assert (ask("GET", place)[0], ask("GET", place)[1]["Range"]) == (204, "0-9")
    assert ask("PUT", f"{place}?digest={digest_of(b'0123456789ab')}", b"ab")[0] == 201
    assert ask("GET", f"/v2/a/b/blobs/{digest_of(b'0123456789ab')}")[2] == b"0123456789ab"
    assert ask.error("GET", place) == (404, "BLOB_UPLOAD_UNKNOWN")
    place = ask("POST", "/v2/a/b/blobs/uploads/")[1]["Location"]
    assert ask.error("PUT", f"{place}?digest={digest_of(b'other')}", b"these") == (400, "DIGEST_INVALID")
    assert ask.error("GET", f"/v2/a/b/blobs/{digest_of(b'these')}") == (404, "BLOB_UNKNOWN")
    place = ask("POST", "/v2/a/b/blobs/uploads/")[1]["Location"]
    assert (ask("DELETE", place)[0], ask.error("PATCH", place, b"x")) == (204, (404, "BLOB_UPLOAD_UNKNOWN"))


@pytest.mark.parametrize(
    ("asked", "status", "found", "place"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-100", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=5-2", 416, None, "bytes */10"),
        ("pages=1-2", 416, None, "bytes */10"),
    ],
)
def test_a_part_of_a_blob_can_be_asked_for(ask: Asker, asked: str, status: int, found: bytes, place: str) -> None:
    digest = pushed(ask, "a", b"0123456789")
    answer = ask("GET", f"/v2/a/blobs/{digest}", None, {"Range": asked})
    assert (answer[0], answer[1]["Content-Range"]) == (status, place)
    assert found is None or answer[2] == found


def test_a_blob_is_of_the_repositories_that_have_it(ask: Asker, server: Server) -> None:
    digest = pushed(ask, "a", b"shared")
    assert ask("HEAD", f"/v2/b/blobs/{digest}")[0] == 404
    status, headers, _ = ask("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a")
    assert (status, headers["Location"]) == (201, f"/v2/b/blobs/{digest}")
    assert ask("HEAD", f"/v2/b/blobs/{digest}")[1]["Content-Length"] == "6"
    # What is not there to be mounted, becomes an upload.
    assert ask("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=../a")[0] == 202
    assert ask("DELETE", f"/v2/a/blobs/{digest}")[0] == 202
    assert ask("GET", f"/v2/b/blobs/{digest}")[2] == b"shared"
    kept = server.repositories.root / "blobs" / "sha256" / digest[7:]
    assert kept.exists()
    assert (ask("DELETE", f"/v2/b/blobs/{digest}")[0], ask("DELETE", f"/v2/b/blobs/{digest}")[0]) == (202, 404)
    assert not kept.exists()


def test_a_manifest_is_kept_as_it_came_under_its_digest_and_its_tags(ask: Asker) -> None:
    data = manifest_of(ask, "a", b"config", b"layer")
    asked = {"Content-Type": MANIFEST}
    status, headers, _ = ask("PUT", "/v2/a/manifests/one", data, asked)
    assert (status, headers["Docker-Content-Digest"]) == (201, digest_of(data))
    for which in ("one", digest_of(data)):
        status, headers, body = ask("GET", f"/v2/a/manifests/{which}")
        assert (status, headers["Content-Type"], body) == (200, MANIFEST, data)
    assert ask("HEAD", "/v2/a/manifests/one")[1]["Content-Length"] == str(len(data))
    other = manifest_of(ask, "a", b"config", b"another layer")
    assert ask("PUT", "/v2/a/manifests/one", other, asked)[0] == 201
    assert ask("GET", "/v2/a/manifests/one")[2] == other and ask("GET", f"/v2/a/manifests/{digest_of(data)}")[2] == data
    assert ask.error("PUT", f"/v2/a/manifests/{digest_of(b'x')}", data, asked) == (400, "DIGEST_INVALID")
    assert ask.error("PUT", "/v2/b/manifests/one", data, asked) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert ask.error("PUT", "/v2/a/manifests/one", b"[1]", asked) == (400, "MANIFEST_INVALID")
    assert ask.error("PUT", "/v2/a/manifests/one", b"x" * (5 << 20), asked) == (413, "SIZE_INVALID")


def test_tags_come_in_pages(ask: Asker) -> None:
    data = manifest_of(ask, "a", b"config")
    for tag in ("b", "a", "d", "c"):
        ask("PUT", f"/v2/a/manifests/{tag}", data, {"Content-Type": MANIFEST})
    assert json.loads(ask("GET", "/v2/a/tags/list")[2]) == {"name": "a", "tags": ["a", "b", "c", "d"]}
    _, headers, first = ask("GET", "/v2/a/tags/list?n=2")
    assert json.loads(first)["tags"] == ["a", "b"] and headers["Link"] == '</v2/a/tags/list?n=2&last=b>; rel="next"'
    _, headers, rest = ask("GET", "/v2/a/tags/list?n=2&last=b")
    assert json.loads(rest)["tags"] == ["c", "d"] and "Link" not in headers
    assert json.loads(ask("GET", "/v2/a/tags/list?n=0")[2])["tags"] == []
    assert ask.error("GET", "/v2/nobody/tags/list") == (404, "NAME_UNKNOWN")
    assert json.loads(ask("GET", "/v2/_catalog")[2]) == {"repositories": ["a"]}


def test_a_tag_that_is_deleted_leaves_the_manifest_and_a_manifest_takes_its_tags_along(ask: Asker) -> None:
    data = manifest_of(ask, "a", b"config")
    for tag in ("one", "two"):
        ask("PUT", f"/v2/a/manifests/{tag}", data, {"Content-Type": MANIFEST})
    assert (ask("DELETE", "/v2/a/manifests/one")[0], ask("GET", "/v2/a/manifests/one")[0]) == (202, 404)
    assert ask("GET", f"/v2/a/manifests/{digest_of(data)}")[0] == 200
    assert ask("DELETE", f"/v2/a/manifests/{digest_of(data)}")[0] == 202
    assert ask.error("GET", "/v2/a/manifests/two") == (404, "MANIFEST_UNKNOWN")


def test_what_refers_to_an_image_is_listed_by_its_type(ask: Asker) -> None:
    image = manifest_of(ask, "a", b"config")
    subject = {"mediaType": MANIFEST, "digest": digest_of(image), "size": len(image)}
    signature = manifest_of(ask, "a", b"{}", b"signed", subject=subject, artifactType="x/signature")
    bill = manifest_of(ask, "a", b"{}", b"bill", subject=subject, artifactType="x/bill", annotations={"by": "me"})
    # They may come before what they speak of.
    for data in (signature, bill, image):
        _, headers, _ = ask("PUT", f"/v2/a/manifests/{digest_of(data)}", data, {"Content-Type": MANIFEST})
        assert headers["OCI-Subject"] == (None if data == image else digest_of(image))
    _, headers, body = ask("GET", f"/v2/a/referrers/{digest_of(image)}")
    assert headers["Content-Type"] == INDEX
    assert {each["artifactType"] for each in json.loads(body)["manifests"]} == {"x/signature", "x/bill"}
    _, headers, body = ask("GET", f"/v2/a/referrers/{digest_of(image)}?artifactType=x/bill")
    assert headers["OCI-Filters-Applied"] == "artifactType"
    assert json.loads(body)["manifests"] == [
        {"mediaType": MANIFEST, "digest": digest_of(bill), "size": len(bill), "artifactType": "x/bill",
         "annotations": {"by": "me"}}
    ]  # fmt: skip
    assert json.loads(ask("GET", f"/v2/a/referrers/{digest_of(b'nobody')}")[2])["manifests"] == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "said"),
    [
        ("GET", "/v2/", {"Origin": "https://elsewhere.example"}, (403, "DENIED")),
        ("GET", "/v2/", {"Host": "elsewhere.example"}, (403, "DENIED")),
        ("GET", "/v2/..%2f..%2fx/tags/list", {}, (400, "NAME_INVALID")),
        ("GET", "/v2/a/_blobs/tags/list", {}, (400, "NAME_INVALID")),
        ("GET", "/v2/a/blobs/sha256:..%2f..", {}, (404, "NAME_UNKNOWN")),
        ("GET", "/v2/a/blobs/sha256:12", {}, (400, "DIGEST_INVALID")),
        ("PUT", "/v2/a/manifests/.hidden", {"Content-Type": MANIFEST}, (400, "TAG_INVALID")),
        ("GET", "/v2/a/manifests/..", {}, (404, "MANIFEST_UNKNOWN")),
        ("PUT", "/v2/a/tags/list", {}, (405, "UNSUPPORTED")),
        ("POST", "/v2/a/blobs/uploads/?digest=md5:1", {}, (400, "DIGEST_INVALID")),
        ("GET", "/etc/passwd", {}, (404, "UNSUPPORTED")),
    ],
)
def test_what_is_no_request_for_a_registry_is_refused(
    ask: Asker, method: str, path: str, headers: dict[str, str], said: tuple[int, str]
) -> None:
    assert ask.error(method, path, b"{}" if method == "PUT" else None, headers) == said


def test_a_client_that_hangs_up_leaves_nothing_half_made(ask: Asker, server: Server, host: str) -> None:
    place = ask("POST", "/v2/a/blobs/uploads/")[1]["Location"]
    second = http.client.HTTPConnection(host, timeout=5)
    second.putrequest("PUT", f"{place}?digest={digest_of(b'0123456789')}")
    second.putheader("Content-Length", "10")
    second.endheaders(b"01234")
    second.close()
    until(lambda: ask("GET", place)[1]["Range"] == "0-4")
    assert ask("PATCH", place, b"56789", {"Content-Range": "5-9"})[0] == 202
    assert ask("PUT", f"{place}?digest={digest_of(b'0123456789')}")[0] == 201


class Slow:
    """A client whose request has begun, and whose body comes in chunks when it says so; an empty one ends it."""

    def __init__(self, host: str, method: str, place: str) -> None:
        self.connection = http.client.HTTPConnection(host, timeout=5)
        self.connection.putrequest(method, place)
        self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.endheaders()

    def sends(self, *chunks: bytes) -> None:
        for data in chunks:
            self.connection.sock.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def status(self) -> int:
        return self.connection.getresponse().status


@pytest.mark.parametrize("how", ["PATCH", "PUT"])
def test_what_is_published_nobody_goes_on_writing_to(
    ask: Asker, server: Server, host: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever sends to an upload has it alone: one who was thought dead may live, and be slow."""
    monkeypatch.setattr(repositories, "_WAIT_S", 0.05)
    good, place = b"0123456789", ask("POST", "/v2/a/blobs/uploads/")[1]["Location"]
    ask("PATCH", place, good)
    whole = f"{place}?digest={digest_of(good)}"
    slow = Slow(host, how, place if how == "PATCH" else f"{place}?digest={digest_of(good + b'EVIL')}")
    slow.sends(b"E")
    until(lambda: ask("GET", place)[1]["Range"] == "0-10")
    assert ask.error("PUT", whole) == (409, "BLOB_UPLOAD_INVALID")
    assert ask.error("PATCH", place, b"x") == (409, "BLOB_UPLOAD_INVALID")
    assert ask.error("GET", f"/v2/a/blobs/{digest_of(good)}") == (404, "BLOB_UNKNOWN")
    slow.sends(b"VIL", b"")
    assert slow.status() == {"PATCH": 202, "PUT": 201}[how]
    if how == "PATCH":
        assert ask.error("PUT", whole) == (400, "DIGEST_INVALID")


def test_an_upload_that_is_cancelled_takes_no_more(ask: Asker, host: str) -> None:
    place = ask("POST", "/v2/a/blobs/uploads/")[1]["Location"]
    slow = Slow(host, "PUT", f"{place}?digest={digest_of(b'0123')}")
    slow.sends(b"01")
    until(lambda: ask("GET", place)[1]["Range"] == "0-1")
    assert ask("DELETE", place)[0] == 204
    slow.sends(b"23", b"")
    assert slow.status() == 404
    assert ask.error("GET", f"/v2/a/blobs/{digest_of(b'0123')}") == (404, "BLOB_UNKNOWN")


def test_of_many_who_finish_an_upload_one_does(ask: Asker, server: Server, host: str) -> None:
    data = os.urandom(3 << 20)
    place = ask("POST", "/v2/a/blobs/uploads/")[1]["Location"]
    ask("PATCH", place, data)
    with ThreadPoolExecutor(8) as pool:
        finish = [pool.submit(Asker(host), "PUT", f"{place}?digest={digest_of(data)}") for _ in range(8)]
        assert sorted(each.result()[0] for each in finish) == [201, *[404] * 7]
    assert ask("GET", f"/v2/a/blobs/{digest_of(data)}")[2] == data
    assert files.names(server.repositories.root / "uploads") == []


def test_what_was_not_answered_is_not_logged_with_the_answer_before(
    ask: Asker, server: Server, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    monkeypatch.setattr(server, "log", told.put)
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("POST", "/v2/a/blobs/uploads/")
    place = connection.getresponse().headers["Location"]
    connection.putrequest("PATCH", place)
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"01234")
    connection.close()
    assert [told.get(timeout=5).status for _ in range(2)] == [202, 0]


def test_a_length_below_nothing_is_refused_and_nothing_is_read(ask: Asker) -> None:
    place = ask("POST", "/v2/a/blobs/uploads/")[1]["Location"]
    assert ask.error("PATCH", place, b"x" * 10, {"Content-Length": "-1"}) == (400, "UNSUPPORTED")
    assert ask("GET", place)[1]["Range"] == "0-0"


def test_a_manifest_of_no_name_is_not_there(ask: Asker) -> None:
    ask("PUT", "/v2/a/manifests/one", manifest_of(ask, "a", b"config"), {"Content-Type": MANIFEST})
    assert ask.error("GET", "/v2/a/manifests/..") == (404, "MANIFEST_UNKNOWN")


def test_what_no_manifest_needs_goes_when_the_registry_starts(ask: Asker, server: Server) -> None:
    data = manifest_of(ask, "a", b"config", b"layer")
    ask("PUT", "/v2/a/manifests/one", data, {"Content-Type": MANIFEST})
    orphan = pushed(ask, "a", b"orphan")
    ask("POST", "/v2/a/blobs/uploads/")
    server.repositories.sweep()
    assert ask("GET", f"/v2/a/blobs/{orphan}")[0] == 404
    assert ask("GET", f"/v2/a/blobs/{digest_of(b'layer')}")[0] == ask("GET", "/v2/a/manifests/one")[0] == 200
    left = [path.name for path in (server.repositories.root / "blobs" / "sha256").iterdir()]
    assert sorted(left) == sorted(digest_of(each)[7:] for each in (b"config", b"layer", data))
    assert not (server.repositories.root / "uploads").exists()


@pytest.fixture
def image(engine: Engine, sample: Any) -> Image:
    """In the store, as team/app:1 of nobody."""
    server = FakeRegistry()
    server.add("team/app", "1", *sample)
    [found] = engine.registry.pull(f"{server.host}/team/app:1").result()
    engine.tag(f"{server.host}/team/app:1", "app:1")
    server.close()
    return found


def test_what_we_push_is_pulled_back_with_the_same_digest_and_shared_layers_once(
    engine: Engine, root: Path, tmp_path: Path, host: str, image: Image
) -> None:
    engine.registry.push("app:1", to=f"{host}/app:1").result()
    engine.registry.push("app:1", to=f"{host}/other:2").result()
    with new_engine(root / "second", tmp_path) as second:
        [back] = second.registry.pull(f"{host}/app:1").result()
        assert back.digest == image.digest and back.raw_config == image.raw_config
        assert second.registry.tags(f"{host}/other") == ["2"]
        with pytest.raises(ManifestUnknown):
            second.registry.pull(f"{host}/app:nobody").result()


def test_skopeo_copies_in_and_out_and_deletes(engine: Engine, tmp_path: Path, host: str, image: Image) -> None:
    def skopeo(*words: str) -> str:
        program = needs.program("skopeo")
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    engine.registry.push("app:1", to=f"{host}/app:1").result()
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{host}/app:1", f"dir:{tmp_path}/dir")
    skopeo("copy", "--dest-tls-verify=false", f"dir:{tmp_path}/dir", f"docker://{host}/team/app:2")
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{host}/team/app:2"))
    assert (seen["Digest"], seen["RepoTags"]) == (str(image.digest), ["2"])
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2",
           f"docker://{host}/app:1", f"docker://{host}/docker:1")  # fmt: skip
    skopeo("delete", "--tls-verify=false", f"docker://{host}/team/app:2")
    assert engine.registry.tags(f"{host}/team/app") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="podman's store of an ordinary user takes more than this tests")
def test_podman_pushes_and_pulls(engine: Engine, tmp_path: Path, host: str, image: Image) -> None:
    runs = tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp")
    common = ["--root", f"{tmp_path}/pod", "--runroot", runs.name, "--storage-driver", "vfs",
              "--events-backend", "none", "--cgroup-manager", "cgroupfs"]  # fmt: skip

    def podman(*words: str) -> str:
        done = subprocess.run([needs.program("podman"), *common, *words], capture_output=True, text=True, timeout=60,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    with runs:
        engine.registry.push("app:1", to=f"{host}/app:1").result()
        podman("pull", "-q", "--tls-verify=false", f"{host}/app:1")
        assert podman("image", "inspect", "--format", "{{.Digest}}", f"{host}/app:1") == str(image.digest)
        podman("push", "-q", "--tls-verify=false", f"{host}/app:1", f"{host}/theirs:1")
        [back] = engine.registry.pull(f"{host}/theirs:1").result()
        assert back.config.diff_ids == image.config.diff_ids
        podman("image", "rm", "-f", "-a")


@pytest.mark.slow
def test_docker_pushes_and_pulls(engine: Engine, host: str, image: Image) -> None:
    sys.path.insert(1, str(Path(__file__).parent.parent / "conformance"))
    import peers

    engine.registry.push("app:1", to=f"{host}/app:1").result()
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name,
        peers.docker(Path(name, "docker"), sees_loopback=True) as docker,
    ):
        assert f"Digest: {image.digest}" in docker("pull", f"{host}/app:1")
        docker("tag", f"{host}/app:1", f"{host}/theirs:2")
        docker("push", f"{host}/theirs:2")
    [back] = engine.registry.pull(f"{host}/theirs:2").result()
    assert back.config.diff_ids == image.config.diff_ids


def test_it_goes_on_without_who_started_it_and_ends_when_it_is_told_to(
    engine: Engine, root: Path, image: Image
) -> None:
    def command(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "nbcontain", "registry", *words], capture_output=True, text=True,
                              env={**os.environ, "NBCONTAIN_ROOT": str(root)}, check=False)  # fmt: skip
        return done.stdout + done.stderr

    assert "a registry at localhost:" in command("start", "--port", "0")
    try:
        served = engine.serving.served
        assert served is not None and engine.serving.start() == served
        engine.registry.push("app:1", to=f"{served.host}/app:1").result()
        assert [each.tag for each in engine.serving.repositories.listed()] == ["1"]
        assert f"1 tag · at {served.host}" in command("ls")
        assert "PUT     /v2/app/manifests/1" in command("logs")
        with pytest.raises(RegistryError, match="runs already"):
            engine.serving.open(0, lambda heard: None)
    finally:
        assert command("stop") == "the registry has ended\n"
    assert engine.serving.served is None and command("stop") == "no registry runs\n"
    # The next one has what this one had, at the same port.
    assert engine.serving.start().port == served.port
    try:
        assert json.loads(Asker(f"127.0.0.1:{served.port}")("GET", "/v2/app/tags/list")[2])["tags"] == ["1"]
    finally:
        assert engine.serving.stop()


def test_it_ends_where_nobody_has_process_descriptors(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in older releases of gVisor."""

    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    engine.serving.start(0)
    monkeypatch.setattr(os, "pidfd_open", refused)
    assert engine.serving.stop()
    assert engine.serving.served is None


def test_one_at_another_port_is_not_begun_beside_the_one_that_runs(engine: Engine, server: Server) -> None:
    (log := engine.serving.root / "log").write_text("what it heard\n")
    with pytest.raises(RegistryError, match=f"runs already, at localhost:{server.port}"):
        engine.serving.start(server.port + 1)
    assert log.read_text() == "what it heard\n"


def test_whoever_only_looks_is_no_registry(engine: Engine, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with files.lock(engine.serving.root / "lock", exclusive=False):
        assert engine.serving.served is None


def test_until_it_listens_nobody_is_the_registry(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.serving.open(0, lambda heard: None).server_close()
    found: list[object] = []
    monkeypatch.setattr(Repositories, "sweep", lambda self: found.append(engine.serving.served))
    with engine.serving.open(0, lambda heard: None):
        assert found == [None] and engine.serving.served is not None


def test_a_registry_that_cannot_begin_lets_go_of_its_lock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(Repositories, "sweep", None)
        engine.serving.open(0, lambda heard: None)
    engine.serving.open(0, lambda heard: None).server_close()


def test_one_in_the_foreground_ends_if_cancelled_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(Task[None]):
        def __init__(self, name: str, body: Callable[[Emit], None]) -> None:
            super().__init__(name, lambda emit: (self._cancelled.wait(5), body(emit))[1])
            self.cancel()
            self.wait(5)

    monkeypatch.setattr(commands, "Task", Cancelled)
    words = (engine, commands.ServeWords(port="0"))
    serving = threading.Thread(target=commands.registry_serve, args=words, daemon=True)
    serving.start()
    serving.join(10)
    assert not serving.is_alive() and engine.serving.served is None


def test_a_port_that_is_taken_is_said(engine: Engine, registry: FakeRegistry) -> None:
    port = registry.http.server_address[1]
    with pytest.raises(PortTaken, match=f"port {port}"):
        engine.serving.open(int(port), lambda heard: None)
    with pytest.raises(RegistryError, match="did not start") as raised:
        engine.serving.start(int(port))
    assert "--port 0" in raised.value.why
