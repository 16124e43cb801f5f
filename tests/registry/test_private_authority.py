"""A company's own registry, by TLS with an authority of its own: from the shell, as one would use it there.

Its name is not this machine's, which would not be asked for a certificate: /etc/hosts says so in a mount namespace.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from images import BUSYBOX
from nbcontain.values import dataclass
from places import store_directory
from servers import docker_registry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="names of this machine's are root's to give")
NAME, PASSWORD = "anna", "geheim"
TRUSTING = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "certs.d")
_OTHERS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "XDG_CONFIG_HOME")


@dataclass(frozen=True, slots=True)
class Company:
    """Where its certificates are, and where its registry answers."""

    directory: Path
    port: int

    @property
    def host(self) -> str:
        return f"registry.test:{self.port}"

    def trusting(self, way: str, home: Path) -> dict[str, str]:
        """The environment of somebody who trusts it in that `way`, "" for nobody's."""
        environ = {name: value for name, value in os.environ.items() if name not in _OTHERS}
        environ |= {"HOME": str(home), "NBCONTAIN_PULL": "missing"}
        if way == "certs.d":
            place = home / ".config" / "nbcontain" / "certs.d" / self.host
            place.mkdir(parents=True)
            (place / "ca.crt").symlink_to(self.directory / "trusted" / "ca.pem")
        elif way:
            environ[way] = str(self.directory / "trusted" / ("" if way == "SSL_CERT_DIR" else "ca.pem"))
        return environ


class Shell:
    """`nbcontain` with a store and a home of its own."""

    def __init__(self, company: Company, root: Path, home: Path, way: str) -> None:
        home.mkdir(exist_ok=True)
        self._environ = company.trusting(way, home) | {"NBCONTAIN_ROOT": str(root)}
        self._hosts = company.directory / "hosts"

    def tried(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        command = ("unshare", "--mount", "sh", "-c", script, "sh", self._hosts, sys.executable, "-m", "nbcontain")
        return subprocess.run(
            [*command, *words], input=stdin, env=self._environ, capture_output=True, text=True, timeout=120, check=False
        )

    def __call__(self, *words: str, stdin: str = "") -> str:
        done = self.tried(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory, busybox_context: Path) -> Iterator[Company]:
    """A registry that wants a password, with an image in it; trusted/ca.pem is its authority."""
    directory = tmp_path_factory.mktemp("company")
    (directory / "trusted").mkdir()
    _certify(directory, "registry.test")
    with serving(directory) as company, store_directory() as root:
        anna = Shell(company, root, directory / "home", "certs.d")
        login(anna, company)
        context = directory / "context"
        context.mkdir()
        (context / "busybox").write_bytes((busybox_context / "busybox").read_bytes())
        (context / "busybox").chmod(0o755)
        (context / "Dockerfile").write_text(BUSYBOX)
        anna("build", "-q", "-t", f"{company.host}/base:1", str(context))
        anna("push", f"{company.host}/base:1")
        yield company


def _certify(directory: Path, name: str) -> None:
    """An authority, and a certificate for that name by it."""
    new = (needs.program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    ca = ("-subj", "/CN=company", "-keyout", "ca.key", "-out", "trusted/ca.pem")
    its = (
        "-subj", "/CN=server", "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=CA:FALSE",
        "-CA", "trusted/ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem",
    )  # fmt: skip
    for words in (ca, its):
        subprocess.run([*new, *words], cwd=directory, check=True, capture_output=True)


@contextmanager
def serving(directory: Path) -> Iterator[Company]:
    program, htpasswd = needs.program("docker-registry"), needs.program("htpasswd", "apache2-utils")
    subprocess.run([htpasswd, "-Bbc", directory / "users", NAME, PASSWORD], check=True, capture_output=True)
    (directory / "hosts").write_text("127.0.0.1 localhost registry.test\n")
    http = f"  tls: {{certificate: {directory}/server.pem, key: {directory}/server.key}}\n"
    more = f"auth: {{htpasswd: {{realm: tests, path: {directory}/users}}}}\n"
    with docker_registry(directory, program, http=http, more=more) as port:
        yield Company(directory, port)


def login(shell: Shell, company: Company) -> None:
    shell("login", "-u", NAME, "--password-stdin", company.host, stdin=PASSWORD)


@pytest.mark.parametrize("way", TRUSTING)
def test_a_build_from_it_is_pushed_to_it_and_pulled_from_it(
    way: str, company: Company, root: Path, tmp_path: Path
) -> None:
    shell = Shell(company, root, tmp_path / "home", way)
    login(shell, company)
    name = f"{company.host}/{way.lower().replace('_', '-')}:1"
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {company.host}/base:1\nRUN echo {way} > /made\n")
    shell("build", "-q", "-t", name, str(tmp_path / "context"))
    shell("push", name)
    shell("rmi", name)
    shell("pull", "-q", name)
    assert shell("run", "--rm", name, "cat", "/made") == f"{way}\n"
    assert shell("manifest", "inspect", name).startswith("{")


@pytest.mark.parametrize("what", ["pull", "build", "run", "push", "login"])
def test_who_does_not_trust_its_authority_is_told_what_to_do(
    what: str, company: Company, root: Path, tmp_path: Path
) -> None:
    shell = Shell(company, root, tmp_path / "home", "")
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {company.host}/base:1\n")
    (tmp_path / "layer.tar").write_bytes(bytes(1024))
    shell("import", str(tmp_path / "layer.tar"), f"{company.host}/ours:1")
    words = {
        "build": ("--progress", "plain", str(tmp_path / "context")),
        "run": (f"{company.host}/base:1", "true"),
        "push": (f"{company.host}/ours:1",),
        "login": ("-u", NAME, "--password-stdin", company.host),
    }.get(what, (f"{company.host}/base:1",))
    done = shell.tried(what, *words, stdin=PASSWORD)
    assert done.returncode
    # What is done is told step by step before; then there is one error, with what to do.
    said = f"{'DockerfileError' if what == 'build' else 'BadCertificate'}: the certificate of {company.host}"
    _, found, told = done.stderr.partition(f"{said} is not trusted\n")
    assert found, done.stderr
    assert "Error: " not in told
    why, hint = told.splitlines()[-2:]
    assert why == "  why: unable to get local issuer certificate"
    assert f"put its CA into ~/.config/nbcontain/certs.d/{company.host}/ca.crt, or have SSL_CERT_FILE name it" in hint


@pytest.mark.parametrize(
    ("name", "days", "why", "hint"),
    [
        ("elsewhere.test", 2, "is not valid for 'registry.test'", "by a name that is in its certificate"),
        ("registry.test", -1, "certificate has expired", "whoever keeps the registry renews it"),
    ],
)
def test_a_certificate_of_another_name_or_time_is_told_of_as_such(
    name: str, days: int, why: str, hint: str, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "trusted").mkdir()
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server")
    new += ("-addext", f"subjectAltName=DNS:{name}")
    itself = ("-in", "server.pem", "-days", str(days), "-signkey", "server.key", "-out", "trusted/ca.pem")
    for words in ((*new, "-keyout", "server.key", "-out", "server.pem"), ("x509", *itself)):
        subprocess.run([needs.program("openssl"), *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "server.pem").write_bytes((tmp_path / "trusted" / "ca.pem").read_bytes())
    with serving(tmp_path) as company:
        done = Shell(company, root, tmp_path / "home", "SSL_CERT_FILE").tried("pull", f"{company.host}/base:1")
    assert done.returncode
    assert why in done.stderr
    assert hint in done.stderr
    assert "certs.d" not in done.stderr
