"""Layers in other forms: the same tar and image ID, another blob and digest."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from archives import archive, member
from nbcontain.engine import Engine
from nbcontain.errors import ImageNotFound, UsageError
from nbcontain.images import Image as Held
from nbcontain.oci import codec
from nbcontain.oci.attestations import Subject, attested, statement
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import (
    INDEX,
    LAYER_TAR,
    LAYER_TAR_GZIP,
    LAYER_TAR_ZSTD,
    MANIFEST,
    Image,
    ImageConfig,
    Layer,
    Platform,
)
from nbcontain.oci.indexes import entry_of, index_of
from nbcontain.oci.reference import Reference
from nbcontain.store.check import Check
from nbcontain.store.compression import uncompressed
from nbcontain.store.conversion import converted
from nbcontain.store.layer_forms import FORMS, GZIP, Form, form_of
from nbcontain.store.layer_writer import BLOCK_BYTES, layer_writer
from nbcontain.values import replace
from stores import add_image

SIZES = (0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 7, 40 * BLOCK_BYTES)
TYPES = {"gzip": LAYER_TAR_GZIP, "zstd": LAYER_TAR_ZSTD, "uncompressed": LAYER_TAR}
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def data_of(size_bytes: int) -> bytes:
    """Half of it random, half of it the same again and again."""
    noise = random.Random(size_bytes).randbytes(max(1, size_bytes // 2))
    return (noise + noise + b"x")[:size_bytes]


def layer_of(engine: Engine, data: bytes, form: Form = GZIP, piece: int = 300_000) -> Layer:
    with layer_writer(engine.store.blobs, form=form) as writer:
        for at in range(0, len(data), piece):
            writer.write(data[at : at + piece])
        return writer.commit()


def image_in(engine: Engine, name: str, *contents: bytes) -> Image:
    layers = [layer_of(engine, archive(member(f"file{n}", data=each))) for n, each in enumerate(contents)]
    image = Image.of(ImageConfig(cmd=("sh",)), layers)
    engine.store.images.put(image, Reference.parse(name))
    return image


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_in_a_form_is_read_again(engine: Engine, name: str, size_bytes: int) -> None:
    data = data_of(size_bytes)
    layer = layer_of(engine, data, form_of(name))
    assert layer.descriptor.media_type == TYPES[name]
    assert layer == layer_of(engine, data, form_of(name), piece=77_777), "the same bytes, whatever pieces they came in"
    with engine.store.blobs.open(layer.descriptor.digest) as blob:
        stream = uncompressed(blob)
        read = b"".join(iter(lambda: bytes(stream.chunk()), b""))
    assert read == data
    if name == "uncompressed":
        assert layer.descriptor.digest == layer.diff_id


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not installed")
def test_zstd_itself_reads_it(engine: Engine) -> None:
    data = data_of(7 * BLOCK_BYTES)
    path = engine.store.blobs.path(layer_of(engine, data, form_of("zstd", 1)).descriptor.digest)
    assert subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout == data
    subprocess.run(["zstd", "-t", str(path)], capture_output=True, check=True)


def test_an_image_keeps_its_id_and_its_files_and_comes_back_to_its_digest(engine: Engine) -> None:
    was = image_in(engine, "app:1", b"small", data_of(3_000_000))
    engine.tag("app:1", "app:2")
    snapshots = [layer.diff_id for layer in was.layers]

    there = engine.archives.convert("app:1", form_of("zstd")).result()

    assert there.id == was.id and there.digest != was.digest
    assert [each.media_type for each in there.manifest.layers] == [LAYER_TAR_ZSTD] * 2
    assert [layer.diff_id for layer in there.layers] == snapshots
    # Under all its names; what it was is gone.
    assert engine.image("app:1") == engine.image("app:2") == engine.image(str(was.id)) == there
    assert not any(engine.store.blobs.exists(each.digest) for each in was.manifest.layers)
    assert engine.soundness.look(full=True).is_clean
    back = engine.archives.convert("app:1", form_of("gzip")).result()
    assert back.digest == was.digest and back.raw_manifest == was.raw_manifest
    assert engine.archives.convert("app:1", form_of("gzip")).result() == back


def test_a_copy_has_another_name_and_what_it_was_stays(engine: Engine) -> None:
    was = image_in(engine, "app:1", data_of(100_000))
    plain = engine.archives.convert("app:1", form_of("uncompressed"), "app:plain").result()
    assert engine.image("app:1") == was and engine.image("app:plain") == plain
    assert plain.manifest.layers[0].digest == plain.layers[0].diff_id
    assert engine.image("app:1").manifest.layers[0].media_type == LAYER_TAR_GZIP


def test_a_name_that_is_another_images_meanwhile_stays_that(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    image_in(engine, "app:1", data_of(100_000))
    engine.tag("app:1", "app:2")
    other = image_in(engine, "other:1", b"other")

    def meanwhile(image: Image, *words: object, **options: object) -> Image:
        engine.tag("other:1", "app:1")
        return converted(image, form_of("zstd"), engine.store.blobs)

    monkeypatch.setattr("nbcontain.archives.converted", meanwhile)
    there = engine.archives.convert("app:1", form_of("zstd")).result()
    assert engine.image("app:1") == other and engine.image("app:2") == there


def test_an_image_that_a_container_stands_on_is_no_second_one_without_a_name(engine: Engine) -> None:
    """The container's image is found by its ID, and that stays."""
    was = add_image(engine.store, "it", name="app:1")
    engine.store.snapshots.prepare("c1", was.chain_id)
    there = engine.archives.convert("app:1", form_of("zstd")).result()
    assert engine.images() == [(Reference.parse("app:1"), there)]


