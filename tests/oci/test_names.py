from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.errors import BadDigest, BadReference
from nbcontain.oci.digest import DiffID, Digest, chain_id, chain_id_of
from nbcontain.oci.reference import Reference

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("hello", "docker.io/library/hello:latest", "hello:latest"),
        ("hello:1.2", "docker.io/library/hello:1.2", "hello:1.2"),
        ("team/hello", "docker.io/team/hello:latest", "team/hello:latest"),
        ("index.docker.io/hello", "docker.io/library/hello:latest", "hello:latest"),
        ("localhost/hello", "localhost/hello:latest", "localhost/hello:latest"),
        ("registry.example:5000/a/b:x", "registry.example:5000/a/b:x", "registry.example:5000/a/b:x"),
        (f"hello@{D}", f"docker.io/library/hello@{D}", f"hello@{D}"),
        (f"hello:1@{D}", f"docker.io/library/hello:1@{D}", f"hello:1@{D}"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, whole: str, familiar: str) -> None:
    found = Reference.parse(text)
    assert (str(found), found.familiar) == (whole, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:b:c",
        "-a",
        "a@x",
        "a b",
        "../a",
        "a:" + "x" * 129,
        "a\n",
        "a@sha256:00",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadReference):
        Reference.parse(text)


@given(st.text(max_size=40))
def test_a_name_read_once_reads_the_same_again(text: str) -> None:
    try:
        found = Reference.parse(text)
    except BadReference:
        return
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:../../etc/passwd", "sha1:" + "a" * 40, D + "\n"]
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(BadDigest):
        Digest.parse(text)


def test_the_lowest_layers_chain_id_is_its_diff_id() -> None:
    diff_id = DiffID(Digest.of(b"x"))
    assert str(chain_id(None, diff_id)) == str(diff_id)


def test_a_chain_id_is_the_digest_of_parent_space_diff_id() -> None:
    one, two = DiffID(Digest.of(b"1")), DiffID(Digest.of(b"2"))
    assert chain_id_of([one, two]) == Digest.of(f"{one} {two}".encode())
