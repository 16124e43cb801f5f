"""Images and containers as files: what we write is read by others and by us, and what others write is read here."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import resource
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest

import building
import needs
from archives import archive, directory, layer_of, member
from machine import until
from nbcontain.archives import Archives
from nbcontain.build.request import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import (
    BadArchive,
    BadDocument,
    BadReference,
    DockerfileError,
    NbcontainError,
    NoSuchPlatform,
    StoreError,
    UsageError,
)
from nbcontain.oci import codec
from nbcontain.oci.digest import DiffID, Digest, chain_ids
from nbcontain.oci.image import (
    LAYER_TAR,
    LAYER_TAR_GZIP,
    LAYER_TAR_ZSTD,
    Descriptor,
    Healthcheck,
    Image,
    ImageConfig,
    Index,
    Platform,
)
from nbcontain.oci.indexes import ImageIndex, entry_of, index_of
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.launcher import Launcher
from nbcontain.store import tar
from nbcontain.store.archive_writer import CONTAINERD_NAME, OCI_LAYOUT, Saved
from nbcontain.store.blobs import Blobs
from nbcontain.store.layer_forms import PLAIN, form_of
from nbcontain.store.layer_writer import layer_writer
from registry.samples import image_of

HERE, ARM, RISCV = Platform.here(), Platform("linux", "arm64"), Platform("linux", "riscv64")

@pytest.fixture
def archives(engine: Engine) -> Archives:
    return engine.archives


def add(engine: Engine, name: str, *contents: bytes, cmd: tuple[str, ...] = ("sh",)) -> Image:
    layers = []
    for number, content in enumerate(contents):
        with layer_writer(engine.store.blobs) as writer:
            writer.write(archive(member(f"file{number}", data=content)))
            layers.append(writer.commit())
    image = Image.of(ImageConfig(cmd=cmd, env=("A=1",)), layers)
    engine.store.images.put(image, Reference.parse(name))
    return image


def forget(engine: Engine) -> None:
    for name in {name for name, _ in engine.images() if name}:
        engine.remove_image(name.familiar, force=True)
    engine.prune()
    assert list(engine.store.blobs.walk()) == []


def packed(files: dict[str, bytes | str]) -> bytes:
    """A tar with these files; a text is a symlink's target."""
    return building.archive(*files.items())


def docker_archive(layer: bytes, tags: list[str] | None = None, **changes: Any) -> dict[str, bytes | str]:
    """What docker wrote before 25."""
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }  # fmt: skip
    entry = {"Config": "c0ffee.json", "RepoTags": tags, "Layers": ["abc/layer.tar"]} | changes
    return {
        "abc/VERSION": b"1.0",
        "abc/json": b"{}",
        "abc/layer.tar": layer,
        "c0ffee.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([entry]).encode(),
    }


def zstd(data: bytes) -> bytes:
    return b"".join(form_of("zstd").packer().pack(data))  # type: ignore[misc]


LAYER = archive(member("hello", data=b"hello"))


def load(archives: Archives, tmp_path: Path, data: bytes) -> tuple[Saved, ...]:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    return archives.load(str(path)).result()


# --- our own ---


@pytest.mark.parametrize("directory", [False, True])
def test_what_is_saved_is_loaded_with_the_same_digests_and_names(
    engine: Engine, archives: Archives, tmp_path: Path, directory: bool
) -> None:
    one, two = add(engine, "one:1", b"x", b"y"), add(engine, "two:2", b"x")
    engine.tag("one:1", "registry.example/team/one:3")
    archives.save(
        ("one:1", "registry.example/team/one:3", "two:2"), str(tmp_path / "out"), directory=directory
    ).result()
    forget(engine)
    archives.load(str(tmp_path / "out")).result()
    found = {name.familiar: image.digest for name, image in engine.images() if name}
    assert found == {"one:1": one.digest, "registry.example/team/one:3": one.digest, "two:2": two.digest}