@pytest.mark.parametrize("has_container", [False, True])
def test_an_image_that_is_removed_meanwhile_does_not_come_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, has_container: bool
) -> None:
    was = add_image(engine.store, "it", name="app:1")
    if has_container:
        engine.store.snapshots.prepare("c1", was.chain_id)

    def meanwhile(image: Image, *words: object, **options: object) -> Image:
        engine.store.images.remove(Reference.parse("app:1"))
        return converted(image, form_of("zstd"), engine.store.blobs)

    monkeypatch.setattr("nbcontain.archives.converted", meanwhile)
    there = engine.archives.convert("app:1", form_of("zstd")).result()
    assert engine.images() == ([(None, there)] if has_container else [])


def test_a_level_makes_it_anew(engine: Engine) -> None:
    image_in(engine, "app:1", data_of(2_000_000))
    first = engine.archives.convert("app:1", form_of("zstd"), "app:3").result()
    small = engine.archives.convert("app:3", form_of("zstd", 19), again=True).result()
    assert small.manifest.layers[0].size <= first.manifest.layers[0].size and small.digest != first.digest


def test_some_layers_stay_and_dockers_words_become_ocis(engine: Engine) -> None:
    image = image_in(engine, "app:1", b"base", b"made")
    layers = tuple(replace(each, media_type=DOCKER_LAYER) for each in image.manifest.layers)
    manifest = replace(image.manifest, media_type=codec.DOCKER_MANIFEST, layers=layers)
    docker = replace(image, manifest=manifest, raw_manifest=codec.dump_manifest(manifest))
    made = converted(docker, form_of("zstd"), engine.store.blobs, first=1)
    assert made.manifest.media_type == MANIFEST
    assert [each.media_type for each in made.manifest.layers] == [LAYER_TAR_GZIP, LAYER_TAR_ZSTD]
    assert made.manifest.layers[0].digest == image.manifest.layers[0].digest
    # Nothing is to be done: not a byte is another.
    assert converted(docker, GZIP, engine.store.blobs) is docker


@pytest.mark.parametrize("harm", ["other bytes", "another tar"])
def test_a_layer_that_is_not_what_it_should_be_becomes_no_image(engine: Engine, harm: str) -> None:
    image = image_in(engine, "app:1", b"it", data_of(50_000))
    if harm == "another tar":
        other = layer_of(engine, archive(member("else", data=b"no")))
        swapped = (image.manifest.layers[0], other.descriptor)
        manifest = replace(image.manifest, layers=swapped)
        image = replace(image, manifest=manifest, raw_manifest=codec.dump_manifest(manifest))
        engine.store.images.put(image, Reference.parse("app:1"))
    else:
        path = engine.store.blobs.path(image.manifest.layers[1].digest)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    before = sorted(map(str, engine.store.blobs.walk()))
    with pytest.raises(Exception, match="digest|damaged|is not what its image says|expected"):
        engine.archives.convert("app:1", form_of("zstd"), "app:z").result()
    assert [name.familiar for name, _ in engine.images() if name] == ["app:1"]
    engine.prune()
    assert set(map(str, engine.store.blobs.walk())) <= set(before)


