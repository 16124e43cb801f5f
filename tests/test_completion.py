"""The Tab key behind a magic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from nbcontain.completion import candidates, in_dockerfile
from nbcontain.engine import Engine
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.oci.reference import Reference
from nbcontain.runtime.generate import RunOptions


@pytest.fixture
def filled(engine: Engine) -> Engine:
    engine.store.images.put(Image.of(ImageConfig(), ()), Reference.parse("hello:1"))
    return engine


def test_commands_come_first(filled: Engine) -> None:
    assert candidates("container", ["st"], filled) == ["start", "stats", "stop"]
    assert {"image", "images", "doctor"} <= set(candidates("", [""], filled))


def test_flags_are_those_of_the_command(filled: Engine) -> None:
    assert candidates("container", ["run", "--en"], filled) == ["--entrypoint", "--env", "--env-file", "--env-host"]


def test_images_are_offered_where_an_image_is_meant(filled: Engine) -> None:
    assert candidates("container", ["run", "he"], filled) == ["hello:1"]
    assert candidates("", ["image", "rm", ""], filled) == ["hello:1"]


def test_a_switch_has_no_value(filled: Engine) -> None:
    filled.store.volumes.create("data", created="2026-01-01T00:00:00Z")
    assert candidates("container", ["run", "-v", ""], filled) == ["data"]
    assert candidates("container", ["rm", "-v", ""], filled) == []


def test_filters_and_formats_are_offered_by_name(filled: Engine) -> None:
    assert candidates("image", ["ls", "--filter", "l"], filled) == ["label!=", "label="]
    assert candidates("", ["ps", "--filter", "an"], filled) == ["ancestor="]
    assert candidates("", ["system", "prune", "--filter", ""], filled) == ["label!=", "label=", "until="]
    assert candidates("", ["system", "df", "--format", ""], filled) == ["json", "table"]
    assert candidates("image", ["layers", "he"], filled) == ["hello:1"]


def test_networks_are_offered_where_a_network_is_meant(filled: Engine) -> None:
    assert candidates("network", ["inspect", "b"], filled) == ["bridge"]
    assert candidates("network", ["connect", "--alias=web", "h"], filled) == ["host"]
    assert candidates("network", ["connect", "bridge", "h"], filled) == []
    assert candidates("network", ["create", ""], filled) == []


def test_nothing_is_offered_for_a_command_that_there_is_not(filled: Engine) -> None:
    assert candidates("container", ["dance", ""], filled) == []


def test_ipython_asks_us(filled: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        _, found = shell.complete("hel", "%container run hel")
        assert "hello:1" in found
        _, found = shell.complete("bri", "%network inspect bri")
        assert "bridge" in found
    finally:
        shell.extension_manager.unload_extension("nbcontain")


@pytest.mark.parametrize("cell", ["%container run?", "?%container run", "%nbcontain container run??"])
def test_a_question_mark_behind_a_command_asks_for_its_help_and_not_for_ipythons_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        assert shell.run_cell(cell).success
        assert "container run [OPTIONS] IMAGE [COMMAND ...]" in capsys.readouterr().out
        for other in ("%container?", "%container exec web ls /tmp/?", "x = 1\n%container run", "%run?"):
            assert shell.transform_cell(other) == InteractiveShell().transform_cell(other)
    finally:
        shell.extension_manager.unload_extension("nbcontain")
    assert "pinfo" in shell.transform_cell(cell)


def test_ipython_7_asks_us_as_far_as_it_knows_how_to(
    filled: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colab and Kaggle have it: neither matchers, nor a decorator for lines that end in a semicolon."""
    monkeypatch.delattr("IPython.core.magic.output_can_be_silenced")
    monkeypatch.delattr("IPython.core.completer.context_matcher")
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        assert "hello:1" in shell.complete("hel", "%container run hel")[1]
        assert "hello" in str(shell.run_line_magic("image", "ls"))
    finally:
        shell.extension_manager.unload_extension("nbcontain")


