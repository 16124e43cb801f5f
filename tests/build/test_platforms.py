"""Images for other platforms: built, named together by an index, run where an emulator is, explained where none is."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulators
import needs
from nbcontain.build.arguments import parse_platform
from nbcontain.build.caches import CachePlace
from nbcontain.build.named import LayoutImage
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.build.provenance import provenance_of
from nbcontain.commands import parse_words
from nbcontain.commands.inputs import BuildInputs
from nbcontain.engine import Engine
from nbcontain.errors import (
    BuildError,
    CommandNotExecutable,
    DockerfileError,
    ImageNotFound,
    NbcontainError,
    UsageError,
)
from nbcontain.events import Finished, Started
from nbcontain.linux import foreign
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions
from registry.samples import new_engine
from registry.server import Registry

HERE = Platform.here()
OTHER = Platform("linux", emulators.ARCHITECTURE)
TEXT = """\
FROM scratch
ARG TARGETPLATFORM TARGETARCH BUILDPLATFORM
COPY busybox-$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]
ENV PATH=/bin
RUN echo "$TARGETPLATFORM made on $BUILDPLATFORM" > /who
CMD ["busybox", "cat", "/who"]
"""
QEMU = """\
enabled
interpreter /usr/bin/qemu-aarch64-static
flags: OCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.fixture(scope="module")
def context(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox for this machine and for the other one."""
    directory = tmp_path_factory.mktemp("platforms")
    shutil.copy2(busybox, directory / f"busybox-{HERE.architecture}")
    emulators.foreign_program(busybox, directory / f"busybox-{OTHER.architecture}")
    return directory


@pytest.fixture(scope="module")
def emulator_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulators.built(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def emulator(emulator_program: Path) -> Iterator[None]:
    with emulators.registered(emulator_program):
        yield


def made(engine: Engine, context: Path, *platforms: Platform, text: str = TEXT, **options: object) -> Image:
    chosen = BuildOptions(
        context=context, tags=("made",), platforms=platforms, platform=platforms[0], **options  # type: ignore[arg-type]
    )  # fmt: skip
    return engine.build(text, chosen).result()


def printed(engine: Engine, *words: str) -> object:
    command, options = parse_words("", list(words))
    return command.function(engine, options)


def test_an_index_of_two_platforms_is_built_shown_run_and_saved(
    engine: Engine, context: Path, emulator: None, tmp_path: Path
) -> None:
    image = made(engine, context, HERE, OTHER)
    assert image.config.platform == HERE
    index = engine.store.images.index(Reference.parse("made"))
    assert index is not None
    assert index.platforms == (HERE, OTHER)

    def said(platform: str) -> str:
        return str(engine.run(RunOptions(image="made", platform=platform, remove=True)).result())

    assert [said(""), said(str(OTHER))] == [f"{HERE} made on {HERE}\n", f"{OTHER} made on {HERE}\n"]
    table = str(printed(engine, "images").text())  # type: ignore[attr-defined]
    assert f" {HERE} " in table and f" {OTHER} " in table
    [document] = printed(engine, "image", "inspect", "made").value  # type: ignore[attr-defined]
    assert [each["Platform"] for each in document["Manifests"]] == [str(HERE), str(OTHER)]
    assert document["Descriptor"]["digest"] == str(index.digest)

    engine.archives.save(["made"], str(tmp_path / "made.tar")).result()
    skopeo = needs.program("skopeo")
    source = f"oci-archive:{tmp_path / 'made.tar'}"
    raw = subprocess.run([skopeo, "inspect", "--raw", source], capture_output=True, check=True).stdout
    assert raw == index.raw
    chosen = [skopeo, "--override-arch", OTHER.architecture, "inspect", "--config", source]
    config = json.loads(subprocess.run(chosen, capture_output=True, check=True).stdout)
    assert config["architecture"] == OTHER.architecture


def test_an_index_survives_prune_and_goes_as_a_whole(engine: Engine, context: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /bin/busybox\n"
    made(engine, context, HERE, OTHER, text=text)
    engine.prune()
    assert [engine.store.images.get(Reference.parse("made"), each).config.platform for each in (HERE, OTHER)] == [
        HERE,
        OTHER,
    ]
    assert [str(each) for _, each in engine.images()] != []
    engine.tag("made", "also")
    engine.remove_image("made")
    assert [str(name) for name, _ in engine.images()] == ["docker.io/library/also:latest"] * 2
    engine.remove_image("also")
    engine.prune()
    assert engine.images() == []
    assert engine.store.images.indexes() == []


def test_a_step_for_a_platform_without_an_emulator_says_what_is_missing(engine: Engine, context: Path) -> None:
    with pytest.raises(BuildError, match=f"programs for {OTHER} do not run on this machine") as caught:
        made(engine, context, OTHER)
    assert "qemu-user-static" in caught.value.hint
    text = "FROM scratch\nCOPY busybox-loong64 /bin/busybox\n"
    made(engine, context, OTHER, text=text)
    with pytest.raises(CommandNotExecutable, match="do not run on this machine"):
        engine.run(RunOptions(image="made", command=("/bin/busybox",))).result()
    assert engine.containers() == []


def test_from_with_another_platform_takes_the_image_that_is_for_it(engine: Engine, context: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /busybox\n"
    made(engine, context, HERE, OTHER, text=text)
    both = "FROM --platform=$BUILDPLATFORM made AS tools\nFROM made\nCOPY --from=tools /busybox /own\n"
    image = made(engine, context, OTHER, text=both.replace("made", "made:latest"), outputs=())
    assert image.config.platform == OTHER
    with pytest.raises(ImageNotFound):
        engine.store.images.get(Reference.parse("made"), Platform("linux", "s390x"))


def test_no_image_is_taken_for_a_platform_that_it_is_not_for(engine: Engine, context: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /busybox\n"
    made(engine, context, HERE, text=text)
    for name in ("made", "host"):
        with pytest.raises(DockerfileError, match="for linux/sparc9"):
            engine.build(f"FROM --platform=linux/sparc9 {name}\nENV A=b\n", BuildOptions(pull="never")).result()


def test_a_platform_named_twice_is_one() -> None:
    """testDuplicatePlatformProvenance"""
    command, options = parse_words("", ["build", "--platform", f"{HERE},{HERE}", "--platform", str(HERE), "."])
    built = options.build_options(BuildInputs("FROM scratch", None))  # type: ignore[attr-defined]
    assert built.platforms == (HERE,)


@pytest.mark.parametrize("kind", ["image", "layout"])
def test_a_context_by_name_is_taken_for_each_platform(
    engine: Engine, context: Path, tmp_path: Path, kind: str
) -> None:
    """testNamedImageContextPlatform"""
    made(engine, context, HERE, OTHER, text="FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /busybox\n")
    text = "FROM base\nENV A=b\n"
    if kind == "image":
        base: object = Reference.parse("made")
    else:
        engine.archives.save(["made"], str(tmp_path / "layout"), directory=True).result()
        base = LayoutImage(tmp_path / "layout")
        alone = made(engine, context, OTHER, text=text, contexts={"base": base})
        assert alone.config.platform == OTHER
    made(engine, context, HERE, OTHER, text=text, contexts={"base": base})
    index = engine.store.images.index(Reference.parse("made"))
    assert index is not None and index.platforms == (HERE, OTHER)
    children = [engine.store.images.child(entry) for entry in index.entries]
    assert [each and (each.config.platform, each.config.env[-1]) for each in children] == [
        (HERE, "A=b"), (OTHER, "A=b"),
    ]  # fmt: skip


def test_a_cache_holds_the_steps_of_all_platforms(engine: Engine, context: Path, root: Path, tmp_path: Path) -> None:
    """testImageManifestCacheImportExport, testCacheMultiPlatformImportExport"""
    registry = Registry()
    try:
        ref = f"{registry.host}/team/cache:1"
        places = (f"type=registry,ref={ref},mode=max", "type=inline")
        to, inline = (CachePlace.parse(text, "--cache-to") for text in places)
        first = made(engine, context, HERE, OTHER, text=PLAIN, cache_to=(to, inline))
        name = f"{registry.host}/team/app:1"
        engine.tag("made", name)
        engine.registry.push(name).result()
        for number, source in enumerate((ref, name)):
            with new_engine(root / f"another{number}", tmp_path) as another:
                options = BuildOptions(
                    context=context, platforms=(HERE, OTHER), platform=HERE,
                    cache_from=(CachePlace.parse(source, "--cache-from"),),
                )  # fmt: skip
                task = another.build(PLAIN, options)
                assert task.result().layers == first.layers
                events = [each.event for each in task.journal.read()]
                copies = {each.task for each in events if isinstance(each, Started) and " COPY " in each.name}
                ends = {each.task: each.outcome for each in events if isinstance(each, Finished)}
                assert [ends[each] for each in copies] == ["cached", "cached"], source
    finally:
        registry.close()


def test_the_same_step_for_another_platform_is_another_step(engine: Engine, context: Path, emulator: None) -> None:
    """On scratch nothing else tells the two apart."""
    text = f'FROM scratch\nCOPY . /\nRUN ["/busybox-{HERE.architecture}", "touch", "/x"]\n'
    made(engine, context, HERE, text=text)
    task = engine.build(text, BuildOptions(context=context, platforms=(OTHER,), platform=OTHER))
    task.result()
    assert [each.outcome for each in task.report.steps][-1] == "done"


def test_what_binfmt_misc_says_is_read() -> None:
    qemu = foreign.parse("qemu-aarch64", QEMU)
    assert qemu.takes("arm64") and not qemu.takes("riscv64") and not qemu.takes("no-such")
    assert (qemu.is_enabled, qemu.flags, qemu.interpreter) == (True, "OCF", "/usr/bin/qemu-aarch64-static")


@pytest.mark.parametrize(
    ("emulators_", "why"),
    [
        (None, "not mounted"),
        ((), "no emulator is registered for arm64"),
        ((foreign.parse("q", QEMU.replace("enabled", "disabled")),), "disabled"),
        ((foreign.parse("q", QEMU.replace("OCF", "OC")),), "without flag F"),
    ],
)
def test_why_a_foreign_program_does_not_run_is_told(emulators_: tuple[foreign.Emulator, ...] | None, why: str) -> None:
    assert why in foreign.explained("arm64", emulators_)[0]


@pytest.mark.parametrize(
    "text", ["", "enabled", "enabled\nmagic zz", "enabled\noffset x", "\x00\xff", "disabled\nflags:"]
)
def test_no_text_of_binfmt_misc_is_a_crash(text: str) -> None:
    try:
        foreign.parse("x", text).takes("arm64")
    except ValueError:
        return


def test_a_platform_may_be_said_in_other_words() -> None:
    assert [str(parse_platform(each)) for each in ("x86_64", "linux/aarch64", "arm", "linux/arm64/v8")] == [
        "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm64",
    ]  # fmt: skip


# --- what several platforms are handed out as -------------------------------------------------

PLAIN = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /bin/program\n"


def outputs_of(*words: str) -> tuple[Output, ...]:
    return tuple(map(Output.parse, words))


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {each.name: file.read() if (file := archive.extractfile(each)) else b"" for each in archive}


def test_archives_of_several_platforms_hold_the_index_and_what_is_said_of_each_image(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    """testExportMultiPlatform, testMultiPlatformProvenance"""
    made(
        engine, context, HERE, OTHER, text=PLAIN, provenance=provenance_of("mode=max", ()),
        annotations=("index:a=b", f"manifest-descriptor[{OTHER}]:c=d", "e=f"),
        outputs=outputs_of(f"type=oci,dest={tmp_path / 'oci.tar'}", f"type=docker,dest={tmp_path / 'docker.tar'}"),
        metadata_file=str(tmp_path / "told.json"), id_file=str(tmp_path / "id"),
    )  # fmt: skip
    held = members(tmp_path / "oci.tar")
    [entry] = json.loads(held["index.json"])["manifests"]
    index = json.loads(held["blobs/" + entry["digest"].replace(":", "/")])
    images, said = index["manifests"][:2], index["manifests"][2:]
    assert [each["platform"]["architecture"] for each in index["manifests"]] == [
        HERE.architecture, OTHER.architecture, "unknown", "unknown",
    ]  # fmt: skip
    assert index["annotations"] == {"a": "b"}
    assert ["annotations" in each for each in images] == [False, True]
    for image, statement in zip(images, said, strict=True):
        assert statement["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        manifest = json.loads(held["blobs/" + statement["digest"].replace(":", "/")])
        [layer] = manifest["layers"]
        document = json.loads(held["blobs/" + layer["digest"].replace(":", "/")])
        assert document["subject"][0]["digest"]["sha256"] == image["digest"].removeprefix("sha256:")
        assert image["platform"]["architecture"] in document["subject"][0]["name"]
        assert json.loads(held["blobs/" + image["digest"].replace(":", "/")])["annotations"] == {"e": "f"}
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["containerimage.digest"] == entry["digest"] == (tmp_path / "id").read_text()
    assert {f"buildx.build.provenance/{each}" for each in (HERE, OTHER)} < set(told)
    # The archive for docker has the index of the images alone, which is that of the store.
    index_here = engine.store.images.index(Reference.parse("made"))
    assert index_here is not None
    held = members(tmp_path / "docker.tar")
    assert json.loads(held["index.json"])["manifests"][0]["digest"] == str(index_here.digest)
    assert [each["RepoTags"] for each in json.loads(held["manifest.json"])] == [["made:latest"], None]
    skopeo = needs.program("skopeo")
    for platform in (HERE, OTHER):
        words = [skopeo, "--override-arch", platform.architecture, "inspect", "--config"]
        seen = subprocess.run([*words, f"oci-archive:{tmp_path / 'oci.tar'}"], capture_output=True, check=True).stdout
        assert json.loads(seen)["architecture"] == platform.architecture


def test_files_of_several_platforms_are_kept_apart(engine: Engine, context: Path, tmp_path: Path) -> None:
    """testTarExporterMulti, testProvenanceExportLocalMultiPlatform"""
    made(
        engine, context, HERE, OTHER, text=PLAIN, provenance=provenance_of("true", ()),
        outputs=outputs_of(f"type=tar,dest={tmp_path / 'files.tar'}", str(tmp_path / "files")),
    )  # fmt: skip
    held = members(tmp_path / "files.tar")
    for platform in (HERE, OTHER):
        place = str(platform).replace("/", "_")
        program = (context / f"busybox-{platform.architecture}").read_bytes()
        assert held[f"{place}/bin/program"] == program == (tmp_path / "files" / place / "bin/program").read_bytes()
        assert f"{place}/provenance.json" in held
        assert (tmp_path / "files" / place / "provenance.json").exists()


def test_files_of_several_platforms_go_together_only_where_none_is_lost(
    engine: Engine, context: Path, tmp_path: Path
) -> None:
    """testProvenanceExportLocalMultiPlatformNoSplit, testProvenanceExportLocalForceSplit, testProvenanceExportLocal"""
    together = outputs_of(f"type=local,dest={tmp_path / 'files'},platform-split=false")
    with pytest.raises(BuildError, match="bin/program of .* would overwrite"):
        made(engine, context, HERE, OTHER, text=PLAIN, outputs=together)
    assert not (tmp_path / "files").exists()
    text = "FROM scratch\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /bin/\n"
    made(engine, context, HERE, OTHER, text=text, provenance=provenance_of("true", ()), outputs=together)
    assert {each.name for each in (tmp_path / "files").iterdir()} == {
        "bin", *(f"provenance.{str(each).replace('/', '_')}.json" for each in (HERE, OTHER)),
    }  # fmt: skip
    assert len(list((tmp_path / "files/bin").iterdir())) == 2
    made(engine, context, HERE, text=text, outputs=outputs_of(f"type=local,dest={tmp_path / 'one'},platform-split=1"))
    assert [each.name for each in (tmp_path / "one").iterdir()] == [str(HERE).replace("/", "_")]


def test_an_index_is_pushed_with_what_is_said_of_its_images(engine: Engine, context: Path) -> None:
    registry = Registry()
    try:
        name = f"{registry.host}/team/app:1"
        made(
            engine, context, HERE, OTHER, text=PLAIN, provenance=provenance_of("true", ()),
            outputs=outputs_of(f"type=image,name={name},push=true"),
        )  # fmt: skip
        index = json.loads(registry.manifests["team/app", "1"][1])
        assert len(index["manifests"]) == 4
        for entry in index["manifests"]:
            manifest = json.loads(registry.manifests["team/app", entry["digest"]][1])
            for blob in (manifest["config"], *manifest["layers"]):
                assert blob["digest"] in registry.blobs
    finally:
        registry.close()


def test_one_platforms_image_is_inspected_and_imported(engine: Engine, context: Path, tmp_path: Path) -> None:
    made(engine, context, HERE, OTHER, text=PLAIN)
    [document] = printed(engine, "image", "inspect", "--platform", str(OTHER), "made").value  # type: ignore[attr-defined]
    assert document["Architecture"] == OTHER.architecture
    assert "COPY" in str(printed(engine, "history", "--platform", str(OTHER), "made"))
    for words in (("image", "inspect"), ("history",)):
        with pytest.raises(NbcontainError, match="s390x"):
            printed(engine, *words, "--platform", "s390x", "made")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    printed(engine, "import", "--platform", str(OTHER), str(tmp_path / "tree"), "alone").task.result()  # type: ignore[attr-defined]
    assert engine.image("alone").config.platform == OTHER
    with pytest.raises(NbcontainError, match=f"for {HERE}"):
        printed(engine, "image", "inspect", "--platform", str(HERE), "alone")


def test_what_docker_builds_were_once_told_does_nothing(engine: Engine, context: Path) -> None:
    """Scripts say `docker build --rm`; buildx takes these and does nothing either."""
    for words in (("--rm",), ("--rm=false", "--force-rm"), ("--compress",)):
        parse_words("", ["build", *words, "."])
    with pytest.raises(UsageError, match="squash"):
        parse_words("", ["build", "--squash", "."])