def test_what_cannot_be_converted_is_told(engine: Engine) -> None:
    image = image_in(engine, "app:1", b"it")
    index = index_of([entry_of(image)])
    engine.store.images.put_index(index, Reference.parse("list:1"))
    with pytest.raises(UsageError, match="several platforms"):
        engine.archives.convert("list:1", form_of("zstd"))
    nameless = Image.of(ImageConfig(cmd=("no",)), image.layers)
    engine.store.images.put(nameless)
    with pytest.raises(UsageError, match="no name"):
        engine.archives.convert(str(nameless.id), form_of("zstd"))
    for name, level in (("xz", None), ("gzip", 9), ("zstd", 23), ("zstd", 0)):
        with pytest.raises(UsageError):
            form_of(name, level)


def test_a_list_has_each_of_its_images_converted_and_is_made_of_them_again(engine: Engine) -> None:
    arm = Platform("linux", "arm64", "v8")
    one = image_in(engine, "one:1", data_of(10_000))
    two = image_in(engine, "two:1", data_of(20_000), b"more")
    entries = [entry_of(one, annotations={"a": "b"}), entry_of(two, arm)]
    was = index_of(entries, {"of": "list"}, codec.DOCKER_INDEX)
    for name in ("list:1", "list:2"):
        engine.store.images.put_index(was, Reference.parse(name))
    made = engine.manifests.convert("list:1", form_of("zstd"), "list:z").result()
    assert engine.manifests.get("list:z") == made and engine.manifests.get("list:1") == was
    assert made.media_type == INDEX
    assert [(each.platform, dict(each.annotations)) for each in made.entries] == [
        (one.config.platform, {"a": "b"}), (arm, {}),
    ]  # fmt: skip
    assert [each.id for each in engine.store.images.children(made)] == [one.id, two.id]
    layers = [layer.media_type for each in engine.store.images.children(made) for layer in each.manifest.layers]
    assert layers == [LAYER_TAR_ZSTD] * 3
    again = engine.manifests.convert("list:2", form_of("zstd")).result()
    assert again.raw == made.raw, "of the same the same"
    assert engine.manifests.get("list:1") == again, "under all its names"
    assert engine.manifests.convert("list:1", form_of("zstd")).result() == again
    assert engine.image("one:1").digest == one.digest, "an image's own name stays with it"
    engine.prune()
    assert list(Check(engine.store, full=True).everything()) == []


def test_what_is_said_of_an_image_beside_it_is_left_out_of_what_is_converted(engine: Engine) -> None:
    image = image_in(engine, "one:1", b"it")
    told = attested([Subject(image, [("p", statement("p", {}, [("one", image.digest)]))])])
    for data in told.blobs.values():
        engine.store.blobs.put([data], "application/octet-stream")
    engine.store.images.put_index(told.index, Reference.parse("list:1"))
    task = engine.manifests.convert("list:1", form_of("zstd"))
    [entry] = task.result().entries
    assert entry.platform == image.config.platform
    said = [getattr(each.event, "message", "") for each in task.journal.follow()]
    assert any("left out" in each for each in said)


def test_a_list_that_is_not_here_as_a_whole_is_not_converted(engine: Engine) -> None:
    image = image_in(engine, "one:1", b"it")
    other = replace(entry_of(image), digest=Digest.of(b"elsewhere"))
    engine.store.images.put_index(index_of([entry_of(image), other]), Reference.parse("list:1"))
    with pytest.raises(ImageNotFound, match="not whole here"):
        engine.manifests.convert("list:1", form_of("zstd"))


def test_python_says_it_and_an_archive_keeps_it(engine: Engine, tmp_path: Path) -> None:
    was = image_in(engine, "app:1", data_of(10_000))
    held = Held.held(engine.image("app:1"), engine)
    assert held.convert("zstd", "app:z", level=1).manifest.layers[0].media_type == LAYER_TAR_ZSTD
    engine.archives.save(("app:z",), str(tmp_path / "z.tar")).result()
    engine.remove_image("app:z")
    [again] = engine.archives.load(str(tmp_path / "z.tar")).result()
    assert again.image.id == was.id and again.image.manifest.layers[0].media_type == LAYER_TAR_ZSTD
