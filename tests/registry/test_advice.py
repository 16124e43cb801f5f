"""What is advised where something with a registry goes wrong: the next thing to do, and no other."""

from __future__ import annotations

import io
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import StdinNotImplementedError
from samples import image_of
from server import Registry, status

import needs
from nbcontain import api
from nbcontain.commands.registries import LoginWords, login
from nbcontain.engine import Engine
from nbcontain.errors import (
    BadCertificate,
    DigestMismatch,
    ImageNotFound,
    RegistryError,
    StoreError,
    Unauthorized,
    Unreachable,
    Unsupported,
    UsageError,
)  # fmt: skip
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import MANIFEST, Descriptor, Manifest
from nbcontain.oci.reference import Reference
from nbcontain.registry import refusals
from nbcontain.registry.configuration import Configuration
from servers import answering, free_port


def test_a_helm_chart_is_an_artifact(engine: Engine, registry: Registry) -> None:
    config = b'{"name": "app", "version": "1.0.0", "apiVersion": "v2"}'
    kind = "application/vnd.cncf.helm.config.v1+json"
    raw = codec.dump_manifest(Manifest(Descriptor(kind, Digest.of(config), len(config)), ()))
    registry.manifests["team/chart", "1"] = (MANIFEST, raw)
    registry.blobs[str(Digest.of(config))] = config
    registry.holders.add(("team/chart", str(Digest.of(config))))
    with pytest.raises(Unsupported, match="is an artifact and no image") as caught:
        engine.registry.pull(f"{registry.host}/team/chart:1").result()
    assert caught.value.why == kind


# --- certificates ---


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a key, and a certificate of it for 127.0.0.1."""
    place = tmp_path_factory.mktemp("key")
    subprocess.run(
        [needs.program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", place / "key.pem", "-out", place / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return place


@pytest.fixture
def wants_certificates(key: Path, version: ssl.TLSVersion) -> Iterator[str]:
    """The host[:port] of somebody who speaks TLS with those only who have a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key / "cert.pem", key / "key.pem")
    context.load_verify_locations(key / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version

    def serve(end: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(end, server_side=True) as secure:
            secure.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listening, answering(listening, serve):
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["1.3", "1.2"])
def test_a_registry_that_wants_to_see_a_certificate_is_told_of_as_such(
    engine: Engine, wants_certificates: str, version: ssl.TLSVersion
) -> None:
    with pytest.raises(RegistryError) as caught:
        engine.registry.pull(f"{wants_certificates}/x").result()
    assert f"certs.d/{wants_certificates}/client.cert" in caught.value.hint
    assert "client certificate" in str(caught.value.lines())
    assert "insecure" not in caught.value.hint


@pytest.mark.parametrize(("reason", "is_plain"), [("WRONG_VERSION_NUMBER", True), ("UNSUPPORTED_PROTOCOL", False)])
def test_who_speaks_no_tls_is_perhaps_plain_http(reason: str, is_plain: bool) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}] …")
    error.reason = reason
    assert ("insecure" in refusals.unreachable(error, "host").hint) is is_plain


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["client.cert"], ["client.cert", "its key is to be in client.key"]),
        (["client.key"], ["client.key", "its certificate is to be in client.cert"]),
        (["ca.crt"], ["ca.crt"]),
    ],
)
def test_a_file_of_certs_d_that_cannot_be_used_is_named(
    tmp_path: Path, key: Path, names: list[str], said: list[str]
) -> None:
    place = tmp_path / "certs.d" / "r.example"
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_text("" if name == "ca.crt" else (key / "cert.pem").read_text())
    with pytest.raises(BadCertificate) as caught:
        Configuration(certificates=(tmp_path / "certs.d",)).tls("r.example")
    for each in said:
        assert each in "\n".join(caught.value.lines())


# --- who one is ---


def test_a_wrong_password_is_what_login_asks_about(engine: Engine, registry: Registry) -> None:
    for registry.auth in ("basic", "bearer-private"):
        with pytest.raises(Unauthorized) as caught:
            engine.registry.login(registry.host, "anna", "falsch")
        assert caught.value.hint == "are the name and the password right?"