@pytest.fixture
def unpackings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that workers were called for."""
    calls: list[str] = []
    call = Launcher.call

    def noted(self: Launcher, function: str, *args: Any, **options: Any) -> Any:
        calls.append(function)
        return call(self, function, *args, **options)

    monkeypatch.setattr(Launcher, "call", noted)
    return calls


@pytest.mark.parametrize("kind", ["oci", "old docker"])
def test_large_layers_are_unpacked_once_while_the_archive_is_read(
    engine: Engine, archives: Archives, tmp_path: Path, unpackings: list[str], kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    layers = [random.Random(number).randbytes(400_000) for number in range(4)]
    image = add(engine, "app:1", *layers)
    archives.save(("app:1",), str(tmp_path / "out")).result()
    forget(engine)
    if kind == "old docker":
        tars = [archive(member(f"file{number}", data=content)) for number, content in enumerate(layers)]
        config = {"architecture": "amd64", "os": "linux",
                  "rootfs": {"type": "layers", "diff_ids": [str(each) for each in image.config.diff_ids]}}  # fmt: skip
        entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": [f"{number}/layer.tar" for number in range(4)]}
        files: dict[str, bytes | str] = {f"{number}/layer.tar": data for number, data in enumerate(tars)}
        files |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps([entry]).encode()}
        (tmp_path / "out").write_bytes(packed(files))
    unpackings.clear()

    def is_not_needed(*_: object) -> None:
        raise AssertionError("a blob is read for what was unpacked already")

    monkeypatch.setattr(Blobs, "opened", is_not_needed)
    archives.load(str(tmp_path / "out")).result()
    assert unpackings.count("apply_tar") == 4
    found = engine.image("app:1")
    assert found.config.diff_ids == image.config.diff_ids
    assert found.chain_id is not None
    shown = {path.name: path.read_bytes() for place in engine.store.snapshots.chain(found.chain_id)
             for path in place.rglob("file*")}  # fmt: skip
    assert shown == {f"file{number}": content for number, content in enumerate(layers)}
    assert list(engine.store.layout.tmp.iterdir()) == []


@pytest.mark.parametrize("step", [1, 515, 70_001])
def test_a_layer_is_known_by_what_it_begins_with_in_whatever_pieces_it_comes(
    engine: Engine, archives: Archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The first piece of a member was once all that was looked at: two bytes of gzip are no gzip, and no tar."""

    class Slow:
        """Standard input that gives so many bytes at a time."""

        def __init__(self, data: bytes) -> None:
            self.file = io.BytesIO(data)

        def readinto(self, buffer: memoryview) -> int:
            return self.file.readinto(memoryview(buffer)[:step])

    image = add(engine, "app:1", random.Random(7).randbytes(2000 if step == 1 else 300_000))
    archives.save(("app:1",), str(tmp_path / "out")).result()
    files: dict[str, bytes | str] = {}
    with tarfile.open(tmp_path / "out") as saved:
        for each in saved:
            if each.isfile():
                name = "layer.tar.gz" if each.name.endswith(image.manifest.layers[0].digest.hex) else each.name
                files[name] = cast(IO[bytes], saved.extractfile(each)).read()
    [entry] = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([entry | {"Layers": ["layer.tar.gz"]}]).encode()
    del files["index.json"]
    forget(engine)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": Slow(packed(files))}))
    archives.load("-").result()
    assert engine.image("app:1").manifest.layers == image.manifest.layers