def test_nothing_outside_of_the_context_is_offered(filled: Engine, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for beginning in ("../", "here/../../", "/"):
        assert in_dockerfile(f"FROM x\nCOPY {beginning}", filled, tmp_path / "here")[1] == []


@pytest.mark.parametrize(
    ("cell", "choices"),
    [
        ("%%dockerfile -t x\nFROM hel", ["hello:1"]),
        ("%%dockerfile\nFROM x\nCOPY ap", ["app.py"]),
        ("%%dockerfile\nFROM x\nCOPY src/", ["src/lib/", "src/main.py"]),
        ("%%dockerfile --context memo\nFROM x\nCOPY data/", ["data/one.txt"]),
        ("%%dockerfile --tar", ["--target"]),
        ("%%dockerfile -t x --con", ["--context"]),
        ("%%dockerfile -t x --context sr", ["src/"]),
        ("%%dockerfile -t ", []),
        ("import os\n%%dockerfile", None),
    ],
)
def test_ipython_asks_us_in_a_dockerfile_cell(
    filled: Engine, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str, choices: list[str] | None
) -> None:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    for path in ("app.py", "src/main.py", "src/lib/x.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    try:
        shell.run_cell_magic("contextfile", "data/one.txt --context memo", "1\n")
        with provisionalcompleter():
            found = [each.text for each in shell.Completer.completions(cell, len(cell))]
        if choices is None:  # what Python offers
            assert "hello:1" not in found
        else:
            assert found == choices
    finally:
        shell.extension_manager.unload_extension("nbcontain")
    with provisionalcompleter():
        assert "FROM" not in [each.text for each in shell.Completer.completions("%%dockerfile\nFR", 15)]


@pytest.fixture
def shell(filled: Engine, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """An IPython with our magics, in a directory with a file, beside a container that has ended."""
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.tar").write_text("")
    filled.create(RunOptions(image="hello:1", command=("true",), name="web"))
    shell = InteractiveShell()
    shell.extension_manager.load_extension("nbcontain")
    yield shell
    shell.extension_manager.unload_extension("nbcontain")


def offered(shell: InteractiveShell, cell: str) -> list[str]:
    """What a kernel answers the Tab key at the end of a cell's first line that ends in "|", or of the cell."""
    before, _, rest = cell.partition("|")
    with provisionalcompleter():
        return [each.text for each in shell.Completer.completions(before + rest, len(before))]


@pytest.mark.parametrize(
    ("cell", "choices"),
    [
        ("%container st", ["start", "stats", "stop"]),
        ("%container logs ", ["web"]),
        ("%container logs web ", []),
        ("%container logs x", []),
        ("%container run --network ", ["bridge", "host", "none"]),
        ("%container run --network=br", ["--network=bridge"]),
        ("%container run --name ", []),
        ("%container run -e ", []),
        ("%container run --rm h", ["hello:1"]),
        ("%container run --rm hello:1 pri", []),
        ("%container run --rm hello:1 --", []),
        ("%container dance ", []),
        ("%container cp w", ["web:", "work.tar"]),
        ("%image load -i w", ["work.tar"]),
        ("%container exec web we", []),
        ("%container exec w", ["web"]),
        ("x = 1\n%container logs w", ["web"]),
        ("c = %container logs w", ["web"]),
        ("%%container run --rm h", ["hello:1"]),
        ("%%container run --rm h|\necho 1", ["hello:1"]),
        ("%%container run --interp", ["--interpreter"]),
        ("%%container e", ["exec"]),
        ("%%container exec w|\necho 1", ["web"]),
    ],
)
def test_behind_our_magics_nobody_else_has_a_say(shell: InteractiveShell, cell: str, choices: list[str]) -> None:
    assert offered(shell, cell) == choices


@pytest.mark.parametrize("magic", ["container", "image", "compose", "volume", "network", "kernel", "nbcontain"])
def test_behind_a_magic_its_commands_come_alone(shell: InteractiveShell, magic: str) -> None:
    engine = shell.nbcontain.session.engine  # type: ignore[attr-defined]
    found = offered(shell, f"%{magic} ")
    assert found == candidates("" if magic == "nbcontain" else magic, [""], engine)
    assert not {"and", "if", "lambda"} & set(found)


def test_the_flags_of_a_command_come_without_pythons_names(shell: InteractiveShell) -> None:
    found = offered(shell, "%container logs --")
    assert "--tail" in found and all(each.startswith("--") and each.islower() for each in found)


def test_what_others_offer_elsewhere_stays(shell: InteractiveShell) -> None:
    assert "import" in offered(shell, "imp")
    assert "%cd" in offered(shell, "%cd")
    assert "work.tar" in offered(shell, "%cd wo") + offered(shell, "!ls wo")
    assert "print" in offered(shell, "x = 7\npri")


def test_programs_are_offered_where_a_command_is_meant(engine: Engine, busybox_image: str) -> None:
    assert candidates("container", ["run", busybox_image, "busyb"], engine) == ["busybox"]
    assert candidates("container", ["run", "--rm", busybox_image, "cat", "/bin/busyb"], engine) == ["/bin/busybox"]
    assert "sh" in candidates("container", ["run", busybox_image, ""], engine)


def test_each_magic_with_verbs_of_its_own_is_read_as_such() -> None:
    from nbcontain.commands.table import GROUPS
    from nbcontain.magic_names import GROUP_MAGICS, LINE_MAGICS
    from nbcontain.magics import _CALL

    assert set(GROUP_MAGICS) <= set(GROUPS)
    for magic in LINE_MAGICS:
        assert _CALL.fullmatch(f"get_ipython().run_line_magic('{magic}', 'ls')"), f"%{magic} is not awaited"
