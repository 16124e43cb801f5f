"""Contexts that are no directory: files in memory, tables, tar archives; and cells that write them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from building import archive, said
from nbcontain.build.plan import BuildOptions
from nbcontain.build.sources import MemoryFile
from nbcontain.commands.contextfiles import ContextFiles
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, UsageError

ALL = "FROM busybox\nCOPY . /c\n"


class Table:
    """What pandas' DataFrame has of interest."""

    def to_csv(self, *, index: bool) -> str:
        return "a,b\n1,2\n"

    def to_json(self, *, orient: str) -> str:
        return '[{"a":1}]'

    def to_parquet(self, path: io.BytesIO, *, index: bool) -> None:
        path.write(b"PAR1")


def build(engine: Engine, context: object, text: str = ALL) -> None:
    engine.build(text, BuildOptions(tags=("made",)), context=context).result()  # type: ignore[arg-type]


def test_a_context_of_names_and_values(engine: Engine, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "inner").write_text("inner\n")
    (tmp_path / "src" / "out").symlink_to("/etc/hostname")
    build(engine, {
        "app.py": "print(1)\n", "m.bin": b"\0\1", "data/t.csv": Table(), "data/t.json": Table(), "t.parquet": Table(),
        "src": tmp_path / "src", "run.sh": MemoryFile(b"echo hi\n", 0o755),
    })  # fmt: skip
    assert said(engine, "cat /c/app.py /c/data/t.csv /c/data/t.json /c/t.parquet; stat -c %a /c/run.sh") == (
        'print(1)\na,b\n1,2\n[{"a":1}]PAR1755\n'
    )
    assert said(engine, "cat /c/src/inner; readlink /c/src/out; wc -c < /c/m.bin") == "inner\n/etc/hostname\n2\n"


def test_the_same_files_in_memory_are_cached(engine: Engine, busybox_image: str) -> None:
    build(engine, {"a": "1"})
    task = engine.build(ALL, BuildOptions(tags=("made",)), context={"a": "1"})
    task.result()
    assert [each.outcome for each in task.report.steps] == ["cached", "cached"]
    assert [each for each in engine.layout.tmp.iterdir() if (each / "context").exists()] == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "a\0b"])
def test_a_name_in_memory_stays_in_its_context(engine: Engine, busybox_image: str, name: str) -> None:
    with pytest.raises(UsageError):
        build(engine, {name: "x"})


@pytest.mark.parametrize(("name", "value"), [("x", object()), ("x.txt", Table()), ("x.csv", 3)])
def test_what_is_no_file_is_refused(engine: Engine, busybox_image: str, name: str, value: object) -> None:
    with pytest.raises(UsageError):
        build(engine, {name: value})


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_archive_is_a_context(engine: Engine, busybox_image: str, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "context.tar"
    path.write_bytes(archive(("./d/f", b"in tar\n"), ("l", "d/f"), ("d/g", b"old\n"), ("d/g", b"new\n"), mode=mode))
    build(engine, path)
    assert said(engine, "cat /c/d/f /c/d/g; readlink /c/l") == "in tar\nnew\nd/f\n"


@pytest.mark.parametrize("members", [(("../x", b"x"),), (("l", "/tmp"), ("l/x", b"x")), (("l", ".."), ("l/x", b"x"))])
def test_an_archive_never_leaves_its_context(
    engine: Engine, busybox_image: str, tmp_path: Path, members: tuple[tuple[str, bytes | str], ...]
) -> None:
    with pytest.raises(BuildError):
        build(engine, archive(*members))


def test_nothing_outside_is_read_through_an_archives_symlink(engine: Engine, busybox_image: str) -> None:
    with pytest.raises(BuildError):
        build(engine, archive(("l", "/etc/passwd")), "FROM busybox\nCOPY l /stolen\n")


def test_a_damaged_archive_is_one_error_and_leaves_nothing(engine: Engine, busybox_image: str) -> None:
    with pytest.raises(BuildError, match="no tar archive"):
        build(engine, os.urandom(5000))
    assert [each for each in engine.layout.tmp.iterdir() if (each / "context").exists()] == []


def test_cells_write_files_that_dockerfile_cells_take(engine: Engine, busybox_image: str) -> None:
    cells = ContextFiles()
    cells.write(["app.sh", "--chmod", "755"], "echo one\n")
    cells.write(["app.sh", "-a", "--chmod", "755"], "echo two\n")
    cells.write(["conf/x", "--context", "other"], "x\n")
    build(engine, cells.source(""))
    assert said(engine, "/c/app.sh; ls /c") == "one\ntwo\napp.sh\n"
    build(engine, cells.source("other"))
    assert said(engine, "cat /c/conf/x") == "x\n"
    assert "app.sh" in cells.look([]).text()  # type: ignore[union-attr]
    cells.look(["--clear"])
    assert cells.source("") == Path(".")


@pytest.mark.parametrize("words", [["../x"], ["x", "--chmod", "9"], ["a/b/c"]])
def test_a_cell_that_cannot_be_a_file_says_so(words: list[str]) -> None:
    cells = ContextFiles()
    cells.write(["a/b"], "")
    with pytest.raises(UsageError):
        cells.write(words, "")


def test_contextfile_cells_feed_dockerfile_cells_in_ipython(
    engine: Engine, busybox_image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(engine.layout.root))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        for body in ("echo one\n", "echo two\n"):
            shell.run_cell_magic("contextfile", "app.sh --chmod 755", body)
            shell.run_cell_magic("dockerfile", "-t celled", "FROM busybox\nCOPY app.sh /\nRUN sh /app.sh > /said\n")
        steps = shell.user_ns["_build"].report.steps
        assert steps[1].why == "app.sh changed"
        assert "runs again: app.sh changed" in capsys.readouterr().out
        assert said(engine, "cat /said", "celled") == "two\n"
    finally:
        shell.extension_manager.unload_extension("nbcontain")
