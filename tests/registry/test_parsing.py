"""What comes from foreign hands, read: challenges, links, dates, platforms, addresses, credentials."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.errors import BadAnswer, BadReference, RegistryError, UsageError
from nbcontain.oci import platforms
from nbcontain.oci.image import Descriptor, Platform
from nbcontain.oci.reference import Reference
from nbcontain.registry import refusals
from nbcontain.registry.addresses import check_address, joined, parsed
from nbcontain.registry.challenges import Challenge, merged_scopes, next_link, parse_challenges, retry_after_s
from nbcontain.registry.configuration import Configuration
from nbcontain.registry.credentials import Credentials, Keychain


def test_several_challenges_are_read() -> None:
    header = 'Basic realm="a \\"b\\"", Bearer realm="https://x/t",service=y,scope="repository:a:pull,push"'
    assert parse_challenges(header) == (
        Challenge("basic", {"realm": 'a "b"'}),
        Challenge("bearer", {"realm": "https://x/t", "service": "y", "scope": "repository:a:pull,push"}),
    )


@given(st.text(max_size=300) | st.text(alphabet='Bearsic =",\\;<>/rel:', max_size=300))
def test_no_header_breaks_the_readers(text: str) -> None:
    parse_challenges(text)
    next_link(text)
    seconds = retry_after_s(text)
    assert seconds is None or 0 <= seconds <= 120


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9./:@_-]{0,60}", fullmatch=True))
def test_a_name_is_refused_or_reads_back_the_same(text: str) -> None:
    with suppress(BadReference):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference
        assert not set(str(reference)) & set(" \n\t%?#\\")


def test_the_next_page_is_the_link_that_says_so() -> None:
    assert next_link('</a>; rel="prev", </v2/x?n=2&last=b>; rel="next"') == "/v2/x?n=2&last=b"
    assert next_link("</a>; rel=nextish") is None
    assert next_link('</a>; title="b, c"; x ; rel = next ;y') == "/a"
    assert next_link('</a>; title="; rel=next;"') is None
    assert next_link('</a>; rel="next') is None


@pytest.mark.parametrize(
    ("read", "header"),
    [
        (next_link, "<x>" + ";        " * 5 + '"'),
        (next_link, '</a>; title="a, b; c"' * 300 + '"'),
        (next_link, "<x>; rel" + " " * 8000 + '"'),
        (parse_challenges, "Bearer a=b" + (" " * 7 + ",") * 1000),
        (parse_challenges, "Bearer a=b," + " " * 8000),
        (parse_challenges, "Bearer " + "a" * 8000 + ' ="' + '\\"' * 90),
        (parse_challenges, "a " * 4000),
        (retry_after_s, "1 " * 30_000),
        (retry_after_s, "Thu, 01 Jan 2026 00:00:05 " + "(" * 60_000),
        (lambda text: refusals.unauthorized("host", None, text, ""), "/v2/" + "a/manifests/" * 6000 + "\n"),
    ],
)  # fmt: skip
def test_no_header_takes_long_to_read(read: Callable[[str], object], header: str) -> None:
    # A regular expression holds Python's lock: while one runs, nobody can even interrupt it.
    began = time.thread_time()
    read(header)
    assert time.thread_time() - began < 0.25


def test_retry_after_is_seconds_or_a_date_and_never_long() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7") == 7
    assert retry_after_s("99999") == 120
    assert retry_after_s("Thu, 01 Jan 2026 00:00:05 GMT", now) == 5


def test_actions_of_one_repository_are_one_scope() -> None:
    assert merged_scopes(("repository:a:pull", "repository:b:pull repository:a:push,pull")) == (
        "repository:a:pull,push",
        "repository:b:pull",
    )


def entry(architecture: str, variant: str = "") -> Descriptor:
    return Descriptor(
        "m", Reference.parse(f"x@sha256:{'0' * 64}").digest, 1, {}, Platform("linux", architecture, variant)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/arm64", ["amd64", "arm64/v8"], 1),
        ("linux/arm/v7", ["arm/v5", "arm/v6"], 1),
        ("arm64", ["arm64", "arm64/v8"], 0),
        ("linux/amd64/v1", ["amd64"], 0),
        ("x86_64", ["arm", "amd64"], 1),
    ],
)
def test_the_nearest_variant_is_chosen(wanted: str, offered: list[str], best: int) -> None:
    entries = [entry(*each.split("/")) for each in offered]
    assert platforms.choose(entries, platforms.parse(wanted), "x") is entries[best]


def test_what_is_no_platform_is_refused() -> None:
    for text in ("", "a/b/c/d", "linux/", "../x"):
        with pytest.raises(UsageError):
            platforms.parse(text)


@pytest.mark.parametrize(
    ("address", "home", "fine"),
    [
        ("169.254.169.254", "8.8.8.8", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("127.0.0.1", "8.8.8.8", False),
        ("10.0.0.5", "8.8.8.8", False),
        ("10.0.0.5", "10.0.0.1", True),
        ("::ffff:169.254.169.254", "8.8.8.8", False),
        ("fe80::1", "8.8.8.8", False),
        ("1.1.1.1", "8.8.8.8", True),
        ("127.0.0.2", "127.0.0.1", True),
        # Where Alibaba, Oracle, Amazon and Microsoft tell a machine who it is.
        ("100.100.100.200", "8.8.8.8", False),
        ("100.100.100.200", "10.0.0.1", False),
        ("100.100.100.200", "100.64.0.1", False),
        ("192.0.0.192", "8.8.8.8", False),
        ("192.0.0.192", "10.0.0.1", False),
        ("fd00:ec2::254", "fd00::1", False),
        ("168.63.129.16", "8.8.8.8", False),
        # What providers share among their customers, and what tests of networks have.
        ("100.64.0.2", "8.8.8.8", False),
        ("100.64.0.2", "10.0.0.1", False),
        ("100.64.0.2", "100.64.0.1", True),
        ("198.18.0.1", "8.8.8.8", False),
        ("fd00::2", "fd00::1", True),
        ("0.0.0.0", "127.0.0.1", False),
        ("::", "::1", False),
        ("10.0.0.5", "127.0.0.1", True),
        # An IPv4 address within one of IPv6: mapped, 6to4, Teredo, NAT64.
        ("::ffff:1.1.1.1", "8.8.8.8", True),
        ("::ffff:10.0.0.5", "::ffff:10.0.0.1", True),
        ("::ffff:127.0.0.1", "8.8.8.8", False),
        ("2002:a9fe:a9fe::1", "8.8.8.8", False),
        ("2002:7f00:1::1", "8.8.8.8", False),
        ("2002:a00:5::1", "8.8.8.8", False),
        ("2001:0:101:101:0:0:5601:5601", "8.8.8.8", False),
        ("64:ff9b::169.254.169.254", "8.8.8.8", False),
        ("64:ff9b::1.1.1.1", "8.8.8.8", True),
        ("::169.254.169.254", "8.8.8.8", False),
    ],
)
def test_a_registry_sends_nobody_to_addresses_inside(address: str, home: str, fine: bool) -> None:
    if fine:
        check_address(address, registry_address=home)
    else:
        with pytest.raises(BadAnswer):
            check_address(address, registry_address=home)


@pytest.mark.parametrize(
    "url",
    ["http://[", "http://127.0.0.1:99999/x", "http://127.0.0.1:abc/x", f"http://{'a' * 70}.com/", "http://.a..b/",
     "http:///x", "https://host/\u00e9", "https://h\u00f6st/", "/a b", "/a\x7f",
     "http://host\u2100/", "http://host:\u0661/"],
)  # fmt: skip
def test_a_url_that_nobody_can_ask_for_is_a_bad_answer(url: str) -> None:
    with pytest.raises(BadAnswer):
        joined("https://host/v2/", url)


@given(st.text(max_size=80) | st.text(alphabet="htps:/[]@?#.%0a\u00e9 \n", max_size=40))
def test_a_url_is_refused_or_can_be_asked_for(url: str) -> None:
    with suppress(BadAnswer):
        parts = parsed(joined("https://host/v2/", url))
        assert parts.scheme not in ("http", "https") or parts.hostname
        assert parts.port is None or 0 <= parts.port < 65536
        http.client.HTTPConnection("host").putrequest("GET", f"{parts.path or '/'}?{parts.query}")


def test_what_is_shown_of_a_url_has_no_secrets() -> None:
    with pytest.raises(BadAnswer) as caught:
        parsed("http://anna:geheim@host:99999/x?signature=secret")
    assert "geheim" not in str(caught.value.lines()) and "secret" not in str(caught.value.lines())


def keychain(home: Path, document: object, path: str = "/usr/bin:/bin") -> Keychain:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps(document))
    return Keychain.of({"HOME": str(home), "PATH": path})


def test_dockers_credentials_are_found(tmp_path: Path) -> None:
    auth = base64.b64encode(b"anna:ge:heim").decode()
    found = keychain(
        tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": auth}, "r.example/team": {"auth": auth}}}
    )
    assert found.find("docker.io") == Credentials("anna", "ge:heim")
    assert found.find("r.example", "team/app") == Credentials("anna", "ge:heim")
    assert found.find("r.example", "other/app") is None
    assert "heim" not in repr(found.find("docker.io"))


def _logged_in(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True)
    auth = base64.b64encode(f"{name}:x".encode()).decode()
    path.write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    return path


def test_podmans_credentials_are_found_in_its_own_order(tmp_path: Path) -> None:
    """containers-auth.json(5); and where podman writes for whom nobody has named a place for what is of one session."""
    run, home, own = tmp_path / "run", tmp_path / "home", tmp_path / "session"
    environ = {"HOME": str(home)}
    uid = os.getuid()

    def user(**more: str) -> str:
        known = Keychain.of(environ | more, run=run).find("r.example")
        return known.username if known else ""

    assert user() == ""
    _logged_in(home / ".config/containers/auth.json", "config")
    assert user() == "config"
    _logged_in(run / f"containers/{uid}/auth.json", "root")
    assert user() == "root"
    _logged_in(run / f"user/{uid}/containers/auth.json", "rootless")
    assert user() == "rootless"
    assert user(XDG_RUNTIME_DIR=str(own)) == "config"
    _logged_in(own / "containers/auth.json", "session")
    assert user(XDG_RUNTIME_DIR=str(own)) == "session"
    named = _logged_in(tmp_path / "named/auth.json", "named")
    assert user(XDG_RUNTIME_DIR=str(own), REGISTRY_AUTH_FILE=str(named)) == "named"


def test_a_directory_of_roots_podman_is_no_trouble_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes /run/containers, which nobody else may pass."""
    run = tmp_path / "run"
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(run))
    _logged_in(run / f"containers/{os.getuid()}/auth.json", "root").write_text("none of ours")
    assert Keychain.of({"HOME": str(tmp_path)}, run=run).troubles() == []


