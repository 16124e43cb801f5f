"""Dockerfiles in the shapes that people write, and those of this machine: read as BuildKit reads them."""

from __future__ import annotations

import io
import re
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from buildkit_parser import difference
from nbcontain.dockerfile import parse
from nbcontain.errors import DockerfileError

SHAPES = dict(
    re.findall(
        r"^== (\S+)\n(.*?)(?=^== |\Z)",
        (Path(__file__).parent.parent / "corpus" / "shapes.txt").read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
SOURCES = (
    "g/golang-github-containers-buildah/golang-github-containers-buildah_1.28.2+ds1.orig.tar.xz",
    "libp/libpod/libpod_4.3.1+ds1.orig.tar.xz",
    "d/docker.io/docker.io_20.10.24+dfsg1.orig.tar.xz",
    "d/docker.io/docker.io_20.10.24+dfsg1.orig-cli.tar.xz",
)
"""Source packages of Debian 12 with hundreds of Dockerfiles by many hands: those of container engines."""
PLACES = ("/usr/share/doc", "/usr/lib", "/usr/local/lib", "/opt")
NAME = re.compile(r"(Docker|Container)file(\..*)?|.*\.[Dd]ockerfile")


def variants(text: str) -> Iterator[str]:
    """The same, as editors and people change it."""
    yield text
    yield text.replace("\n", "\r\n")
    yield "\ufeff" + text
    yield text.rstrip("\n")
    yield re.sub(r"\\\n", "\\ \t\n", text)
    yield re.sub(r"\\\n", "\\\n# said in between\n\n", text)
    yield re.sub(r"^([A-Za-z]+) ", lambda match: match[1].swapcase() + "\t ", text, flags=re.MULTILINE)
    yield re.sub(r"^(?=[A-Z])", "  ", text, flags=re.MULTILINE)
    yield re.sub(r"^(?=FROM)", "\n#\n# a stage\n", text, flags=re.MULTILINE)
    if not text.startswith("# escape"):
        yield "# escape=`\n" + text.replace("\\\n", "`\n")
    for number in range(1, text.count("\n"), 2):
        yield "".join(text.splitlines(keepends=True)[:number])


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_and_its_variants_are_read_as_buildkit_reads_them(name: str) -> None:
    parse(SHAPES[name])
    for text in variants(SHAPES[name]):
        assert difference(text) == "", text


def test_there_are_several_hundred_of_them() -> None:
    assert sum(1 for text in SHAPES.values() for _ in variants(text)) > 250


@pytest.mark.slow
@pytest.mark.network
def test_several_hundred_dockerfiles_of_others_are_read_as_buildkit_reads_them() -> None:
    mirror = needs.debian_mirror()
    texts: set[str] = set()
    for source in SOURCES:
        try:
            with urllib.request.urlopen(f"{mirror}pool/main/{source}", timeout=60) as answer:
                archive = io.BytesIO(answer.read())
        except OSError as error:
            pytest.skip(f"Debian's archive does not give {source}: {error}")
        with tarfile.open(fileobj=archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isfile() and NAME.fullmatch(name) and not name.endswith((".md", ".go", ".in")):
                    stream = tar.extractfile(member)
                    texts.add(stream.read().decode("utf-8", "replace") if stream else "")
    texts = {text for text in texts if re.search(r"^\s*FROM\s", text, re.IGNORECASE | re.MULTILINE)}
    assert len(texts) > 250
    assert [text for text in texts if difference(text)] == []


def test_dockerfiles_on_this_machine_are_read_as_buildkit_reads_them() -> None:
    for place in PLACES:
        for path in Path(place).glob("**/*ile*"):
            if not NAME.fullmatch(path.name) or not path.is_file() or path.stat().st_size > 100_000:
                continue
            try:
                text = path.read_text()
            except (UnicodeDecodeError, OSError):
                continue
            assert difference(text) == "", path
            try:
                parse(text)
            except DockerfileError as error:
                assert error.message, path
