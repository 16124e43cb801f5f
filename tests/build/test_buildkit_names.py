"""What BuildKit's integration tests name and a case of tests/conformance cannot show: several builds, flags, servers.

Each test says in its docstring which of those names it shows; suites.txt sends them here.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.__main__ import main
from nbcontain.build.caches import CachePlace
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, DockerfileError, NbcontainError, UsageError
from nbcontain.events import Started
from nbcontain.oci.image import Image
from servers import Server, serving

THEN_S = 1_700_000_402


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def box(engine: Engine, busybox_context: Path) -> Machine:
    return Machine(engine, busybox_context)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def built(engine: Engine, text: str, context: Path | None = None, **options: object) -> Image:
    chosen = BuildOptions(context=context, tags=("made",), **options)  # type: ignore[arg-type]
    return engine.build(text, chosen).result()


def outcomes(engine: Engine, text: str, context: Path) -> dict[str, str]:
    """By the first words of each step, whether it was done or cached."""
    task = engine.build(text, BuildOptions(context=context))
    task.result()
    return {each.name: each.outcome for each in task.report.steps}


# --- the Dockerfile's file, and what lies beside it -------------------------------------------


@pytest.fixture
def terminal(box: Machine, context: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(box.engine.layout.root))
    for name in ("foo", "bar"):
        (context / name).write_text(f"{name}\n")
    return box


def test_an_ignore_file_beside_the_dockerfile_counts_for_it_alone(terminal: Machine, context: Path) -> None:
    """testDockerignoreOverride"""
    (context / "Dockerfile").write_text("FROM box\nCOPY . /d\n")
    (context / "other.Dockerfile").write_text("FROM box\nCOPY . /d\n")
    (context / ".dockerignore").write_text("foo\n*ocker*\n")
    (context / "other.Dockerfile.dockerignore").write_text("bar\n*ocker*\n")
    assert main(["build", "-q", "-t", "own", str(context)]) == 0
    assert main(["build", "-q", "-t", "other", "-f", str(context / "other.Dockerfile"), str(context)]) == 0
    assert terminal.sh("ls /d", image="own") == "bar\n"
    assert terminal.sh("ls /d", image="other") == "foo\n"


def test_a_bad_ignore_file_beside_the_dockerfile_is_called_by_its_name(
    terminal: Machine, context: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (context / "Dockerfile").write_text("FROM box\nCOPY foo /d\n")
    (context / "Dockerfile.dockerignore").write_text("foo\n")
    assert main(["build", str(context)]) == 1
    assert "line 1 of Dockerfile.dockerignore" in capfd.readouterr().err
    (context / "Dockerfile.dockerignore").write_text("\n!\n")
    assert main(["build", str(context)]) != 0
    assert "line 2 of Dockerfile.dockerignore" in capfd.readouterr().err


def test_the_dockerfile_may_be_a_symlink(terminal: Machine, context: Path) -> None:
    """testSymlinkedDockerfile"""
    (context / "Dockerfile.web").write_text("FROM box\nENV foo=bar\n")
    (context / "Dockerfile").symlink_to("Dockerfile.web")
    assert main(["build", "-q", "-t", "linked", str(context)]) == 0
    assert "foo=bar" in terminal.engine.image("linked").config.env


def test_the_dockerfile_may_lie_in_a_directory_of_the_context(terminal: Machine, context: Path) -> None:
    """dockerfile-in-subdirectory (buildah)"""
    (context / "sub").mkdir()
    (context / "sub" / "Dockerfile").write_text("FROM box\nCOPY foo /\n")
    assert main(["build", "-q", "-t", "below", "-f", str(context / "sub" / "Dockerfile"), str(context)]) == 0
    assert terminal.sh("cat /foo", image="below") == "foo\n"


def test_the_dockerfile_may_be_called_dockerfile(terminal: Machine, context: Path) -> None:
    """testDockerfileLowercase"""
    (context / "dockerfile").write_text("FROM box\nENV foo=bar\n")
    assert main(["build", "-q", "-t", "small", str(context)]) == 0
    assert "foo=bar" in terminal.engine.image("small").config.env


def test_a_dockerfile_that_is_too_large_is_refused_wherever_it_lies(
    terminal: Machine, context: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """testDockerfileTooLarge"""
    for name in ("Dockerfile", "other"):
        (context / name).write_text("FROM scratch\n")
        os.truncate(context / name, 17 << 20)
    for words in ([str(context)], ["-f", str(context / "other"), str(context)]):
        assert main(["build", *words]) != 0
        assert "is larger than 16 MiB" in capfd.readouterr().err


# --- what is cached ---------------------------------------------------------------------------


def test_a_directory_of_the_context_that_became_a_file_is_copied_as_one(box: Machine, context: Path) -> None:
    """testContextChangeDirToFile"""
    text = "FROM box\nCOPY foo /d/\n"
    (context / "foo").mkdir()
    (context / "foo" / "bar").write_text("contents")
    built(box.engine, text, context)
    (context / "foo" / "bar").unlink()
    (context / "foo").rmdir()
    (context / "foo").write_text("contents2")
    built(box.engine, text, context)
    assert box.sh("cat /d/foo", image="made") == "contents2"


def test_a_copy_by_pattern_depends_on_what_it_matches_and_on_nothing_else(box: Machine, context: Path) -> None:
    """testCopyWildcardCache"""
    for name in ("foo1", "foo2", "bar"):
        (context / name).write_text(name)
    text = "FROM box\nCOPY foo* /d/\n"
    assert outcomes(box.engine, text, context)["COPY foo* /d/"] == "done"
    (context / "bar").write_text("another")
    assert outcomes(box.engine, text, context)["COPY foo* /d/"] == "cached"
    (context / "foo1").write_text("another")
    assert outcomes(box.engine, text, context)["COPY foo* /d/"] == "done"


def test_a_file_that_got_another_name_is_copied_under_that(box: Machine, context: Path) -> None:
    """testWildcardRenameCache"""
    (context / "file1").write_text("foo")
    text = "FROM box\nRUN mkdir /files\nCOPY file* /files/\n"
    built(box.engine, text, context)
    (context / "file1").rename(context / "file2")
    built(box.engine, text + "RUN ls /files/file2\n", context)
    assert box.sh("ls /files", image="made") == "file2\n"


def test_a_context_in_a_place_with_a_name_of_any_script_is_read(box: Machine, tmp_path: Path) -> None:
    """testLocalUnicodeSharedKey"""
    place = tmp_path / "gömütlich-語"
    place.mkdir()
    (place / "file").write_text("x\n")
    built(box.engine, "FROM box\nCOPY file /\n", place)
    assert box.sh("cat /file", image="made") == "x\n"


def test_nothing_is_held_when_a_build_is_over_and_its_cache_forgotten(box: Machine, context: Path) -> None:
    """testCacheReleased"""
    (context / "foo").write_text("foo0")
    built(box.engine, "FROM box\nRUN echo data > /x\nCOPY foo /\n", context)
    assert box.engine.builder.usage()
    box.engine.remove_image("made")
    box.engine.remove_image("box")
    box.engine.builder.prune(0)
    assert box.engine.builder.usage() == []
    layout = box.engine.store.layout
    left = [each for place in (layout.snapshots, layout.blobs, layout.tmp) for each in place.rglob("*")]
    assert [each.name for each in left if each not in (layout.actives, layout.blobs / "sha256")] == []


def test_a_cache_mount_outlives_no_cache(box: Machine, context: Path) -> None:
    """testCacheMountModeNoCache"""
    text = "FROM box\nRUN --mount=type=cache,target=/c,mode=0773 stat -c %a /c >> /seen; "
    text += "date >> /c/n; wc -l < /c/n >> /seen\n"
    built(box.engine, text, context)
    assert box.sh("cat /seen", image="made").split() == ["773", "1"]
    built(box.engine, text, context, no_cache=True)
    assert box.sh("cat /seen", image="made").split() == ["773", "2"]


# --- archives in and out, and caches elsewhere ------------------------------------------------


def test_a_context_can_be_an_archive_with_its_dockerfile_or_without(
    terminal: Machine, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """testTarContext, testTarContextExternalDockerfile"""
    text = "FROM box\nCOPY foo /\n"
    (tmp_path / "whole.tar").write_bytes(archive(THEN_S, foo="contents", Dockerfile=text))
    (tmp_path / "files.tar").write_bytes(archive(THEN_S, foo="contents2"))
    (tmp_path / "another").write_text(text)
    assert main(["build", "-q", "-t", "whole", str(tmp_path / "whole.tar")]) == 0
    assert main(["build", "-q", "-t", "files", "-f", str(tmp_path / "another"), str(tmp_path / "files.tar")]) == 0
    assert [terminal.sh("cat /foo", image=name) for name in ("whole", "files")] == ["contents", "contents2"]


def test_the_files_of_an_image_come_out_as_an_archive(terminal: Machine, context: Path, tmp_path: Path) -> None:
    """testTarExporterBasic"""
    (context / "Dockerfile").write_text("FROM box AS stage1\nRUN mkdir /d && echo x > /d/foo\nFROM scratch\n"
                                        "COPY --from=stage1 /d /\n")  # fmt: skip
    assert main(["build", "-q", "-o", f"type=tar,dest={tmp_path / 'out.tar'}", str(context)]) == 0
    with tarfile.open(tmp_path / "out.tar") as tar:
        stream = tar.extractfile("foo")
        assert tar.getnames() == ["foo"] and stream is not None and stream.read() == b"x\n"


def test_results_come_from_a_cache_that_was_exported_and_can_go_back_there(
    root: Path, busybox_context: Path, tmp_path: Path
) -> None:
    """testCacheImportExport, testExportCacheLoop"""
    place = f"{tmp_path / 'cache'}"
    text = 'FROM scratch AS one\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "touch", "/made"]\n'
    text += "FROM scratch\nCOPY --from=one /made /s\nCOPY busybox /b\n"
    seen: list[dict[str, str]] = []
    for number in range(3):
        with Engine(root / str(number)) as engine:
            come = (CachePlace.parse(f"type=local,src={place}", "--cache-from"),) if number else ()
            to = (CachePlace.parse(f"type=local,dest={place},mode=max", "--cache-to"),)
            task = engine.build(text, BuildOptions(context=busybox_context, cache_from=come, cache_to=to))
            task.result()
            seen.append({each.name: each.outcome for each in task.report.steps if not each.name.startswith("FROM")})
    assert set(seen[0].values()) == {"done"}
    assert set(seen[1].values()) == set(seen[2].values()) == {"cached"}


# --- what is told of a build ------------------------------------------------------------------


def test_steps_are_called_by_their_stage_and_their_words(box: Machine, context: Path) -> None:
    """testStepNames, testCommandSourceMapping"""
    text = (
        'FROM box AS base\nWORKDIR /out\nRUN echo "base" > \\\n  base\n\nFROM scratch\n'
        "COPY --from=base --chmod=0644 /out /out\n"
    )
    task = box.engine.build(text, BuildOptions(context=context))
    task.result()
    told = {
        record.event.name: (record.event.span.first, record.event.span.last)
        for record in task.journal.read()
        if isinstance(record.event, Started) and record.event.span
    }
    assert told == {
        "FROM box AS base": (1, 1), "WORKDIR /out": (2, 2), 'RUN echo "base" > base': (3, 4), "FROM scratch": (6, 6),
        "COPY --from=base --chmod=0644 /out /out": (7, 7),
    }  # fmt: skip
    assert [(each.number, each.stage) for each in task.report.steps] == [
        (1, "base"), (2, "base"), (3, "base"), (4, "1"), (5, "1"),
    ]  # fmt: skip


def test_a_failed_build_is_remembered_with_its_step(box: Machine, context: Path) -> None:
    """testHistoryError"""
    with pytest.raises(BuildError) as caught:
        built(box.engine, "FROM box\nCOPY notexist /foo\n", context)
    assert "notexist" in str(caught.value) and caught.value.span is not None and caught.value.span.first == 2
    with pytest.raises(NbcontainError):
        built(box.engine, "FROM box\nRUN true\nRUN exit 3\n", context)
    record = box.engine.store.builds.get("made:latest")
    assert record is not None and [(each.number, each.outcome) for each in record.states][-1] == (3, "failed")


# --- ADD --------------------------------------------------------------------------------------


def test_a_mode_can_be_given_to_what_a_url_has(box: Machine, server: Server, context: Path) -> None:
    """testAddURLChmod"""
    server.put("/foo", b"content1")
    text = f"FROM box\nADD --chmod=644 {server.url}/foo /a\nADD --chmod=755 {server.url}/foo /b\n"
    text += f"ADD --chmod=0413 {server.url}/foo /c\nADD {server.url}/foo /d\n"
    built(box.engine, text, context)
    assert box.sh("stat -c %a /a /b /c /d", image="made").split() == ["644", "755", "413", "600"]


# --- SOURCE_DATE_EPOCH ------------------------------------------------------------------------


def dated(image: Image) -> set[int]:
    """When an image says that it and its own history were made, in seconds since 1970."""
    from datetime import datetime

    times = {image.config.created, *(entry.created for entry in image.config.history)}
    return {int(datetime.fromisoformat(each).timestamp()) for each in times}


def archive(modified_s: int, **members: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(text), modified_s
            tar.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


SCRATCH = "FROM scratch\nENTRYPOINT foo bar\nCOPY Dockerfile .\n"


@pytest.fixture
def files(context: Path) -> Path:
    (context / "Dockerfile").write_text("any\n")
    return context


def test_an_epoch_is_the_time_of_the_config_and_of_all_its_history(engine: Engine, files: Path) -> None:
    """testSourceDateEpochWithoutExporter"""
    assert dated(built(engine, SCRATCH, files, build_args=("SOURCE_DATE_EPOCH=1700000001",))) == {1_700_000_001}


def test_a_dockerfile_can_have_an_epoch_which_an_argument_overrides(engine: Engine, files: Path) -> None:
    """testSourceDateEpochDockerfileDefault, testSourceDateEpochDockerfileDefaultOverride,
    testSourceDateEpochDockerfileDefaultReset"""
    text = "ARG T=1445412480\nARG SOURCE_DATE_EPOCH=$T\n" + SCRATCH
    assert dated(built(engine, text, files)) == {1_445_412_480}
    assert dated(built(engine, text, files, build_args=("SOURCE_DATE_EPOCH=1700000002",))) == {1_700_000_002}
    assert min(dated(built(engine, text, files, build_args=("SOURCE_DATE_EPOCH=",)))) > 1_750_000_000


@pytest.mark.parametrize("value", ["not-a-timestamp", "-1", "1e9", "9" * 40, "²"])
def test_an_epoch_that_is_no_time_is_an_error_where_it_stands(engine: Engine, files: Path, value: str) -> None:
    """testSourceDateEpochDockerfileDefaultInvalid"""
    with pytest.raises(DockerfileError, match="is no time") as caught:
        built(engine, f"\nARG SOURCE_DATE_EPOCH={value}\n{SCRATCH}", files)
    assert caught.value.span is not None and caught.value.span.first == 2
    with pytest.raises(UsageError, match="is no time"):
        built(engine, SCRATCH, files, build_args=(f"SOURCE_DATE_EPOCH={value}",))


def test_a_directory_as_context_gives_no_epoch(engine: Engine, files: Path) -> None:
    """testSourceDateEpochContextLocalUnset"""
    image = built(engine, SCRATCH, files, build_args=("SOURCE_DATE_EPOCH=context",))
    assert min(dated(image)) > 1_750_000_000


STAGE = "ARG SOURCE_DATE_EPOCH=mysource\nFROM scratch AS mysource\nADD {} /\n"


def test_a_stage_with_a_remote_file_gives_its_time(box: Machine, files: Path, server: Server) -> None:
    """testSourceDateEpochStageHTTPArchive, testSourceDateEpochStageOverride"""
    server.put("/src.tar", archive(THEN_S, foo="bar"), modified="")
    text = STAGE.format(f"{server.url}/src.tar")
    seen = 'FROM box\nARG SOURCE_DATE_EPOCH\nRUN printf "$SOURCE_DATE_EPOCH" > /epoch\n'
    image = built(box.engine, text + seen, files)
    assert str(THEN_S) in {str(each) for each in dated(image)}
    assert box.sh("cat /epoch; stat -c ' %Y' /epoch", image="made") == f"{THEN_S} {THEN_S}\n"
    image = built(box.engine, text + SCRATCH, files, build_args=("SOURCE_DATE_EPOCH=1700000502",))
    assert dated(image) == {1_700_000_502}
    server.put("/src.tar", b"no archive", modified="Sun, 06 Nov 1994 08:49:37 GMT")
    assert dated(built(box.engine, text + SCRATCH, files)) == {784_111_777}


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("FROM scratch AS mysource\nCOPY Dockerfile /Dockerfile\n", 3),
        ("FROM scratch AS mysource\nADD Dockerfile /Dockerfile\n", 3),
        ("FROM scratch AS mysource\n", 2),
        ("FROM box AS mysource\nADD http://127.0.0.1:1/x /\n", 2),
        ("FROM scratch AS mysource\nADD http://127.0.0.1:1/x /\nENV a=b\n", 4),
    ],
)
def test_a_stage_that_does_more_gives_none(engine: Engine, files: Path, stage: str, line: int) -> None:
    """testSourceDateEpochStageInvalid"""
    with pytest.raises(DockerfileError, match="SOURCE_DATE_EPOCH") as caught:
        built(engine, f"ARG SOURCE_DATE_EPOCH=mysource\n{stage}FROM scratch\n", files)
    assert caught.value.span is not None and caught.value.span.first == line


def test_two_builds_with_an_epoch_give_the_same_bytes(root: Path, busybox_context: Path) -> None:
    """testReproSourceDateEpoch, testWorkdirSourceDateEpochReproducible"""
    text = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY --link busybox /linked\nWORKDIR /made/here\n"
    text += 'RUN ["/bin/busybox", "touch", "-d", "2010-01-01 12:34:56", "/old"]\n'
    text += 'RUN ["/bin/busybox", "touch", "/new"]\n'
    images = []
    for number in range(2):
        os.utime(busybox_context / "busybox")
        with Engine(root / str(number)) as engine:
            images.append(built(engine, text, busybox_context, build_args=("SOURCE_DATE_EPOCH=1673354096",)))
    assert images[0].digest == images[1].digest
