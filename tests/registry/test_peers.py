"""Debian's docker-registry and skopeo: what they push we pull, and the other way round."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import new_engine

import needs
from nbcontain.engine import Engine
from nbcontain.errors import BadCertificate, Unauthorized


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a docker-registry with these further lines of configuration; gives its host:port."""
    program = needs.program("docker-registry")
    running: list[subprocess.Popen[bytes]] = []

    def start(more: str = "", http: str = "") -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        config = tmp_path / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n{http}{more}"
        )
        running.append(
            subprocess.Popen([program, "serve", str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        )
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        return f"127.0.0.1:{port}"

    yield start
    for each in running:
        each.terminate()
        each.wait()


def skopeo(*words: str) -> str:
    program = needs.program("skopeo")
    return subprocess.run([program, *words], capture_output=True, text=True, check=True, timeout=60).stdout


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
