"""Debian's docker-registry and skopeo: what they push we pull, and the other way round."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from samples import image_of, new_engine
from server import Registry

import needs
from nbcontain.engine import Engine
from nbcontain.errors import BadCertificate, Unauthorized
from nbcontain.oci.image import Platform
from nbcontain.store.layer_forms import form_of
from servers import docker_registry


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a docker-registry with these further lines of configuration; gives its host:port."""
    program = needs.program("docker-registry")
    with ExitStack() as stack:

        def start(more: str = "", http: str = "") -> str:
            return f"127.0.0.1:{stack.enter_context(docker_registry(tmp_path, program, http=http, more=more))}"

        yield start


def skopeo(*words: str) -> str:
    program = needs.program("skopeo")
    return subprocess.run([program, *words], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """podman with a store of its own; gives its standard output."""
    program = needs.program("podman")
    # Of at most 50 characters: podman's rule.
    runs = tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp")
    common = ["--root", f"{tmp_path}/pod", "--runroot", runs.name, "--storage-driver", "vfs",
              "--events-backend", "none", "--cgroup-manager", "cgroupfs"]  # fmt: skip

    def run(*words: str, stdin: bytes = b"") -> str:
        done = subprocess.run([program, *common, *words], input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout.decode(errors="surrogateescape")

    with runs:
        yield run


@pytest.mark.skipif(os.geteuid() != 0, reason="podman's store of an ordinary user takes more than this tests")
def test_podman_and_we_give_each_other_images_by_registry_and_by_archive(
    engine: Engine, root: Path, tmp_path: Path, serve: Any, podman: Any, sample: Any
) -> None:
    host = serve()
    server = Registry()
    server.add("team/app", "1", *sample)
    engine.registry.pull(f"{server.host}/team/app:1").result()
    engine.tag(f"{server.host}/team/app:1", f"{host}/ours:1")
    engine.registry.push(f"{host}/ours:1").result()
    podman("pull", "-q", "--tls-verify=false", f"{host}/ours:1")
    assert podman("image", "inspect", "--format", "{{.Digest}}", f"{host}/ours:1").strip() == str(sample[0].digest)
    podman("push", "-q", "--tls-verify=false", "--format", "oci", f"{host}/ours:1", f"{host}/theirs:1")
    podman("push", "-q", "--tls-verify=false", "--format", "v2s2", f"{host}/ours:1", f"{host}/theirs:2")
    with new_engine(root / "second", tmp_path) as second:
        for tag in ("1", "2"):
            [image] = second.registry.pull(f"{host}/theirs:{tag}").result()
            assert image.config.diff_ids == sample[0].config.diff_ids
    # Compressed in another way: podman pulls that too, and so do we.
    zstd = engine.archives.convert(f"{host}/ours:1", form_of("zstd"), f"{host}/ours:z").result()
    engine.registry.push(f"{host}/ours:z").result()
    podman("image", "rm", "-f", "-a")
    podman("pull", "-q", "--tls-verify=false", f"{host}/ours:z")
    assert podman("image", "inspect", "--format", "{{.Digest}}", f"{host}/ours:z").strip() == str(zstd.digest)
    with new_engine(root / "zstd", tmp_path) as other:
        assert other.registry.pull(f"{host}/ours:z").result()[0] == zstd
    # Archives: several images in one, from a file and through pipes.
    engine.tag(f"{host}/ours:1", "two:2")
    engine.archives.save([f"{host}/ours:1", "two:2"], str(tmp_path / "ours.tar")).result()
    podman("image", "rm", "-f", "-a")
    podman("load", "-q", stdin=(tmp_path / "ours.tar").read_bytes())
    # podman calls what has no registry in docker's table of contents localhost's.
    assert podman("image", "inspect", "--format", "{{.Id}}", "localhost/two:2").strip() == sample[0].id.hex
    podman("tag", "localhost/two:2", "docker.io/library/back:3")
    for format in ("docker-archive", "oci-archive"):
        podman("save", "-q", "--format", format, "-o", f"{tmp_path}/{format}.tar", "docker.io/library/back:3")
        with new_engine(root / format, tmp_path) as third:
            third.archives.load(f"{tmp_path}/{format}.tar").result()
            assert third.image("back:3").config.diff_ids == sample[0].config.diff_ids
    server.close()


def test_a_manifest_list_goes_to_a_registry_and_skopeo_takes_each_image_out_of_it(
    engine: Engine, tmp_path: Path, serve: Any, sample: Any
) -> None:
    host = serve()
    server = Registry()
    server.add("team/app", "1", *sample)
    other, blobs = image_of(b"for another machine", platform=Platform("linux", "s390x"))
    server.add("team/app", "2", other, blobs)
    made = engine.manifests.create("list:1", [f"{server.host}/team/app:1", f"{server.host}/team/app:2"]).result()
    engine.registry.push("list:1", to=f"{host}/list:1").result()
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/list:1")
    assert raw.encode() == made.raw
    for image in (sample[0], other):
        here = image.config.platform
        seen = skopeo("--override-arch", here.architecture, "inspect", "--tls-verify=false", f"docker://{host}/list:1")
        assert json.loads(seen)["Architecture"] == here.architecture
    # Our store is a layout that skopeo reads where it is, the list and what it names too.
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{engine.layout.oci}:docker.io/library/list:1",
           f"docker://{host}/copied:1")  # fmt: skip
    assert engine.registry.manifest(f"{host}/copied:1") == made.raw
    server.close()


def test_buildah_pushes_what_we_pull(engine: Engine, tmp_path: Path, serve: Any, sample: Any) -> None:
    if os.geteuid() != 0:
        needs.missing("buildah's store here is root's")
    host, program = serve(), needs.program("buildah")
    common = [program, "--root", f"{tmp_path}/bah", "--runroot", f"{tmp_path}/bahrun", "--storage-driver", "vfs"]

    def buildah(*words: str) -> str:
        done = subprocess.run([*common, *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    (tmp_path / "hello").write_text("hello")
    container = buildah("from", "scratch")
    buildah("copy", "-q", container, f"{tmp_path}/hello", "/hello")
    buildah("commit", "-q", container, "made")
    for format in ("oci", "v2s2"):
        buildah("push", "-q", "--tls-verify=false", "--format", format, "made", f"docker://{host}/made:{format}")
        [image] = engine.registry.pull(f"{host}/made:{format}").result()
        fs = engine.layout.snapshot(image.chain_id) / "fs"  # type: ignore[arg-type]
        assert (fs / "hello").read_text() == "hello"


def test_images_go_round_through_skopeo_with_the_same_digest(
    engine: Engine, root: Path, tmp_path: Path, serve: Any
) -> None:
    host = serve()
    made = engine.from_host(f"{host}/ours:1").result()
    engine.registry.push(f"{host}/ours:1").result()
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{host}/ours:1", f"oci:{tmp_path}/oci:x")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/oci:x", f"docker://{host}/theirs:1")
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{host}/theirs:1"))
    with new_engine(root / "second", tmp_path) as second:
        [image] = second.registry.pull(f"{host}/theirs:1").result()
    assert str(image.digest) == seen["Digest"] == str(made.digest)
    assert image.raw_config == made.raw_config


def test_an_image_in_dockers_own_format_is_pulled(engine: Engine, root: Path, tmp_path: Path, serve: Any) -> None:
    host = serve()
    made = engine.from_host(f"{host}/ours:1").result()
    engine.registry.push(f"{host}/ours:1").result()
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2",
           f"docker://{host}/ours:1", f"docker://{host}/docker:1")  # fmt: skip
    with new_engine(root / "second", tmp_path) as second:
        [image] = second.registry.pull(f"{host}/docker:1").result()
        assert image.config.diff_ids == made.config.diff_ids
        assert "docker" in image.manifest.media_type


def test_a_registry_with_tls_and_passwords(engine: Engine, tmp_path: Path, serve: Any) -> None:
    openssl, htpasswd = needs.program("openssl"), needs.program("htpasswd", "apache2-utils")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run([htpasswd, "-Bbc", tmp_path / "users", "anna", "geheim"], check=True, capture_output=True)
    host = serve(
        f"auth: {{htpasswd: {{realm: tests, path: {tmp_path}/users}}}}\n",
        f"  tls: {{certificate: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}\n",
    )
    engine.from_host(f"{host}/ours:1").result()
    trust = tmp_path / ".config" / "nbcontain" / "certs.d" / host
    trust.mkdir(parents=True)
    (trust / "ca.crt").write_bytes((tmp_path / "cert.pem").read_bytes())
    with pytest.raises(Unauthorized):
        engine.registry.push(f"{host}/ours:1").result()
    with pytest.raises(Unauthorized):
        engine.registry.login(host, "anna", "falsch")
    engine.registry.login(host, "anna", "geheim")
    engine.registry.push(f"{host}/ours:1").result()
    assert engine.registry.tags(f"{host}/ours") == ["1"]
    (trust / "ca.crt").write_bytes(_another_ca(openssl, tmp_path))
    with pytest.raises(BadCertificate, match="not trusted"):
        engine.registry.tags(f"{host}/ours")


def _another_ca(openssl: str, tmp_path: Path) -> bytes:
    subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other",
                    "-keyout", tmp_path / "k2.pem", "-out", tmp_path / "c2.pem"], check=True, capture_output=True)  # fmt: skip  # noqa: E501
    return (tmp_path / "c2.pem").read_bytes()


