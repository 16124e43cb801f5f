"""Images for other platforms: built, named together by an index, run where an emulator is, explained where none is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulators
import needs
from nbcontain.build.arguments import parse_platform
from nbcontain.build.plan import BuildOptions
from nbcontain.commands import parse_words
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, CommandNotExecutable, ImageNotFound
from nbcontain.linux import foreign
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions

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
