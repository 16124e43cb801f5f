"""The same images, containers and layers whether snapshots are overlays or whole trees.

All suites run with whole trees when NBCONTAIN_STORAGE_DRIVER=copy is set; these do so always.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import Machine, until
from nbcontain.engine import Engine
from nbcontain.oci.image import Image
from nbcontain.runtime.generate import RunOptions
from nbcontain.store import tar

STEPS = """\
FROM box
RUN mkdir -p /a/b /gone/deep && echo one > /a/one && echo two > /a/b/two && ln /a/one /a/same && ln -s one /a/link
RUN rm -r /gone && echo more >> /a/b/two && chmod 700 /a/b && mv /a/b/two /a/b/moved && rm /a/link && mkdir /a/link
RUN true
RUN chmod 600 /etc/group && ln -sf nowhere /etc/passwd && echo x > /tmp-file
COPY etc /a/b
COPY --from=box /etc /copy
WORKDIR /made/here
RUN --mount=type=bind,from=box,source=/etc,target=/mnt,rw echo changed > /mnt/passwd && cat /mnt/passwd > seen
"""
LAYERS = (
    "a/ 5 755|a/link 2 777 one|a/one 0 644|a/same 1 644 a/one|a/b/ 5 755|a/b/two 0 644|gone/ 5 755|gone/deep/ 5 755",
    ".wh.gone 0 0|a/ 5 755|a/b/ 5 700|a/b/moved 0 644|a/b/.wh.two 0 0|a/link/ 5 755|a/link/.wh..wh..opq 0 0",
    "tmp-file 0 644|etc/ 5 755|etc/group 0 600|etc/passwd 2 777 nowhere",
    "a/ 5 755|a/b/ 5 700|a/b/group 0 644|a/b/passwd 0 644",
    "copy/ 5 755|copy/group 0 644|copy/passwd 0 644",
    "made/ 5 755|made/here/ 5 755",
    "made/ 5 755|made/here/ 5 755|made/here/seen 0 644",
)


@pytest.fixture(params=["overlay", "copy"])
def machine(request: pytest.FixtureRequest, busybox_context: Path) -> Iterator[Machine]:
    root = Path(tempfile.mkdtemp(prefix="nbcontain-drivers-", dir=needs.scratch()))
    with Engine(root, {**os.environ, "NBCONTAIN_STORAGE_DRIVER": request.param}) as engine:
        machine = Machine(engine, busybox_context)
        yield machine
        machine.clear()
        # Nothing is written in the background any more.
        engine.store.close()
        for each in engine.store.snapshotters:
            each.remove_tree(each.shelf.root)
    shutil.rmtree(root, ignore_errors=True)


def entries(engine: Engine, image: Image) -> list[str]:
    """Name, kind, mode and link of each entry of each layer."""
    found = []
    for layer in image.layers:
        lines = []
        with engine.store.blobs.open(layer.descriptor.digest) as blob:
            reader = tar.Reader(io.BytesIO(gzip.decompress(blob.read())))
            while (entry := reader.next()) is not None:
                words = (entry.name.decode(), entry.kind.decode(), f"{entry.mode:o}", entry.link.decode())
                lines.append(" ".join(filter(None, words)))
                reader.skip()
        found.append("|".join(lines))
    return found


def test_the_same_layers_are_made_and_shown(
    profile: str, machine: Machine, busybox_context: Path, tmp_path: Path
) -> None:
    engine = machine.engine
    machine.build(STEPS, "made", busybox_context)
    image = engine.image("made")
    found = entries(engine, image)[len(engine.image("box").layers) :]
    # An inode's number may be another's by now; what is then hidden one by one is in no directory that hides all.
    assert [each.replace("|a/link/.wh..wh..opq 0 0", "") for each in found] == [
        each.replace("|a/link/.wh..wh..opq 0 0", "") for each in LAYERS
    ]
    shown = "cat /a/b/moved /a/one /made/here/seen; find /a /gone /copy /tmp-file 2>/dev/null | sort | tr '\\n' ' '"
    expected = machine.sh(shown, image="made")
    assert expected.startswith("two\nmore\none\nchanged\n")
    # Unpacked from its layers, each file system is what it was as it was built.
    engine.archives.save(["made"], str(tmp_path / "made.tar")).result()
    other = tmp_path / "other"
    with Engine(other, engine.environ) as fresh:
        fresh.archives.load(str(tmp_path / "made.tar")).result()
        second = Machine.on(fresh)
        assert second.sh(shown, image="made") == expected
        # What is run with --rm is forgotten by who comes first.
        until(lambda: not fresh.soundness.look(full=True).findings)
        # Nothing is written in the background any more.
        fresh.store.close()
        for each in fresh.store.snapshotters:
            each.remove_tree(each.shelf.root)
    until(lambda: not engine.soundness.look(full=True).findings)


def test_a_file_that_a_step_replaced_is_in_its_layer_though_it_is_the_same(
    machine: Machine, busybox_context: Path, tmp_path: Path
) -> None:
    """As with docker. Whole trees tell by their index, which is of this boot though its writer saw no /proc."""
    (tmp_path / "same").write_text("same\n")
    machine.build("FROM box\nCOPY same /x\nCOPY same /x\n", "twice", tmp_path)
    assert [each.split()[0] for each in entries(machine.engine, machine.engine.image("twice"))[-2:]] == ["x", "x"]


def test_what_a_container_changed_is_seen_committed_and_kept(machine: Machine) -> None:
    engine = machine.engine
    script = "echo n >> /new; rm -f /etc/group; echo x >> /etc/passwd; mkdir -p /d/e; chmod 711 /etc; cat /new"
    engine.run(RunOptions(image="box", name="c", command=("sh", "-c", script))).result()
    container = engine.container("c")
    changed = [("A", "/d"), ("A", "/d/e"), ("C", "/etc"), ("D", "/etc/group"), ("C", "/etc/passwd"), ("A", "/new")]
    assert engine.diff(container) == changed
    committed = engine.archives.commit(container, "committed").result()
    assert (
        entries(engine, committed)[-1] == "new 0 644|d/ 5 755|d/e/ 5 755|etc/ 5 711|etc/.wh.group 0 0|etc/passwd 0 644"
    )
    assert (
        machine.sh("cat /new; tail -n 1 /etc/passwd; ls /etc/group || echo gone", image="committed") == "n\nx\ngone\n"
    )
    # It goes on where it was.
    engine.start(container)
    until(lambda: container.status not in ("created", "running"))
    engine.prune()
    assert engine.diff(container) == changed
    until(lambda: not engine.soundness.look(full=True).findings)
    engine.remove_container(container)
    assert machine.left() == []


def test_a_store_may_hold_what_the_other_driver_made(machine: Machine) -> None:
    engine = machine.engine
    engine.run(RunOptions(image="box", name="old", command=("sh", "-c", "echo old > /file"))).result()
    other = "copy" if engine.store.snapshots.driver == "overlay" else "overlay"
    with Engine(engine.layout.root, {**os.environ, "NBCONTAIN_STORAGE_DRIVER": other}) as second:
        box = Machine.on(second)
        assert second.store.snapshots.driver == other
        assert box.sh("cat /etc/passwd | head -n 1").startswith("root")
        old = second.container("old")
        assert second.diff(old) == [("A", "/file")]
        second.prune()
        assert second.soundness.look(full=True, fix=True).findings == ()
        second.start(old)
        until(lambda: old.status not in ("created", "running"))
        assert old.state().exit_code == 0
        second.remove_container(old)