def test_a_large_layer_that_is_not_what_its_image_says_leaves_nothing(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    data = archive(member("file", data=random.Random(5).randbytes(500_000)))
    lies = docker_archive(data, ["lies:1"])
    config = json.loads(lies["c0ffee.json"])
    config["rootfs"]["diff_ids"] = ["sha256:" + "a" * 64]
    lies["c0ffee.json"] = json.dumps(config).encode()
    threads = threading.active_count()
    with pytest.raises(BadArchive):
        load(archives, tmp_path, packed(lies))
    with pytest.raises(BadArchive):
        load(archives, tmp_path, packed(docker_archive(data, ["cut:1"]))[:400_000])
    assert list(engine.store.snapshots.walk()) == []
    assert list(engine.store.layout.tmp.iterdir()) == []
    until(lambda: threading.active_count() <= threads + 1)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_layer_that_is_refused_at_its_beginning_is_read_to_its_end_for_nobody(
    pack: Callable[[bytes], bytes], engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    # More than there is memory between who reads it and who unpacks it.
    data = archive(member("../evil", data=b"x"), member("file", data=random.Random(6).randbytes(11 << 20)))
    files = docker_archive(data, ["evil:1"])
    files["abc/layer.tar"] = pack(data)
    with pytest.raises(BadArchive, match="points out of the archive"):
        load(archives, tmp_path, packed(files))
    assert list(engine.store.snapshots.walk()) == []
    assert list(engine.store.layout.tmp.iterdir()) == []
    assert engine.images() == []


class Stream(io.BytesIO):
    """Standard input that is no file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.buffer = self


@pytest.mark.parametrize("size", [300_000, 3 << 20, (9 << 20) + 4567])
def test_a_plain_layer_has_the_same_blob_from_a_file_a_directory_a_pipe_and_a_compressed_archive(
    engine: Engine, archives: Archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """From a file it is read twice, by who unpacks it and by who compresses it."""
    content = random.Random(size).randbytes(size // 2) + bytes(size // 2)
    files = docker_archive(archive(member("file", data=content), member("small", data=b"x")), ["app:1"])
    (tmp_path / "plain").write_bytes(b"of somebody else" + packed(files))
    (tmp_path / "packed").write_bytes(gzip.compress(packed(files)))
    for name, data in files.items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    found = []
    with (tmp_path / "plain").open("rb", buffering=0) as plain, (tmp_path / "plain").open("rb") as buffered:
        for opened in (plain, buffered):
            opened.read(16)
        streams = [SimpleNamespace(buffer=plain), SimpleNamespace(buffer=buffered), Stream(packed(files))]
        for source in (*streams, tmp_path / "packed", tmp_path / "layout"):
            monkeypatch.setattr("sys.stdin", source)
            archives.load(str(source) if isinstance(source, Path) else "-").result()
            found.append(engine.image("app:1").manifest.layers)
            chain = engine.image("app:1").chain_id
            assert chain is not None
            [place] = engine.store.snapshots.chain(chain)
            assert next(place.rglob("file")).read_bytes() == content
            forget(engine)
    assert len(set(found)) == 1, found


def test_the_same_images_give_the_same_archive(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    add(engine, "one", b"x", b"y")
    for name in ("a", "b"):
        archives.save(("one",), str(tmp_path / name)).result()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_compressed_archive_is_loaded_too(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    image = add(engine, "one", b"x")
    archives.save(("one",), str(tmp_path / "out")).result()
    forget(engine)
    load(archives, tmp_path, gzip.compress((tmp_path / "out").read_bytes()))
    assert engine.image("one").digest == image.digest


def test_a_repository_without_a_tag_is_saved_with_all_its_tags(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    add(engine, "app:1", b"x")
    add(engine, "app:2", b"y")
    archives.save(("app",), str(tmp_path / "out")).result()
    forget(engine)
    archives.load(str(tmp_path / "out")).result()
    assert {name.familiar for name, _ in engine.images() if name} == {"app:1", "app:2"}


# --- docker's old archives ---


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: data])
def test_a_layer_may_be_as_small_as_it_likes(
    engine: Engine, archives: Archives, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """As crane, kaniko and ko write them: `WORKDIR` makes a layer of 100 bytes."""
    small = compress(archive(directory("app")))
    files = docker_archive(archive(directory("app")), ["it:1"], Layers=["bbbb.tar.gz"])
    files["bbbb.tar.gz"] = small
    [saved] = load(archives, tmp_path, packed(files))
    assert len(saved.image.layers) == 1
    if engine.profile.runs:
        assert engine.anatomy.verify("it:1").result()


def with_sha512(engine: Engine, name: str, *contents: bytes) -> Image:
    """An image whose layers are named by the other algorithm, as a registry may have it."""
    image = add(engine, name, *contents)
    layers = []
    for layer in image.layers:
        data = engine.store.blobs.path(layer.descriptor.digest).read_bytes()
        digest = Digest("sha512", hashlib.sha512(data).hexdigest())
        path = engine.store.blobs.path(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        layers.append(replace(layer, descriptor=replace(layer.descriptor, digest=digest)))
    made = Image.of(ImageConfig(cmd=("sh",)), layers)
    engine.store.images.put(made, Reference.parse(name))
    return made


@pytest.mark.parametrize("directory", [False, True])
def test_layers_with_digests_of_another_algorithm_are_loaded_as_they_were_saved(
    engine: Engine, archives: Archives, tmp_path: Path, directory: bool
) -> None:
    image = with_sha512(engine, "app:1", b"small", random.Random(5).randbytes(600_000))
    archives.save(("app:1",), str(tmp_path / "out"), directory=directory).result()
    forget(engine)
    archives.load(str(tmp_path / "out")).result()
    assert engine.image("app:1").manifest == image.manifest
    assert {layer.descriptor.digest.algorithm for layer in engine.image("app:1").layers} == {"sha512"}
    assert engine.soundness.look(full=True).is_clean


def with_sha512_diff_ids(engine: Engine, name: str, *tars: bytes) -> Image:
    """An image whose config names its layers by the other algorithm."""
    layers = [replace(layer_of(each), diff_id=DiffID(Digest("sha512", hashlib.sha512(each).hexdigest())))
              for each in tars]  # fmt: skip
    for each in tars:
        engine.store.blobs.put([each], "")
    made = Image.of(ImageConfig(cmd=("sh",)), layers)
    engine.store.images.put(made, Reference.parse(name))
    return made


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("form", ["oci", "docker", "directory"])
def test_layers_that_a_config_names_by_sha512_are_compared_with_that_and_stay_as_they_are(
    engine: Engine, archives: Archives, tmp_path: Path, count: int, form: str
) -> None:
    """The chain ID of the lowest is its diff ID; those above are SHA-256 (image-spec, identity.ChainID)."""
    tars = [archive(member(f"file{number}", data=bytes([65 + number]) * 3000)) for number in range(count)]
    image = with_sha512_diff_ids(engine, "app:1", *tars)
    out = tmp_path / "out"
    if form == "docker":
        config = f"{image.id.hex}.json"
        paths = [f"{number}/layer.tar" for number in range(count)]
        entries = {config: image.raw_config, **dict(zip(paths, tars, strict=True))}
        manifest = [{"Config": config, "RepoTags": ["app:1"], "Layers": paths}]
        out.write_bytes(packed({**entries, "manifest.json": json.dumps(manifest).encode()}))
    else:
        archives.save(("app:1",), str(out), directory=form == "directory").result()
    forget(engine)
    archives.load(str(out)).result()
    again = engine.image("app:1")
    assert again.raw_config == image.raw_config
    assert [len(each.hex) for each in chain_ids(again.config.diff_ids)] == [128, 64, 64][:count]
    engine.stacks.unpack(again.layers)
    data = bytearray()
    assert again.chain_id is not None
    engine.stacks.export(again.chain_id, data.extend)
    assert {name.rstrip("/") for name in tarfile.open(fileobj=io.BytesIO(data)).getnames()} - {"."} == {
        f"file{number}" for number in range(count)
    }
    assert all(each.is_whole for each in engine.anatomy.verify("app:1").result())
    zstd = archives.convert("app:1", form_of("zstd"), "app:z").result()
    assert zstd.config == again.config
    assert engine.soundness.look(full=True).is_clean
    forget(engine)


def test_a_layer_that_is_not_what_its_sha512_says_is_refused(engine: Engine) -> None:
    made = with_sha512_diff_ids(engine, "app:1", archive(member("a")))
    wrong = replace(made.layers[0], diff_id=DiffID(Digest("sha512", "0" * 128)))
    with pytest.raises(BadArchive, match="not what its image says"):
        engine.stacks.unpack([wrong])


@pytest.mark.parametrize("named", ["config", "layers", "manifest", "all"])
def test_images_that_are_named_by_sha512_are_loaded_and_found_by_it(
    engine: Engine, archives: Archives, tmp_path: Path, named: str
) -> None:
    """No store has made a directory for such blobs before."""

    def put(data: bytes, what: str) -> dict[str, object]:
        algorithm = "sha512" if named in ("all", what) else "sha256"
        digest = hashlib.new(algorithm, data).hexdigest()
        path = tmp_path / "layout" / "blobs" / algorithm / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"digest": f"{algorithm}:{digest}", "size": len(data)}

    image = add(engine, "it:1", b"small")
    blob = engine.store.blobs.path(image.layers[0].descriptor.digest).read_bytes()
    forget(engine)
    layer = put(blob, "layers") | {"mediaType": image.layers[0].descriptor.media_type}
    config = put(image.raw_config, "config") | {"mediaType": image.manifest.config.media_type}
    head = {"schemaVersion": 2, "mediaType": image.manifest.media_type}
    manifest = put(json.dumps(head | {"config": config, "layers": [layer]}).encode(), "manifest")
    entry = manifest | {"mediaType": image.manifest.media_type, "annotations": {CONTAINERD_NAME: "it:1"}}
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (tmp_path / "layout" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    archives.load(str(tmp_path / "layout")).result()

    found = engine.image("it:1")
    assert str(found.id) == config["digest"]
    assert found == engine.image(str(found.id)) == engine.image(found.id.hex[:12]) == engine.image(found.id.hex)
    assert engine.soundness.look(full=True).is_clean
    archives.save(("it:1",), str(tmp_path / "saved")).result()
    forget(engine)
    archives.load(str(tmp_path / "saved")).result()
    assert engine.image("it:1").id == found.id


def test_an_archive_of_more_layers_than_a_process_may_have_open_is_loaded(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    names = [f"many{number}:1" for number in range(6)]
    for number, name in enumerate(names):
        add(engine, name, *(b"%d %d" % (number, layer) + bytes(600) for layer in range(50)))
    archives.save(tuple(names), str(tmp_path / "out")).result()
    forget(engine)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 280, before[1]))
    try:
        archives.load(str(tmp_path / "out")).result()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert {name.familiar for name, _ in engine.images() if name} == set(names)
    assert list(engine.store.layout.tmp.iterdir()) == []


def test_devices_and_pipes_in_an_archive_are_passed_over(archives: Archives, tmp_path: Path) -> None:
    files = packed(docker_archive(LAYER, ["it:1"]))
    some = archive(member("dev/console", tar.CHARACTER, major=5, minor=1), member("run/pipe", tar.FIFO))
    [saved] = load(archives, tmp_path, some[: -2 * tar.BLOCK] + files)
    assert saved.names == (Reference.parse("it:1"),)
    with pytest.raises(BadArchive, match="no archive of images") as caught:
        load(archives, tmp_path, some)
    assert "import" in caught.value.hint


def test_names_with_a_digest_are_believed_where_it_is_the_images(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    image = add(engine, "it:1", b"x")
    wrong = f"python@sha256:{'1' * 64}"
    with pytest.raises(BadArchive, match="calls an image"):
        load(archives, tmp_path, packed(docker_archive(LAYER, [wrong])))
    for name in (wrong, f"docker.io/library/python@{image.digest}"):
        target = tmp_path / name.partition("@")[2][-8:]
        archives.save(("it:1",), str(target), directory=True).result()
        (target / "manifest.json").unlink()
        index = json.loads((target / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"io.containerd.image.name": name}
        (target / "index.json").write_text(json.dumps(index))
        if name == wrong:
            with pytest.raises(BadArchive, match="calls an image"):
                archives.load(str(target)).result()
        else:
            archives.load(str(target)).result()
            assert engine.image(name).digest == image.digest
    assert wrong not in {name and name.familiar for name, _ in engine.images()}
    # What has such a name is saved, and loaded again.
    load(archives, tmp_path, saved_bytes(archives, tmp_path, f"python@{image.digest}"))


def saved_bytes(archives: Archives, tmp_path: Path, *names: str) -> bytes:
    archives.save(names, str(tmp_path / "saved.tar")).result()
    return (tmp_path / "saved.tar").read_bytes()


def test_no_image_is_given_a_name_with_a_digest(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    image = add(engine, "it:1", b"x")
    (tmp_path / "it.tar").write_bytes(LAYER)
    for name in (f"it@sha256:{'1' * 64}", f"it:2@{image.digest}"):
        for attempt in (
            lambda name=name: engine.tag("it:1", name),
            lambda name=name: archives.import_image(str(tmp_path / "it.tar"), name).result(),
            lambda name=name: engine.manifests.create(name, ["it:1"]).result(),
            lambda name=name: engine.registry.push("it:1", to=name).result(),
            lambda name=name: engine.build("FROM scratch", BuildOptions(tags=(name,))).result(),
        ):
            with pytest.raises(BadReference, match="no name to give"):
                attempt()
    assert [name and name.familiar for name, _ in engine.images()] == ["it:1"]


def test_images_whose_tags_are_alike_have_whole_names_in_a_layout(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    add(engine, "one:1", b"x"), add(engine, "two:1", b"y"), add(engine, "three:3", b"z")
    engine.tag("three:3", "four:3")
    archives.save(("one:1", "two:1", "three:3", "four:3"), str(tmp_path / "out"), directory=True).result()
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    names = sorted(each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"])
    assert names == ["3", "3", "docker.io/library/one:1", "docker.io/library/two:1"]


def test_an_archive_of_an_older_docker_is_loaded(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    [loaded] = load(archives, tmp_path, packed(docker_archive(LAYER, ["old:1"])))
    [layer] = loaded.image.layers
    assert engine.image("old:1").id == loaded.image.id
    # As it came: a load compresses nothing.
    assert layer.descriptor == Descriptor(LAYER_TAR, layer.diff_id, len(LAYER))
    assert layer.diff_id.hex == hashlib.sha256(LAYER).hexdigest()
    assert engine.store.snapshots.exists(loaded.image.chain_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [
        (gzip.compress, LAYER_TAR_GZIP),
        (zstd, LAYER_TAR_ZSTD),
        # No registry has a word for these.
        (lzma.compress, LAYER_TAR),
        (bz2.compress, LAYER_TAR),
    ],
    ids=["gzip", "zstd", "xz", "bzip2"],
)  # fmt: skip
@pytest.mark.parametrize("size", [10, 700_000])
def test_a_layer_in_an_older_dockers_archive_is_called_what_it_is(
    engine: Engine, archives: Archives, tmp_path: Path, pack: Callable[[bytes], bytes], media_type: str, size: int
) -> None:
    data = archive(member("file", data=random.Random(size).randbytes(size)))
    files = docker_archive(data, ["it:1"])
    files["abc/layer.tar"] = pack(data)
    [loaded] = load(archives, tmp_path, packed(files))
    [layer] = loaded.image.layers
    stored = data if media_type == LAYER_TAR else files["abc/layer.tar"]
    assert isinstance(stored, bytes)
    assert layer.descriptor == Descriptor(media_type, Digest.of(stored), len(stored))
    assert engine.anatomy.verify("it:1").result()


@pytest.mark.parametrize("begins", [b"BZh", b"\xfd7zXZ\0", b"\x04\x22\x4d\x18", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_what_no_image_of_dockers_archive_names_is_not_looked_into(
    engine: Engine, archives: Archives, tmp_path: Path, begins: bytes
) -> None:
    layer = archive(member("file", data=b"x"))
    files = {"notes": begins + random.Random(2).randbytes(600_000), **docker_archive(layer, ["it:1"])}
    load(archives, tmp_path, packed(files))
    assert engine.image("it:1").layers[0].descriptor.digest == Digest.of(layer)


@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress], ids=["xz", "bzip2"])
def test_a_layer_that_its_digest_names_may_be_compressed_with_what_registries_have_no_word_for(
    engine: Engine, archives: Archives, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    layer = archive(member("file", data=b"x"))
    name = f"blobs/sha256/{Digest.of(pack(layer)).hex}"
    files = docker_archive(layer, ["it:1"], Layers=[name])
    files[name] = pack(layer)
    load(archives, tmp_path, packed(files))
    assert engine.image("it:1").layers[0].descriptor == Descriptor(LAYER_TAR, Digest.of(layer), len(layer))


def test_a_layer_of_dockers_archive_may_have_no_bytes_at_all(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    """As some docker wrote an empty one; it takes it for a tar without files."""
    load(archives, tmp_path, packed(docker_archive(b"", ["it:1"])))
    assert engine.image("it:1").layers[0].diff_id == Digest.of(b"")
    assert engine.anatomy.verify("it:1").result()


def test_a_plain_layer_of_a_layout_keeps_its_digest_and_is_unpacked_while_it_is_read(
    engine: Engine, archives: Archives, tmp_path: Path, unpackings: list[str]
) -> None:
    """As docker writes them from 25 on."""
    add(engine, "app:1", random.Random(1).randbytes(3 << 20))
    image = archives.convert("app:1", PLAIN).result()
    archives.save(("app:1",), str(tmp_path / "out")).result()
    forget(engine)
    unpackings.clear()
    archives.load(str(tmp_path / "out")).result()
    assert engine.image("app:1").digest == image.digest
    assert engine.image("app:1").manifest.layers[0].digest == image.layers[0].diff_id
    assert unpackings.count("apply_tar") == 1
    assert engine.anatomy.verify("app:1").result()


def test_a_layer_that_is_a_link_to_another_is_followed_within_the_archive(archives: Archives, tmp_path: Path) -> None:
    files = docker_archive(LAYER, ["old:1"], Layers=["def/layer.tar"])
    [loaded] = load(archives, tmp_path, packed(files | {"def/layer.tar": "../abc/layer.tar"}))
    assert loaded.image.layers[0].diff_id.hex == hashlib.sha256(LAYER).hexdigest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest.json": "abc/layer.tar"}, "manifest.json of the archive is a link"),
        ({"../evil": b"x" * 600}, "points out"),
        ({"/etc/evil": b"x" * 600}, "absolute"),
        ({"abc/layer.tar": "../../../etc/passwd"}, "not in the archive"),
        ({"abc/layer.tar": "../abc/layer.tar"}, "a link to itself"),
        ({"abc/layer.tar": archive(member("other", data=b"x"))}, "not what its image says"),
        ({"abc/layer.tar": b"no tar at all" * 100}, "not what its image says"),
        ({"c0ffee.json": b"[]"}, "object"),
        ({"manifest.json": b"[]"}, "holds no images|no archive of images"),
        ({"manifest.json": b'[{"Config":"../x","Layers":[]}]'}, "leads out"),
        ({"manifest.json": b'[{"Config":"c0ffee.json","Layers":["/etc/passwd"]}]'}, "leads out"),
        ({"manifest.json": b'[{"Config":"c0ffee.json","Layers":[]}]'}, "names 0 layers"),
        ({"manifest.json": b'[{"Config":"c0ffee.json","RepoTags":["<script>"],"Layers":["abc/layer.tar"]}]'}, "calls"),
        ({"manifest.json": b'[{"Config":"c0ffee.json","RepoTags":["a\\nb"],"Layers":["abc/layer.tar"]}]'}, "calls"),
    ],
)  # fmt: skip
def test_an_archive_that_means_harm_is_refused_and_leaves_no_image(
    engine: Engine, archives: Archives, tmp_path: Path, change: dict[str, bytes | str], words: str
) -> None:
    with pytest.raises(NbcontainError, match=words):
        load(archives, tmp_path, packed(docker_archive(LAYER, ["evil"]) | change))
    assert engine.images() == []


def test_a_damaged_layer_of_a_layout_is_refused(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    image = add(engine, "one", b"x" * 5000)
    archives.save(("one",), str(tmp_path / "out"), directory=True).result()
    forget(engine)
    layer = tmp_path / "out/blobs/sha256" / image.layers[0].descriptor.digest.hex
    layer.write_bytes(layer.read_bytes()[:-1] + b"!")
    with pytest.raises(BadArchive, match="damaged"):
        archives.load(str(tmp_path / "out")).result()
    assert engine.images() == []


def test_a_layout_with_links_to_elsewhere_is_refused(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    image = add(engine, "one", b"x" * 5000)
    archives.save(("one",), str(tmp_path / "out"), directory=True).result()
    layer = tmp_path / "out/blobs/sha256" / image.layers[0].descriptor.digest.hex
    layer.unlink()
    layer.symlink_to("/etc/passwd")
    forget(engine)
    with pytest.raises(BadArchive, match="not in the archive"):
        archives.load(str(tmp_path / "out")).result()
    assert list(engine.store.blobs.walk()) == []


def test_docker_s_archive_may_be_unpacked_with_its_links(archives: Archives, tmp_path: Path) -> None:
    files = docker_archive(LAYER, ["one:1"])
    for name, data in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes)
        (tmp_path / "out" / name).write_bytes(data)
    entries = json.loads(files["manifest.json"])
    (tmp_path / "out" / "manifest.json").write_text(json.dumps([entries[0] | {"Layers": ["def/layer.tar"]}]))
    (tmp_path / "out" / "def").mkdir()
    (tmp_path / "out" / "def" / "layer.tar").symlink_to("../abc/layer.tar")
    [saved] = archives.load(str(tmp_path / "out")).result()
    assert saved.names == (Reference.parse("one:1"),)


@pytest.mark.parametrize("with_version", [True, False])
def test_a_directory_of_skopeo_s_own_is_loaded(
    engine: Engine, archives: Archives, tmp_path: Path, with_version: bool
) -> None:
    image, blobs = image_of(b"one", b"two")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(image.raw_manifest)
    if with_version:
        (tmp_path / "out" / "version").write_text("Directory Transport Version: 1.1\n")
    for digest, data in blobs.items():
        (tmp_path / "out" / digest.hex).write_bytes(data)
    if not with_version:
        with pytest.raises(NbcontainError):
            archives.load(str(tmp_path / "out")).result()
        return
    [saved] = archives.load(str(tmp_path / "out")).result()
    assert (saved.image.digest, saved.names) == (image.digest, ())
    assert engine.image(str(image.id)).digest == image.digest


def test_what_skopeo_copies_into_a_directory_is_loaded(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    skopeo = needs.program("skopeo", "skopeo")
    image = add(engine, "one:1", b"x", b"y")
    archives.save(("one:1",), str(tmp_path / "layout"), directory=True).result()
    command = [skopeo, "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/layout:1", f"dir:{tmp_path}/out"]
    subprocess.run(command, check=True)
    forget(engine)
    [saved] = archives.load(str(tmp_path / "out")).result()
    assert saved.image.digest == image.digest


def test_an_archive_that_is_cut_off_is_refused(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    data = packed(docker_archive(LAYER, ["cut"]))
    with pytest.raises((BadArchive, BadDocument)):
        load(archives, tmp_path, data[: len(data) // 3])
    assert engine.images() == []


# --- containers ---


def run(engine: Engine, script: str, name: str, **options: Any) -> None:
    engine.run(RunOptions(image="busybox", name=name, command=("sh", "-c", script), **options)).result()


def test_an_image_of_a_container_runs_as_that_did(engine: Engine, archives: Archives, busybox_image: str) -> None:
    """Not as root again, where it was somebody else."""
    run(engine, "exit 0", "c2", user="7:8", workdir="/tmp", stop_signal="SIGUSR1", health_cmd="true", health_retries=5,
        publish=("127.0.0.1::80",), expose=("81",), network=("none",))  # fmt: skip
    config = archives.commit(engine.container("c2"), "ran:1").result().config
    assert (config.user, config.working_dir, config.stop_signal) == ("7:8", "/tmp", "SIGUSR1")
    assert config.exposed_ports == ("80/tcp", "81/tcp")
    assert config.healthcheck == Healthcheck(("CMD-SHELL", "true"), retries=5)
    options = RunOptions(image="busybox", name="c3", entrypoint="echo", command=("a",), no_healthcheck=True)
    engine.run(options).result()
    config = archives.commit(engine.container("c3"), "ran:2").result().config
    assert (config.entrypoint, config.cmd, config.healthcheck) == (("echo",), ("a",), None)


def test_a_container_becomes_an_image_with_what_it_changed(
    engine: Engine, archives: Archives, busybox_image: str
) -> None:
    run(engine, "echo new > /new; rm /bin/ls", "c1", environment=("B=2",))
    image = archives.commit(
        engine.container("c1"), "made:1", changes=('CMD ["cat", "/new"]', "EXPOSE 80"), message="why", author="me"
    ).result()
    assert (image.config.exposed_ports, image.config.author, image.config.history[-1].comment) == (
        ("80/tcp",),
        "me",
        "why",
    )
    assert "B=2" in image.config.env
    result: Any = engine.run(RunOptions(image="made:1", remove=True)).result()
    assert result.stdout == "new\n"
    command = ("sh", "-c", "test -e /bin/ls || echo gone")
    result = engine.run(RunOptions(image="made:1", remove=True, command=command)).result()
    assert "gone" in result.stdout


def test_a_committed_image_has_no_mount_points_of_ours(engine: Engine, archives: Archives, busybox_image: str) -> None:
    run(engine, "true", "c1")
    image = archives.commit(engine.container("c1"), "same").result()
    assert image.layers == engine.image("busybox").layers


def test_only_the_config_can_be_changed_on_the_way(engine: Engine, archives: Archives, busybox_image: str) -> None:
    run(engine, "true", "c1")
    with pytest.raises(DockerfileError, match="RUN changes more than the config"):
        archives.commit(engine.container("c1"), "x", changes=("RUN true",))


def test_an_exported_container_is_imported_with_other_words(
    engine: Engine, archives: Archives, busybox_image: str, tmp_path: Path
) -> None:
    run(engine, "echo new > /new; rm /bin/ls", "c1")
    archives.export(engine.container("c1"), str(tmp_path / "out.tar")).result()
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = {each.strip("/") for each in tar.getnames()}
    assert ("new" in names, "bin/busybox" in names, "bin/ls" in names) == (True, True, False)
    image = archives.import_image(
        str(tmp_path / "out.tar"), "flat", changes=("WORKDIR /bin", "ENV X=y"), message="m"
    ).result()
    assert (image.config.working_dir, image.config.env, image.config.history[-1].comment) == ("/bin", ("X=y",), "m")


def test_an_archive_is_not_written_over_a_terminal_or_a_cell(archives: Archives, engine: Engine) -> None:
    add(engine, "one", b"x")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match="nothing to look at"):
        patch.setattr("sys.stdout", io.StringIO())
        archives.save(("one",), "-").result()


# --- others ---


def test_skopeo_and_umoci_read_what_we_save_and_we_read_theirs(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    skopeo = needs.program("skopeo", "skopeo")
    image = add(engine, "one:1", b"x" * 5000, b"y")
    out = tmp_path / "out.tar"
    archives.save(("one:1",), str(out)).result()
    forget(engine)

    def skopeo_copy(source: str, target: str) -> None:
        command = [skopeo, "--insecure-policy", "--tmpdir", str(tmp_path), "copy", "-q", source, target]
        subprocess.run(command, check=True, capture_output=True)

    skopeo_copy(f"docker-archive:{out}", f"oci:{tmp_path}/layout:one")
    skopeo_copy(f"oci-archive:{out}:1", f"oci-archive:{tmp_path}/theirs.tar:docker.io/library/theirs:2")
    skopeo_copy(f"docker-archive:{out}", f"docker-archive:{tmp_path}/docker.tar:docker.io/library/docker:3")
    archives.load(f"{tmp_path}/layout").result()
    archives.load(f"{tmp_path}/theirs.tar").result()
    archives.load(f"{tmp_path}/docker.tar").result()
    assert engine.image("theirs:2").digest == image.digest
    assert engine.image("docker:3").id == image.id


def test_our_archive_has_both_tables_of_contents(engine: Engine, archives: Archives, tmp_path: Path) -> None:
    image = add(engine, "one:1", b"x")
    archives.save(("one:1",), str(tmp_path / "out")).result()
    with tarfile.open(tmp_path / "out") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"] == ["one:1"]
    assert manifest[0]["Config"] == f"blobs/sha256/{image.id.hex}"
    assert index["manifests"][0]["annotations"] == {
        "io.containerd.image.name": "docker.io/library/one:1", "org.opencontainers.image.ref.name": "1",
    }  # fmt: skip


# --- several platforms ---


def add_index(engine: Engine, name: str, *platforms: Platform) -> ImageIndex:
    images = []
    for platform in platforms:
        image, blobs = image_of(str(platform).encode(), platform=platform)
        layer = image.layers[0].descriptor
        engine.store.blobs.put([blobs[layer.digest]], layer.media_type)
        engine.store.images.keep(image)
        images.append(image)
    index = index_of(map(entry_of, images), {"a": "b"})
    engine.store.images.put_index(index, Reference.parse(name))
    return index


@pytest.mark.parametrize("directory", [False, True])
def test_an_index_is_loaded_as_it_was_saved_or_only_what_is_asked_for(
    engine: Engine, archives: Archives, tmp_path: Path, directory: bool
) -> None:
    index = add_index(engine, "many:1", ARM, HERE, RISCV)
    name = Reference.parse("many:1")
    images = {image.config.platform: image.digest for image in engine.store.images.children(index)}
    archives.save(("many:1",), str(tmp_path / "out"), directory=directory).result()

    def loaded(*platforms: Platform, source: str = "out") -> set[tuple[Platform, Digest]]:
        forget(engine)
        archives.load(str(tmp_path / source), platforms).result()
        return {(image.config.platform, image.digest) for each, image in engine.images() if each == name}

    assert loaded() == set(images.items())
    assert engine.store.images.index(name) == index
    assert loaded(ARM) == {(ARM, images[ARM])}
    assert engine.store.images.index(name) is None
    assert loaded(RISCV, HERE) == {(HERE, images[HERE]), (RISCV, images[RISCV])}
    kept = engine.store.images.index(name)
    assert kept is not None and len(kept.entries) == 2 and kept.index.annotations == {"a": "b"}
    archives.save(("many:1",), str(tmp_path / "one"), directory=directory, platforms=(RISCV,)).result()
    assert loaded(source="one") == {(RISCV, images[RISCV])}
    with pytest.raises(NoSuchPlatform):
        loaded(Platform("linux", "s390x"))
    assert engine.images() == []


def test_an_archive_that_holds_some_images_of_its_index_gives_those(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    """As `docker save --platform` writes it."""
    index = add_index(engine, "many:1", ARM, HERE)
    archives.save(("many:1",), str(tmp_path / "out")).result()
    with tarfile.open(tmp_path / "out") as whole, tarfile.open(tmp_path / "part", "w") as part:
        for member in whole:
            if member.name != f"blobs/sha256/{index.entries[0].digest.hex}":
                part.addfile(member, whole.extractfile(member))
    forget(engine)
    [one] = archives.load(str(tmp_path / "part")).result()
    assert (one.image.digest, one.index) == (index.entries[1].digest, None)


def test_an_index_json_that_is_lost_is_made_again_with_the_indexes(engine: Engine) -> None:
    index = add_index(engine, "many:1", ARM, HERE)
    alone = add(engine, "one:1", b"x")
    engine.layout.index.unlink()
    report = engine.soundness.look(fix=True)
    assert report.left == ()
    [found] = [each for _, each in engine.store.images.indexes()]
    assert found == index
    assert {(str(name), image.digest) for name, image in engine.images() if image != alone} == {
        (f"docker.io/recovered/{index.digest.short}:latest", each.digest) for each in index.entries
    }
    assert engine.image(f"recovered/{alone.digest.short}") == alone


def test_indexes_that_name_each_other_a_thousand_times_are_read_once(archives: Archives, tmp_path: Path) -> None:
    """T10: three floors of a thousand entries would be a billion images."""
    image, blobs = image_of(b"x")
    files: dict[str, bytes | str] = {"oci-layout": OCI_LAYOUT}
    for digest, data in (*blobs.items(), (image.digest, image.raw_manifest), (image.id, image.raw_config)):
        files[f"blobs/sha256/{digest.hex}"] = data
    entry = entry_of(image)
    for _ in range(3):
        index = ImageIndex(Index((entry,) * 1000), codec.dump_index(Index((entry,) * 1000)))
        files[f"blobs/sha256/{index.digest.hex}"] = index.raw
        entry = index.descriptor
    files["index.json"] = codec.dump_index(Index((entry,) * 1000))
    before = time.monotonic()
    [loaded] = load(archives, tmp_path, packed(files))
    assert loaded.image.digest == image.digest
    assert time.monotonic() - before < 20


def test_what_a_killed_process_left_goes_with_the_next_that_succeeds(
    engine: Engine, archives: Archives, tmp_path: Path
) -> None:
    left = engine.layout.tmp / ".tmp-0123456789abcdef"
    left.parent.mkdir(0o700, exist_ok=True)
    left.write_bytes(b"x" * 1000)
    load(archives, tmp_path, packed(docker_archive(LAYER, ["it:1"])))
    assert not left.exists() and engine.soundness.look().is_clean


def test_what_is_no_archive_says_which_file_and_what_to_do(archives: Archives, tmp_path: Path) -> None:
    (tmp_path / "it.txt").write_text("some text\n" * 5)
    for attempt in (archives.load(str(tmp_path / "it.txt")), archives.import_image(str(tmp_path / "it.txt"), "it")):
        with pytest.raises(BadArchive, match="it.txt: ") as caught:
            attempt.result()
        assert "import reads" in caught.value.hint


def test_a_store_that_lost_its_list_of_images_says_what_makes_it_anew(engine: Engine) -> None:
    add(engine, "it:1", b"x")
    engine.layout.index.unlink()
    with pytest.raises(StoreError, match="list of images is gone") as caught:
        engine.images()
    assert "system check --repair" in caught.value.hint
    engine.soundness.look(fix=True)
    assert engine.images()