@pytest.mark.slow
def test_docker_pulls_what_we_push_and_we_pull_what_it_pushes(
    engine: Engine, root: Path, tmp_path: Path, serve: Any, sample: Any
) -> None:
    sys.path.insert(1, str(Path(__file__).parent.parent / "conformance"))
    import peers

    host = serve()
    server = Registry()
    server.add("team/app", "1", *sample)
    engine.registry.pull(f"{server.host}/team/app:1").result()
    server.close()
    engine.tag(f"{server.host}/team/app:1", f"{host}/ours:1")
    engine.registry.push(f"{host}/ours:1").result()
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name,
        peers.docker(Path(name, "docker"), sees_loopback=True) as docker,
    ):
        assert f"Digest: {sample[0].digest}" in docker("pull", f"{host}/ours:1")
        [seen] = json.loads(docker("image", "inspect", f"{host}/ours:1"))
        assert seen["Id"] == str(sample[0].id)
        docker("tag", f"{host}/ours:1", f"{host}/theirs:2")
        docker("push", f"{host}/theirs:2")
    with new_engine(root / "second", tmp_path) as second:
        [image] = second.registry.pull(f"{host}/theirs:2").result()
        assert (image.id, image.config.diff_ids) == (sample[0].id, sample[0].config.diff_ids)


