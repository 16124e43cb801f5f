"""What a build hands out, builds that give the same bytes anywhere, and what the build cache keeps."""

from __future__ import annotations

import json
import os
import tarfile
import time
from pathlib import Path

import pytest

from images import BUSYBOX
from nbcontain.__main__ import main
from nbcontain.build.caches import CachePlace
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BadReference, UsageError
from nbcontain.oci.image import Image

TEXT = 'FROM busybox\nRUN mkdir /d && echo x > /d/x && chmod 640 /d/x && ln -s x /d/l\nENTRYPOINT ["sh"]\n'


def build(engine: Engine, text: str, **options: object) -> Image:
    return engine.build(text, BuildOptions(**options)).result()  # type: ignore[arg-type]


def test_the_files_of_an_image_go_to_a_directory(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    build(engine, TEXT, outputs=(Output.parse(f"type=local,dest={tmp_path / 'out'}"),))
    assert (tmp_path / "out/d/x").read_text() == "x\n"
    assert (tmp_path / "out/d/x").stat().st_mode & 0o777 == 0o640
    assert os.readlink(tmp_path / "out/d/l") == "x"
    assert (tmp_path / "out/bin/busybox").stat().st_mode & 0o111


def test_a_file_in_a_directory_makes_nobody_who_has_built_it(
    engine: Engine, busybox_image: str, tmp_path: Path
) -> None:
    """It is this user's, and no longer whose it is in the image."""
    text = "FROM busybox\nRUN cp /bin/busybox /s && chmod 6755 /s && ln /s /t && mkdir -m 3777 /d\n"
    build(engine, text, outputs=(Output.parse(f"type=local,dest={tmp_path}"),))
    assert [(tmp_path / name).stat().st_mode & 0o7777 for name in ("s", "t", "d")] == [0o755, 0o755, 0o3777]


def test_the_files_of_an_image_go_to_a_tar(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    build(engine, TEXT, outputs=(Output.parse(f"type=tar,dest={tmp_path / 'out.tar'}"),))
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert {"d", "d/x", "d/l", "bin/busybox"} <= set(archive.getnames())


def test_a_symlink_in_the_output_directory_is_not_followed(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "outside")
    with pytest.raises(Exception, match="cannot be made"):
        build(engine, TEXT, outputs=(Output.parse(str(tmp_path / "out")),))
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("is_all", [False, True])
def test_layers_are_compressed_as_an_output_says(
    engine: Engine, busybox_image: str, tmp_path: Path, is_all: bool
) -> None:
    """Those that were made, as with buildx; its base's too where that is said. In the store as in the archive."""
    words = f"type=oci,dest={tmp_path / 'out.tar'},compression=zstd,compression-level=1,force-compression={is_all}"
    base = engine.image("busybox")
    plain = build(engine, TEXT)
    image = build(engine, TEXT, tags=("app:1",), outputs=(Output.parse(words),))
    kinds = [each.media_type.rpartition("+")[2] for each in image.manifest.layers]
    assert kinds == ["zstd" if is_all else "gzip"] * len(base.layers) + ["zstd"]
    assert image.id == plain.id and engine.image("app:1") == image
    engine.remove_image("app:1", force=True)
    [loaded] = engine.archives.load(str(tmp_path / "out.tar")).result()
    assert loaded.image == image
    # Steps are in the cache as ever, and what is built of them next is gzip.
    assert build(engine, TEXT).manifest == plain.manifest
    assert engine.soundness.look(full=True).is_clean


def test_one_build_has_one_compression(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    outputs = [Output.parse(f"type=oci,dest={tmp_path / name},compression={name}") for name in ("zstd", "gzip")]
    with pytest.raises(UsageError, match="one compression"):
        build(engine, TEXT, outputs=tuple(outputs))
    assert list(tmp_path.glob("zstd")) == []


def test_id_and_metadata_are_written_as_buildx_names_them(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    image = build(
        engine, TEXT, tags=("one", "two:2"), annotations=("a=b",), id_file=str(tmp_path / "id"),
        metadata_file=str(tmp_path / "m.json"),
    )  # fmt: skip
    assert (tmp_path / "id").read_text() == str(image.id)
    metadata = json.loads((tmp_path / "m.json").read_text())
    assert metadata["containerimage.digest"] == str(image.digest)
    assert metadata["containerimage.config.digest"] == str(image.id)
    assert metadata["image.name"] == "docker.io/library/one:latest,docker.io/library/two:2"
    assert engine.image("two:2").manifest.annotations["a"] == "b"


def test_two_builds_in_two_places_give_the_same_bytes(root: Path, busybox_context: Path, tmp_path: Path) -> None:
    text = BUSYBOX + "COPY tree /tree\nRUN mkdir /made && date +%N > /dev/null && echo x > /made/x && touch /made/y\n"
    digests: list[tuple[str, str]] = []
    places = ((("b", "a", "c"), "overlay", 0o022), (("c", "b", "a"), "overlay", 0o077), (("a", "c", "b"), "copy", 0))
    for number, (names, driver, umask) in enumerate(places):
        context = tmp_path / str(number)
        before = os.umask(umask)
        try:
            (context / "tree").mkdir(parents=True)
            for name in names:
                (context / "tree" / name).write_text(name)
        finally:
            os.umask(before)
        for path in (context, context / "tree", *(context / "tree").iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (context / "busybox").write_bytes((busybox_context / "busybox").read_bytes())
        (context / "busybox").chmod(0o755)
        environ = {
            "SOURCE_DATE_EPOCH": "1700000000", "PATH": os.environ["PATH"], "NBCONTAIN_STORAGE_DRIVER": driver,
        }  # fmt: skip
        with Engine(root / str(number), environ) as engine:
            image = build(engine, text, context=context, tags=("same",))
            digests.append((_members(engine, image), str(image.digest)))
            assert image.config.created == "2023-11-14T22:13:20Z"
            assert {entry.created for entry in image.config.history} == {image.config.created}
            # Nothing is written in the background any more.
            engine.store.close()
            for each in engine.store.snapshotters:
                each.remove_tree(each.shelf.root)
        time.sleep(1.1)
    # What differs, and not only that something does.
    assert digests == digests[:1] * 3


def _members(engine: Engine, image: Image) -> str:
    """A line for each member of its layers."""
    lines = []
    for layer in image.manifest.layers:
        with tarfile.open(engine.store.blobs.path(layer.digest)) as tar:
            lines += [f"{each.mode:o} {each.mtime} {each.size} {each.pax_headers} {each.name}" for each in tar]
    return "\n".join(lines)


def test_an_epoch_that_is_no_number_is_refused(engine: Engine) -> None:
    with pytest.raises(UsageError):
        build(engine, "FROM scratch", build_args=("SOURCE_DATE_EPOCH=yesterday",))


def test_builder_du_lists_and_prune_forgets(engine: Engine, busybox_image: str) -> None:
    build(engine, TEXT)
    assert any(each.created_by.startswith("RUN mkdir /d") for each in engine.builder.usage())
    engine.builder.prune(3600)
    assert engine.builder.usage()
    engine.builder.prune(0)
    assert engine.builder.usage() == []
    assert list(engine.store.builds.walk()) == []
    task = engine.build(TEXT)
    task.result()
    assert [each.outcome for each in task.report.steps if each.name.startswith("RUN")] == ["done"]


def test_prune_keeps_the_youngest_that_fit(engine: Engine, busybox_image: str) -> None:
    build(engine, TEXT)
    engine.builder.prune(0, 1 << 40)
    assert engine.builder.usage()


def test_a_cache_is_carried_to_another_store(root: Path, busybox_context: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    text = BUSYBOX + "RUN date +%N > /when\n"
    to = (CachePlace.parse(f"type=local,dest={place},mode=max", "--cache-to"),)
    with Engine(root / "one") as engine:
        first = build(engine, text, context=busybox_context, cache_to=to)
    come = (CachePlace.parse(f"type=local,src={place}", "--cache-from"),)
    with Engine(root / "two") as engine:
        task = engine.build(text, BuildOptions(context=busybox_context, cache_from=come))
        assert task.result().layers == first.layers
        assert {each.outcome for each in task.report.steps if each.name[:4] in ("COPY", "RUN ")} == {"cached"}
    for blob in (place / "blobs/sha256").iterdir():
        blob.write_bytes(bytes(blob.stat().st_size))
    with Engine(root / "three") as engine:
        task = engine.build(text, BuildOptions(context=busybox_context, cache_from=come))
        assert task.result().layers
        assert {each.outcome for each in task.report.steps if each.name[:4] in ("COPY", "RUN ")} == {"done"}


@pytest.mark.parametrize(
    "text", ["type=gha", "type=inline", "type=registry", "type=local", "type=local,src=x,y=z", "A B"]
)
def test_other_caches_are_refused_by_name(text: str) -> None:
    with pytest.raises((UsageError, BadReference)):
        CachePlace.parse(text, "--cache-from")


def test_the_terminal_knows_the_flags(
    engine: Engine, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY a /a\n")
    (tmp_path / "a").write_text("x\n")
    out = tmp_path / "out"
    words = ["build", "-q", "-t", "here", "--no-cache-filter", "0", "-o", str(out), "--iidfile", str(tmp_path / "id")]
    assert main([*words, str(tmp_path)]) == 0
    assert (out / "a").read_text() == "x\n"
    assert (tmp_path / "id").read_text() == str(engine.image("here").id)
    assert main(["builder", "du"]) == 0
    assert "COPY a /a" in capfd.readouterr().out
    assert main(["builder", "prune", "-a", "--filter", "until=1h"]) == 0


def test_progress_can_be_events_or_nothing(
    engine: Engine, busybox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    assert main(["build", "--progress", "rawjson", str(tmp_path)]) == 0
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {"started", "finished"} <= {each["kind"] for each in events}
    assert main(["build", "--progress=quiet", str(tmp_path)]) == 0
    assert capfd.readouterr().err == ""
    assert main(["build", "--progress", "loud", str(tmp_path)]) == 1