@pytest.mark.parametrize("error", [EOFError, StdinNotImplementedError])
@pytest.mark.parametrize("username", ["", "anna"])
def test_where_nobody_can_be_asked_login_says_how_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: type[Exception], username: str
) -> None:
    def nobody(prompt: str = "", *rest: object) -> str:
        raise error

    monkeypatch.setattr("builtins.input", nobody)
    monkeypatch.setattr("getpass.getpass", nobody)
    with pytest.raises(UsageError) as caught:
        login(engine, LoginWords(registry="r.example", username=username))
    assert f"-u {username or 'NAME'} --password-stdin" in caught.value.hint
    # So it is for who asks for it in Python.
    with pytest.raises(UsageError, match="nobody can be asked"):
        api.login("anna", registry="r.example")


def test_a_password_that_never_comes_is_one_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(UsageError):
        login(engine, LoginWords(registry="r.example", username="anna", password_stdin=True))


# --- what is here ---


@pytest.mark.parametrize("damage", [lambda data: b"x" + data[1:], lambda data: data[:-1], None])
def test_a_layer_that_is_damaged_here_is_told_of_as_such(
    engine: Engine, registry: Registry, sample: Any, damage: Any
) -> None:
    registry.add("team/app", "1", *sample)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    registry.holders.clear()
    path = engine.store.blobs.path(sample[0].layers[1].descriptor.digest)
    data = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(data))
    with pytest.raises(StoreError) as caught:
        engine.registry.push(f"{registry.host}/team/app:1").result()
    if damage:
        assert isinstance(caught.value, DigestMismatch)
        assert "system check --full --repair" in caught.value.hint
    assert registry.asked("PUT .*uploads") <= 2


def test_what_a_registry_refuses_although_it_is_right_is_the_registrys_fault(
    engine: Engine, registry: Registry, sample: Any
) -> None:
    registry.add("team/app", "1", *sample)
    engine.registry.pull(f"{registry.host}/team/app:1").result()
    registry.holders.clear()
    registry.fault("PUT .*uploads", status(400), 99)
    with pytest.raises(RegistryError, match="answers 400"):
        engine.registry.push(f"{registry.host}/team/app:1").result()


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("localhost:5055/hello", "%image tag hello:latest localhost:5055/hello:latest"),
        ("localhost:5055/team/hello:2", "%image tag hello:2 localhost:5055/team/hello:2"),
        ("docker.io/anna/hello", "%image tag hello:latest anna/hello:latest"),
        ("localhost:5055/hello:3", "%image tag hello:latest localhost:5055/hello:3"),
    ],
)
def test_what_has_no_name_of_that_registry_is_given_one_first(engine: Engine, asked: str, hint: str) -> None:
    image, blobs = image_of(b"hello")
    for data in blobs.values():
        engine.store.blobs.put([data], "")
    for name in ("localhost:5000/hello", "hello:2", "hello"):
        engine.store.images.put(image, Reference.parse(name))
    with pytest.raises(ImageNotFound) as caught:
        engine.registry.push(asked)
    assert caught.value.hint == hint


def test_where_nobody_listens_on_this_machine_a_registry_can_be_begun(engine: Engine) -> None:
    with pytest.raises(Unreachable) as caught:
        engine.registry.pull(f"localhost:{free_port()}/x").result()
    assert "%nbcontain registry start" in caught.value.hint


# --- insecure ---


@pytest.mark.parametrize(
    ("addresses", "insecure"),
    [(["10.9.1.1"], True), (["10.8.0.1", "10.9.0.1"], True), (["10.8.0.1"], False), ([], False)],
)
def test_a_host_is_insecure_where_its_address_is_in_the_range(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], insecure: bool
) -> None:
    def resolved(host: str, *_: object, **__: object) -> list[Any]:
        assert host == "registry.inside"
        if not addresses:
            raise socket.gaierror("no such host")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    configured = Configuration(frozenset({"10.9.0.0/16", "none/of/these"}))
    assert configured.endpoints("registry.inside:5000")[0].insecure is insecure
    # Where nobody speaks of ranges nobody is asked.
    addresses.clear()
    assert not Configuration(frozenset({"other:5000"})).endpoints("elsewhere")[0].insecure
