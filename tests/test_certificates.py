"""This machine's certificate authorities, for containers and build steps that are to trust them."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

import needs
from nbcontain import authorities
from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import ProvenanceOptions
from nbcontain.engine import Engine
from nbcontain.errors import BadCertificate, NbcontainError, UsageError
from nbcontain.outcomes import RunResult
from nbcontain.registry.configuration import Configuration
from nbcontain.runtime.certificates import trusted
from nbcontain.runtime.generate import RunOptions
from nbcontain.settings import Settings

ASKED = {"NBCONTAIN_HOST_CERTIFICATES": "true", "SSL_CERT_DIR": ""}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\nAbc=\n-----END CERTIFICATE-----\n"
ANOTHER = CERTIFICATE.replace("MIIB", "MIIC")
KEY = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"
FETCH = "import urllib.request as u; print(u.urlopen('{}').status)"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority that nobody knows (ca.pem), and a certificate of its for 127.0.0.1 (server.pem)."""
    place = tmp_path_factory.mktemp("authority")
    new = [needs.program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
    ours = ("-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem")
    # Python takes none without that since 3.13.
    theirs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.pem")
    for more in (("-subj", "/CN=tests", *theirs), ("-subj", "/CN=server", *words, *ours)):
        subprocess.run([*new, *more], cwd=place, check=True, capture_output=True)
    return place


@contextmanager
def serving(authority: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_step_and_a_container_trust_whom_this_machine_trusts_and_no_image_has_it(
    root: Path, engine: Engine, authority: Path
) -> None:
    engine.from_host("host").result()
    with serving(authority) as url, Engine(
        root, {**engine.environ, **ASKED, "SSL_CERT_FILE": str(authority / "ca.pem")}
    ) as behind:  # fmt: skip
        fetch = FETCH.format(url)
        text = f'FROM host\nRUN ["python3", "-c", "{fetch}"]\nRUN cp $SSL_CERT_FILE /seen\n'
        with pytest.raises(NbcontainError):
            engine.build(text, BuildOptions(tags=("without",), network="host")).result()
        options = BuildOptions(tags=("app",), network="host", provenance=ProvenanceOptions(mode="max"))
        image = behind.build(text, options).result()
        assert b"".join(behind.anatomy.read("app", "/seen")) == (authority / "ca.pem").read_bytes()
        run = RunOptions(image="app", command=("python3", "-c", fetch), network="host", name="run")
        result = behind.run(run).result()
        assert isinstance(result, RunResult)
        assert result.stdout == "204\n"
        [container] = behind.containers()
        committed = behind.archives.commit(container, "committed").result()
    for each in (image, committed):
        assert b"dev/nbcontain" not in each.raw_config + each.raw_manifest
    stored = [each.read_bytes() for each in engine.layout.blobs.rglob("*") if each.is_file()]
    assert not any(b"dev/nbcontain" in each for each in stored)
    for name in ("app", "committed"):
        assert "nbcontain" not in [each for each, _ in engine.anatomy.names(name, "/dev")]


def test_who_is_not_asked_gives_none(engine: Engine, busybox_image: str) -> None:
    assert trusted({"SSL_CERT_FILE": "/nowhere"}).env == ()
    assert trusted({"NBCONTAIN_HOST_CERTIFICATES": "0"}).env == ()
    result = engine.run(RunOptions(image=busybox_image, command=("sh", "-c", "env; ls /dev"), remove=True)).result()
    assert isinstance(result, RunResult)
    assert "CERT" not in result.stdout
    assert "nbcontain" not in result.stdout


def test_what_the_user_says_comes_first(root: Path, engine: Engine, busybox_image: str, authority: Path) -> None:
    with Engine(root, {**engine.environ, **ASKED, "SSL_CERT_FILE": str(authority / "ca.pem")}) as behind:
        script = "echo $SSL_CERT_FILE $PIP_CERT; echo x 2>/dev/null > $PIP_CERT || echo it cannot be changed"
        options = RunOptions(
            image=busybox_image, command=("sh", "-c", script), environment=("SSL_CERT_FILE=mine",), remove=True,
        )  # fmt: skip
        result = behind.run(options).result()
        assert isinstance(result, RunResult)
        assert result.stdout == "mine /dev/nbcontain/certificates.pem\nit cannot be changed\n"


def test_a_key_in_the_same_file_is_not_passed_on(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_text(f"my own\n{KEY}{CERTIFICATE}{KEY}# another\n{ANOTHER}")
    found = trusted({**ASKED, "SSL_CERT_FILE": str(tmp_path / "both.pem")})
    assert found.data.decode() == CERTIFICATE + ANOTHER


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_those_of_a_directory_are_passed_on_each_once(variable: str, tmp_path: Path) -> None:
    for name, text in (("b.crt", KEY + ANOTHER), ("a.pem", CERTIFICATE), ("again.pem", CERTIFICATE), ("x.key", KEY)):
        (tmp_path / name).write_text(text)
    (tmp_path / "file").write_text(CERTIFICATE)
    found = trusted({**ASKED, "SSL_CERT_FILE": "", "CURL_CA_BUNDLE": str(tmp_path / "file"), variable: str(tmp_path)})
    assert found.data.decode() == CERTIFICATE + ANOTHER


def test_a_directory_that_is_not_there_is_nothing_to_trust(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    environ = {**ASKED, "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "SSL_CERT_DIR": f"/nowhere:{tmp_path}/ca.pem:"}
    assert trusted(environ).data.decode() == CERTIFICATE


@pytest.mark.parametrize(
    ("word", "content", "said"),
    [("perhaps", CERTIFICATE, "neither"), ("1", KEY, "no certificate"), ("1", "", "cannot be read")],
)
def test_what_cannot_be_passed_on_is_an_error(tmp_path: Path, word: str, content: str, said: str) -> None:
    file = tmp_path / "some.pem"
    if content:
        file.write_text(content)
    with pytest.raises(UsageError, match=said):
        trusted({"NBCONTAIN_HOST_CERTIFICATES": word, "SSL_CERT_FILE": str(file)})


def test_a_project_can_ask_for_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.nbcontain]\nhost_certificates = true\n")
    assert Settings({}, tmp_path)["NBCONTAIN_HOST_CERTIFICATES"] == "true"


@pytest.mark.parametrize(
    "variable", ["", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_DIR hashed"]
)
def test_what_the_engine_fetches_is_from_whom_this_machine_trusts(
    variable: str, engine: Engine, authority: Path, monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path
) -> None:
    """Registries, URLs of ADD, and git, which names an answer that is no repository's."""
    for each in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"):
        monkeypatch.delenv(each, raising=False)
    if variable.startswith("SSL_CERT_DIR"):
        (tmp_path / "trusted").mkdir()
        shutil.copy(authority / "ca.pem", tmp_path / "trusted")
        if variable.endswith("hashed"):
            subprocess.run([needs.program("openssl"), "rehash", tmp_path / "trusted"], check=True)
        monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere:{tmp_path}/trusted")
    elif variable:
        monkeypatch.setenv(variable, str(authority / "ca.pem"))
    with serving(authority) as url, Engine(root, {**engine.environ, **os.environ}) as behind:
        host, _, port = url.removeprefix("https://").rstrip("/").partition(":")
        context = Configuration.load(behind.environ).tls("registry.example")
        with socket.create_connection((host, int(port))) as end:
            if variable:
                context.wrap_socket(end, server_hostname=host).close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    context.wrap_socket(end, server_hostname=host)
        said = ""
        for what in ("file", "x.git"):
            with pytest.raises(NbcontainError) as told:
                behind.build(f"FROM scratch\nADD {url}{what} /\n", BuildOptions(tags=("x",))).result()
            said += f"{told.value.message} {told.value.why}\n"
    # It is no server of files, nor of repositories; whoever is not trusted is not heard.
    assert sum("certificate" in line for line in said.splitlines()) == (0 if variable else 2), said
    assert ("answers 204" in said) == bool(variable)


def test_certificates_that_cannot_be_used_are_told_of_and_those_that_are_gone_vouch_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "some.pem").write_text("none")
    with pytest.raises(BadCertificate, match="some.pem") as told:
        Configuration.load({"REQUESTS_CA_BUNDLE": str(tmp_path / "some.pem")}).tls("registry.example")
    assert "REQUESTS_CA_BUNDLE" in told.value.why
    assert Configuration.load({"SSL_CERT_FILE": str(tmp_path / "gone.pem")}).tls("registry.example").verify_mode


def test_where_python_brought_its_own_list_the_machines_is_trusted_too(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As conda's Python does, whose list has no authority of a company's."""
    own = ssl.get_default_verify_paths()._replace(cafile=str(tmp_path / "cacert.pem"))
    (tmp_path / "cacert.pem").write_bytes((authority / "server.pem").read_bytes())
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: own)
    monkeypatch.setattr(authorities, "PLACES", (str(authority / "ca.pem"),))
    subjects = lambda: [each["subject"] for each in authorities.context({}).get_ca_certs()]  # noqa: E731
    assert ((("commonName", "tests"),),) not in subjects()
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert ((("commonName", "tests"),),) in subjects()
