"""COPY, ADD and WORKDIR where nothing can be run give the layers that they give elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import Machine
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, NbcontainError
from nbcontain.store.contents import read_contents

BASE = """\
FROM box
RUN mkdir -p /real/inner /closed && chmod 700 /closed && chown 7:8 /closed && ln -s /real /link \\
 && ln -s ../real/inner /etc/in && ln -s /nowhere/yet /dangling && ln -s round /round \\
 && echo old > /real/file && ln /real/file /real/twin && chmod 4755 /real/file
"""
STEPS = """\
COPY one /one
COPY one two /many/
COPY one /link/
COPY one /link/inner/renamed
COPY dir /etc/in
COPY dir/ /real
COPY --chown=app:staff --chmod=640 one /closed/mine
COPY --chown=7 dir /deep/down/here/
COPY --chmod=u=rwX,go=rX dir /modes
COPY dir/sub* /stars/
COPY --parents dir/sub/leaf /parents/
COPY --exclude=*.md . /most/
COPY twins /twins/
COPY twins over /over/
COPY one /dangling
COPY one /real/twin
COPY dir /real/file/../other
ADD --chmod=600 one /added/
COPY <<text /text
WORKDIR /deep/there
WORKDIR /link/deep
COPY --from=base /real/file /from/
COPY --from=base /link /from-link/
COPY --from=base --chown=1:2 /real /from-real
COPY --from=base /etc/passwd /etc/group /etc/in /from-many/
COPY --from=base /real /real/file /from-twice/
COPY --link one /linked/
"""
BAD = """\
COPY dir /real/file
COPY one /real/file/x
COPY --from=base /none /
COPY --chown=nobody-here one /x
WORKDIR /real/file
"""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, busybox_context: Path) -> Iterator[tuple[Engine, Engine, Path]]:
    """One that can run containers, one on the same store that cannot, and a context."""
    context = tmp_path_factory.mktemp("context")
    for name in ("one", "two", "dir/sub/leaf", "dir/read.md", "twins/a", "over/a"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(f"this is {name}\n" * 20)
    os.link(context / "twins/a", context / "twins/b")
    os.symlink("sub/leaf", context / "dir/short")
    os.chmod(context / "two", 0o751)
    os.chmod(context / "dir/sub", 0o2750)
    with Engine(Path(needs.scratch()) / f"nbcontain-test-straight-{os.getpid()}") as engine:
        machine = Machine(engine, busybox_context)
        machine.build(BASE, "base", context)
        try:
            yield engine, engine.isolated("none"), context
        finally:
            machine.clear()
            engine.store.overlays.remove_tree(engine.layout.root)


def layers(engine: Engine, step: str, context: Path) -> list[dict[str, tuple[object, ...]]]:
    """What a step adds to the base; of directories, and of what is made anew, the times are chance."""
    text = f"FROM base\n{step}\n" + ("said <<here>>\ntext\n" if "<<text" in step else "")
    image = engine.build(text, BuildOptions(context=context, no_cache=True)).result()
    below = len(engine.image("base").layers)
    found = []
    for layer in image.layers[below:]:
        contents = read_contents(engine.store.blobs, layer, lambda count: None)
        entries = {
            os.fsdecode(path): (
                file.kind,
                oct(file.mode),
                file.uid,
                file.gid,
                file.size_bytes,
                file.target,
                file.digest,
            )
            for path, file in contents.entries
        }
        links = [sorted(map(os.fsdecode, pair)) for pair in contents.links]
        found.append({**entries, **{name: ("twin", *pair) for pair in links for name in pair}, "": (len(links),)})
    return found


@pytest.mark.parametrize("step", STEPS.splitlines())
def test_a_step_gives_the_same_layer(engines: tuple[Engine, Engine, Path], step: str) -> None:
    able, unable, context = engines
    expected = layers(able, step, context)
    assert expected and layers(unable, step, context) == expected


@pytest.mark.parametrize("step", BAD.splitlines())
def test_what_is_in_the_way_is_the_same_error(engines: tuple[Engine, Engine, Path], step: str) -> None:
    able, unable, context = engines
    with pytest.raises(NbcontainError) as expected:
        layers(able, step, context)
    with pytest.raises(NbcontainError) as error:
        layers(unable, step, context)
    assert str(error.value) == str(expected.value)


def test_what_takes_a_container_says_so(engines: tuple[Engine, Engine, Path]) -> None:
    _, unable, context = engines
    for step in ("RUN true", "COPY --from=base /etc/* /x/"):
        with pytest.raises(BuildError, match="needs a container"):
            layers(unable, step, context)
    with pytest.raises(BuildError, match="symbolic links"):
        layers(unable, "COPY one /round/x", context)