def test_a_helper_is_asked(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$host\\"}"\n')
    helper.chmod(0o755)
    found = keychain(tmp_path, {"credHelpers": {"r.example": "mine"}}, f"{tmp_path}:/usr/bin:/bin")
    assert found.find("r.example") == Credentials("get", "r.example")


@pytest.mark.parametrize("name", ["../../evil", "a b", "/bin/sh", "", "x;y", None, 7])
def test_a_helper_is_never_a_path(tmp_path: Path, name: object) -> None:
    found = keychain(tmp_path, {"credHelpers": {"r.example": name}})
    if not name:
        assert found.find("r.example") is None
    else:
        with pytest.raises(RegistryError, match="no credential helper"):
            found.find("r.example")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is no object"),
        ('{"auths": 7}', "auths is no object"),
        ('{"auths": {"r.example": {"auth": "%%%"}}}', "has no credentials for r.example"),
    ],
)
def test_a_file_of_credentials_that_cannot_be_read_is_named(tmp_path: Path, text: str, why: str) -> None:
    found = keychain(tmp_path, {})
    assert found.troubles() == []
    (tmp_path / ".docker" / "config.json").write_text(text)
    assert found.find("r.example") is None
    [trouble] = found.troubles()
    assert str(tmp_path / ".docker" / "config.json") in trouble
    assert why in trouble


