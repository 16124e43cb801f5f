"""`system check`: each damage is found by name, repair puts it right, and nothing intact is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcontain.engine import Engine
from nbcontain.runtime.bundle import State
from nbcontain.runtime.generate import RunOptions
from nbcontain.store.check import MEANINGS
from reliability import deeds

Damage = Callable[[Engine], object]


def write(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def top_layer(engine: Engine) -> Path:
    return engine.store.blobs.path(engine.image("loose").layers[-1].descriptor.digest)


def top_snapshot(engine: Engine) -> Path:
    chain = engine.image("loose").chain_id
    assert chain
    return engine.store.snapshots.shelf.snapshot(chain)


def lowest_snapshot(engine: Engine) -> Path:
    return engine.store.snapshots.shelf.root / engine.image("box").layers[0].diff_id.hex


def a_volume(engine: Engine) -> Path:
    return engine.volumes.create("hurt").directory


def record(engine: Engine) -> Path:
    return next(engine.layout.cache.glob("*.json"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    write(path, bytes(data))


DAMAGES: dict[str, tuple[str, Damage]] = {
    "a flipped bit in a layer": ("blob-damaged", lambda e: flip(top_layer(e))),
    "a cut layer": ("image-incomplete", lambda e: write(top_layer(e), b"")),
    "a lost layer": ("image-incomplete", lambda e: top_layer(e).unlink()),
    "a lost manifest": ("image-damaged", lambda e: e.store.blobs.path(e.image("loose").digest).unlink()),
    "a flipped bit in a config": ("image-damaged", lambda e: flip(e.store.blobs.path(e.image("loose").id))),
    "something else among the blobs": ("blob-foreign", lambda e: (e.layout.blobs / "sha256/README").touch()),
    "a cut index": ("index-damaged", lambda e: e.layout.index.write_text('{"schemaVersion": 2, "manif')),
    "an index that is no index": ("index-damaged", lambda e: e.layout.index.write_text("[]")),
    "no index": ("index-damaged", lambda e: e.layout.index.unlink()),
    "no oci-layout": ("layout-damaged", lambda e: e.layout.oci_layout.unlink()),
    "a snapshot whose parent is unreadable": ("snapshot-damaged", lambda e: write(top_snapshot(e) / "parent", b"?")),
    "a snapshot without files": ("snapshot-damaged", lambda e: deeds.shutil.rmtree(top_snapshot(e) / "fs")),
    "a snapshot on nothing": ("snapshot-on-nothing", lambda e: deeds.shutil.rmtree(lowest_snapshot(e))),
    "a layer of nobody": ("layer-of-nobody", lambda e: e.store.snapshots.prepare("build-0123", None)),
    "a record without its blobs": ("cache-useless", lambda e: top_layer(e).unlink()),
    "a damaged record": ("cache-useless", lambda e: record(e).write_text('{"key": 1')),
    "a record of another shape": ("cache-useless", lambda e: record(e).write_text('[{"layers": 7}]')),
    "a dead maker's file": ("leftover", lambda e: (e.layout.tmp / ".tmp-00ff").touch()),
    "a dead maker's directory": ("leftover", lambda e: (e.layout.tmp / ".tmp-00aa/layer/fs").mkdir(parents=True)),
    "an open door": ("permissions", lambda e: e.layout.snapshots.chmod(0o755)),
    "a bundle that was never finished": ("container-unfinished", lambda e: (e.layout.containers / "ab").mkdir()),
    "a container without its layer": (
        "container-without-layer",
        lambda e: e.store.snapshots.discard(e.container("going").id),
    ),
    "a container whose config is empty": (
        "container-damaged",
        lambda e: (e.container("going").bundle.path / "config.json").write_text(""),
    ),
    "a container that is no container": (
        "container-damaged",
        lambda e: (e.container("going").bundle.path / "container.json").write_text("[1]"),
    ),
    "a volume whose record is empty": ("volume-damaged", lambda e: write(a_volume(e) / "volume.json", b"")),
    "a volume of a container that is gone": (
        "volume-of-nobody", lambda e: e.store.volumes.create(created="", container="0" * 64),
    ),
    "a container whose supervisor died": (
        "container-lost",
        lambda e: e.container("going").bundle.write_state(State("running", 4711, 1)),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_found_by_name_and_repaired_without_loss(damage: str, template: Path, place: Path) -> None:
    kind, do = DAMAGES[damage]
    root = deeds.copied(template, place / "damaged")
    with Engine(root) as engine:
        intact = {str(name): image.digest for name, image in engine.images() if name and "loose" not in str(name)}
        do(engine)
    with Engine(root) as engine:
        found = engine.soundness.look(full=True)
        assert kind in {each.kind for each in found.findings}
        assert all(each.detail and each.subject and each.meaning.repair for each in found.findings)
        repaired = engine.soundness.look(full=True, fix=True)
        assert repaired.left == ()
        assert engine.soundness.look(full=True).findings == ()
        still = {str(name): image.digest for name, image in engine.images()}
        if kind == "index-damaged":
            assert set(intact.values()) <= set(still.values())
        else:
            assert intact.items() <= still.items()
        assert "kept" in {each.name for each in engine.containers()}


def test_a_sound_store_has_nothing_to_find(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "sound")) as engine:
        report = engine.soundness.look(full=True)
    assert report.is_clean
    assert (report.looked.images, report.looked.containers) == (4, 2)
    assert report.looked.bytes_read > 1_000_000


def test_a_quick_check_reads_no_layer(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "quick")) as engine:
        flip(top_layer(engine))
        assert engine.soundness.look().is_clean
        assert not engine.soundness.look(full=True).is_clean


def test_an_unpacked_layer_that_lost_its_parent_file_is_unpacked_again(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "again")) as engine:
        write(lowest_snapshot(engine) / "parent", b"")
        engine.soundness.look(fix=True)
        assert (lowest_snapshot(engine) / "fs/bin/busybox").is_file()
        assert os.listdir(engine.layout.quarantine)


def test_work_that_goes_on_is_no_finding(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "busy")) as engine, engine.store.shared():
        active = engine.store.snapshots.prepare("build-now", None)
        with engine.store.blobs.writer() as writer:
            writer.write(b"half")
            report = engine.soundness.look()
        assert (report.findings, report.looked.is_busy) == ((), True)
        engine.store.snapshots.discard(active)


def test_what_the_supervisor_of_a_passing_container_still_removes_is_no_leftover(template: Path, place: Path) -> None:
    many = "i=0; while [ $i -lt 6000 ]; do : > /$i; i=$((i+1)); done"
    with Engine(deeds.copied(template, place / "removing")) as engine:
        for _ in range(5):
            engine.run(RunOptions(image="box", command=("/bin/busybox", "sh", "-c", many), remove=True)).result()
            # Its end is told before its files are gone, which takes a moment.
            met = any(engine.layout.tmp.glob(".tmp-*/fs/5999"))
            found = engine.soundness.look().findings
            met = met and any(engine.layout.tmp.glob(".tmp-*/fs"))
            assert found == ()
            if met:
                return
    pytest.fail("no check came upon a removal")


def test_every_kind_of_finding_is_provoked_by_a_test() -> None:
    assert set(MEANINGS) - {kind for kind, _ in DAMAGES.values()} == {
        "name-twice", "layer-on-nothing", "volume-missing",
    }  # fmt: skip


def test_two_images_of_one_name_are_told_apart(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "twice")) as engine:
        index = json.loads(engine.layout.index.read_bytes())
        index["manifests"][1]["annotations"] = index["manifests"][0]["annotations"]
        other = [each for each in index["manifests"] if each["digest"] != index["manifests"][0]["digest"]][0]
        other["annotations"] = index["manifests"][0]["annotations"]
        engine.layout.index.write_text(json.dumps(index))
        assert "name-twice" in {each.kind for each in engine.soundness.look().findings}
        assert engine.soundness.look(fix=True).is_clean


def test_a_container_whose_image_layers_cannot_be_had_again_is_said_to_be_lost(template: Path, place: Path) -> None:
    with Engine(deeds.copied(template, place / "nothing")) as engine:
        layer = engine.image("box").layers[0]
        engine.store.blobs.remove(layer.descriptor.digest)
        engine.store.snapshots.remove(engine.image("box").chain_id)  # type: ignore[arg-type]
        report = engine.soundness.look(fix=True)
        assert {each.kind for each in report.left} == {"layer-on-nothing"}
        for name in ("kept", "going"):
            engine.remove_container(engine.container(name))
        assert engine.soundness.look().is_clean


def test_the_command_ends_with_1_when_something_is_wrong_and_says_it_in_json(template: Path, place: Path) -> None:
    root = deeds.copied(template, place / "terminal")

    def nbcontain(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nbcontain", *words],
            env={**os.environ, "NBCONTAIN_ROOT": str(root)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    clean = nbcontain("system", "check")
    assert (clean.returncode, clean.stdout[:6]) == (0, "clean:")
    (root / "tmp/.tmp-00ff").touch()
    table = nbcontain("system", "check", "--full")
    assert table.returncode == 1
    assert "leftover" in table.stdout
    document = json.loads(nbcontain("system", "check", "--format", "json").stdout)
    assert [each["kind"] for each in document["findings"]] == ["leftover"]
    assert nbcontain("system", "check", "--repair").returncode == 0
    assert nbcontain("system", "check", "--quick", "--full").returncode == 1