class TokenServer:
    """Gives who says the right password a token for docker-registry: a JWT, signed by openssl (RFC 7519, RS256)."""

    def __init__(self, directory: Path) -> None:
        self.key, self.certificate = directory / "token-key.pem", directory / "token-cert.pem"
        self.scopes: list[str] = []
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout",
                 str(self.key), "-out", str(self.certificate))  # fmt: skip
        self._openssl(*words)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                known = "Basic " + base64.b64encode(b"anna:geheim").decode()
                scopes = query.get("scope", [])
                outer.scopes += scopes
                said = self.headers.get("Authorization")
                body = json.dumps({"token": outer.token(query["service"][0], scopes)}).encode()
                if said != known:
                    body = b"{}"
                self.send_response(200 if said == known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _openssl(self, *words: str, stdin: bytes = b"") -> bytes:
        return subprocess.run([needs.program("openssl"), *words], input=stdin, capture_output=True, check=True).stdout

    def token(self, service: str, scopes: list[str]) -> str:
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, _, rest in (each.partition(":") for each in scopes)
            for name, _, actions in [rest.rpartition(":")]
        ]
        now = int(time.time())
        chain = base64.b64encode(self._openssl("x509", "-in", str(self.certificate), "-outform", "DER")).decode()
        parts = (
            {"typ": "JWT", "alg": "RS256", "x5c": [chain]},
            {"iss": "tests", "sub": "anna", "aud": service, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1",
             "access": access},
        )  # fmt: skip
        signed = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts)
        signature = self._openssl("dgst", "-sha256", "-sign", str(self.key), stdin=signed)
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_registry_behind_a_token_server(engine: Engine, root: Path, tmp_path: Path, serve: Any, sample: Any) -> None:
    tokens, server = TokenServer(tmp_path), Registry()
    server.add("team/app", "1", *sample)
    engine.registry.pull(f"{server.host}/team/app:1").result()
    server.close()
    host = serve(
        f"auth: {{token: {{realm: '{tokens.realm}', service: tests, issuer: tests, "
        f"rootcertbundle: {tokens.certificate}}}}}\n"
    )
    name = f"{host}/ours:1"
    engine.tag(f"{server.host}/team/app:1", name)
    with pytest.raises(Unauthorized):
        engine.registry.push(name).result()
    engine.registry.login(host, "anna", "geheim")
    engine.registry.push(name).result()
    assert any("push" in each for each in tokens.scopes)
    engine.registry.logout(host)
    with new_engine(root / "second", tmp_path) as second:
        with pytest.raises(Unauthorized):
            second.registry.pull(name).result()
        second.registry.login(host, "anna", "geheim")
        assert second.registry.pull(name).result()[0].digest == sample[0].digest
        assert second.registry.tags(name) == ["1"]
        second.registry.logout(host)
    tokens.close()
