"""Contexts with names, and what a build is written as: built here and by Debian's buildah, file by file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs

sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402
from facts import Facts, facts_of  # noqa: E402

from nbcontain.build.outputs import Output  # noqa: E402
from nbcontain.build.plan import BuildOptions  # noqa: E402
from nbcontain.oci.image import Image  # noqa: E402
from nbcontain.oci.reference import Reference  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="owners of files are compared: root only")]

TEXT = """\
FROM base AS one
RUN echo stage > /which
FROM base
COPY --from=data . /all
COPY --from=data sub/*.txt /some/
COPY --from=data --chown=12:34 --chmod=640 sub/a.txt /own
COPY --from=one /etc/which /
"""
OTHER = "FROM base\nRUN mkdir -p /etc && echo image > /etc/which\n"


@pytest.fixture(scope="module")
def places(busybox: Path) -> Iterator[tuple[Path, peers.Ours, peers.Buildah]]:
    needs.program("buildah")
    with tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name:
        root = Path(name)
        (root / "ours").mkdir()
        ours, buildah = peers.Ours(root / "ours", busybox), peers.Buildah(root / "buildah", busybox)
        yield root, ours, buildah
        ours.close()
        buildah.close()


def contexts(root: Path) -> tuple[Path, Path]:
    """One to build in, and one that has a name."""
    context, data = root / "context", root / "data"
    if not context.exists():
        context.mkdir()
        (data / "sub" / "deep").mkdir(parents=True)
        for name in ("sub/a.txt", "sub/b.txt", "sub/deep/c", "top"):
            (data / name).write_text(f"{name}\n")
        (data / "top").chmod(0o750)
        (data / "link").symlink_to("sub/a.txt")
        (data / "out").symlink_to("/etc/hostname")
        for path in (context, data, *data.rglob("*")):
            os.utime(path, (981_173_106, 981_173_106), follow_symlinks=False)
    return context, data


def tree(found: Facts) -> Facts:
    return {key: value for key, value in found.items() if key.startswith("tree:") and key != "tree:/run"}


def facts_here(ours: peers.Ours, image: Image) -> Facts:
    blobs = ours.engine.store.blobs
    layers = [blobs.path(layer.descriptor.digest) for layer in image.layers]
    opened = [lambda path=path: path.open("rb") for path in layers]
    return tree(facts_of(json.loads(image.raw_config), opened, ours.base))


def test_named_contexts_give_the_files_that_buildah_gets(
    places: tuple[Path, peers.Ours, peers.Buildah], tmp_path: Path
) -> None:
    root, ours, buildah = places
    context, data = contexts(root)
    for name, text in (("Dockerfile", TEXT), ("Other", OTHER)):
        (tmp_path / name).write_text(text)
    buildah.build(context, tmp_path / "Other", "localhost/other")
    buildah.build(context, tmp_path / "Dockerfile", "localhost/named", "--build-context", f"data={data}",
                  "--build-context", "one=docker-image://localhost/other")  # fmt: skip
    config, layers = buildah.saved("localhost/named")
    theirs = tree(facts_of(config, [lambda path=path: path.open("rb") for path in layers], buildah.base))
    ours.engine.build(OTHER, BuildOptions(tags=("other",), network="none")).result()
    named = {"data": data, "one": Reference.parse("other")}
    image = ours.engine.build(TEXT, BuildOptions(context=context, network="none"), contexts=named).result()
    mine = facts_here(ours, image)
    assert "tree:/own" in mine and "tree:/which" in mine
    # As docker does, a directory that becomes a whole context gets its time stamp, too; buildah gives it a new one.
    assert mine.pop("tree:/all").startswith(theirs.pop("tree:/all"))
    assert mine == theirs


def test_a_layout_that_is_written_here_is_an_image_to_buildah(
    places: tuple[Path, peers.Ours, peers.Buildah], tmp_path: Path
) -> None:
    _, ours, buildah = places
    output = Output.parse(f"type=oci,dest={tmp_path / 'layout'},tar=false")
    image = ours.engine.build(OTHER, BuildOptions(tags=("laid:1",), network="none", outputs=(output,))).result()
    buildah("pull", "-q", "--signature-policy", str(buildah.directory / "policy.json"), f"oci:{tmp_path / 'layout'}:1")
    assert str(image.id) in buildah("images", "--all", "--no-trunc", "--quiet")