def test_mirrors_and_insecure_registries_are_configured(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[registries]\ninsecure = ["r.example:5000", "10.1.0.0/16"]\n[registries.mirrors]\n"docker.io" = ["m.example"]\n'  # noqa: E501
    )
    found = Configuration.load({"NBCONTAIN_CONFIG": str(path), "HOME": str(tmp_path)})
    assert [each.host for each in found.endpoints("docker.io")] == ["m.example", "registry-1.docker.io"]
    assert [each.host for each in found.endpoints("docker.io", writing=True)] == ["registry-1.docker.io"]
    insecure = {
        host: found.endpoints(host)[-1].insecure for host in ("r.example:5000", "10.1.2.3", "r.example", "[::1]:5")
    }
    assert insecure == {"r.example:5000": True, "10.1.2.3": True, "r.example": False, "[::1]:5": True}


@pytest.mark.parametrize("what", [
    "/v2/team/app/tags/list?n=1000", "/v2/team/app/manifests/1", "/v2/team/app/blobs/uploads/",
    "/v2/team/app/referrers/sha256:0", "repository:team/app:pull,push",
])  # fmt: skip
def test_who_is_not_let_in_is_told_at_which_repository(what: str) -> None:
    error = refusals.unauthorized("host:5000", None, what, "")
    assert error.message == "host:5000 does not let us at team/app"
    assert refusals.unauthorized("host:5000", None, "/v2/", "").message == "host:5000 does not let us in"
    several = "repository:team/app:pull,push repository:other/app:pull"
    assert refusals.unauthorized("host:5000", None, several, "").message == f"host:5000 does not let us at {several}"
