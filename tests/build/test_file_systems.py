"""Whole trees on file systems that people have: with reflinks (XFS, Btrfs), and on a tmpfs that is limited.

Each is made in a file and mounted, which only root may. `make soak` takes all, `make test` one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from build.test_drivers import LAYERS, STEPS, entries
from machine import Machine, until
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.host import Ability
from nbcontain.runtime.generate import RunOptions
from rounds import SOAK

FILE_SYSTEMS = ("xfs", "btrfs", "tmpfs") if SOAK else ("xfs",)
BIG = 24 << 20


def mounted(kind: str, place: Path) -> None:
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m,mode=700", "nbcontain-test", str(place)], check=True)
        return
    maker = needs.program(f"mkfs.{kind}", {"xfs": "xfsprogs", "btrfs": "btrfs-progs"}[kind])
    disk = place.with_suffix(".img")
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run([maker, "-q", "-f", str(disk)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", str(disk), str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        needs.missing(f"{kind} cannot be mounted: {done.stderr.strip()}")


@pytest.fixture(params=FILE_SYSTEMS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(kind: str, busybox_context: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        needs.missing("a file system is mounted, which only root may")
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-fs-", dir=needs.scratch()))
    place = directory / "disk"
    place.mkdir()
    try:
        mounted(kind, place)
        try:
            with Engine(place / "store", {**os.environ, "NBCONTAIN_STORAGE_DRIVER": "copy"}) as engine:
                machine = Machine(engine, busybox_context)
                yield machine
                machine.clear()
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def used(engine: Engine) -> int:
    os.sync()
    status = os.statvfs(engine.layout.root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.slow
def test_whole_trees_are_built_run_and_shared_on_it(
    kind: str, machine: Machine, busybox_context: Path, tmp_path: Path
) -> None:
    engine = machine.engine
    machine.build(STEPS, "made", busybox_context)
    found = entries(engine, engine.image("made"))[len(engine.image("box").layers) :]
    assert [each.replace("|a/link/.wh..wh..opq 0 0", "") for each in found] == [
        each.replace("|a/link/.wh..wh..opq 0 0", "") for each in LAYERS
    ]
    (tmp_path / "c").mkdir()
    (tmp_path / "c/big").write_bytes(os.urandom(BIG))
    machine.build("FROM box\nCOPY big /big\n", "big", tmp_path / "c")
    before = used(engine)
    writing = ("sh", "-c", "echo x > /own; wc -c < /big")
    for number in range(3):
        engine.run(RunOptions(image="big", name=f"c{number}", command=writing)).result()
    taken = used(engine) - before
    if engine.host.can(Ability.REFLINKS):
        assert kind != "tmpfs"
        assert taken < BIG
        # What one writes into a file that shares its blocks is nobody else's.
        engine.run(RunOptions(image="big", remove=True, command=("sh", "-c", "echo other > /big"))).result()
        assert machine.sh("wc -c < /big", image="big").strip() == str(BIG)
    else:
        assert kind == "tmpfs"
        assert taken > 3 * BIG
        with pytest.raises(NbcontainError) as caught:
            for number in range(3, 12):
                engine.run(RunOptions(image="big", name=f"c{number}", command=("true",))).result()
        assert "No space left" in "\n".join(caught.value.lines())
        for each in engine.containers():
            engine.remove_container(each, force=True)
        assert machine.sh("wc -c < /big", image="big").strip() == str(BIG)
    for each in engine.containers():
        assert engine.diff(each) == [("A", "/own")]
    until(lambda: not engine.soundness.look(full=True).findings)
