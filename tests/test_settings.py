"""Settings: where they come from, which of them holds, and how a notebook sees and changes them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbcontain.errors import UsageError
from nbcontain.settings import SETTINGS, Settings


def project(directory: Path, text: str) -> Path:
    (directory / "pyproject.toml").write_text(text)
    (directory / "deep" / "er").mkdir(parents=True)
    return directory / "deep" / "er"


def sources(settings: Settings) -> dict[str, tuple[str, str]]:
    return {name: (value, source) for name, value, source, _ in settings.rows()}


def test_the_nearest_that_says_something_holds(tmp_path: Path) -> None:
    here = project(tmp_path, '[tool.nbcontain]\npull = "never"\ndisplay = "html"\nroot = "store"\n')
    settings = Settings({"NBCONTAIN_DISPLAY": "plain", "HOME": "/x"}, here)
    page = str(tmp_path / "pyproject.toml")
    assert sources(settings)["pull"] == ("never", page)
    assert sources(settings)["display"] == ("plain", "$NBCONTAIN_DISPLAY")
    assert sources(settings)["root"] == (str(tmp_path / "store"), page)
    assert sources(settings)["network"] == ("", "default")
    settings.set("display", "card")
    assert settings["NBCONTAIN_DISPLAY"] == "card"
    assert {**settings}["NBCONTAIN_PULL"] == "never"
    settings.set("display", "")
    assert sources(settings)["display"][0] == "plain"
    assert "NBCONTAIN_NETWORK" not in settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.nbcontain]\npul = "never"', "did you mean pull?"),
        ('[tool.nbcontain]\ndisplay = "loud"', "auto, card, html, plain"),
        ("[tool.nbcontain", "cannot read"),
        ("tool.nbcontain = 3", "nbcontain is no table"),
        ('tool = "tool.nbcontain"', "tool is no table"),
    ],
)
def test_what_a_project_says_wrongly_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    settings = Settings({}, project(tmp_path, text))
    with pytest.raises(UsageError) as caught:
        settings.get("NBCONTAIN_PULL")
    assert said in "\n".join(caught.value.lines())


def test_a_project_that_says_nothing_of_us_is_not_read_into(tmp_path: Path) -> None:
    assert Settings({}, project(tmp_path, "this is no toml")).get("NBCONTAIN_PULL") is None


@pytest.fixture
def shell(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(root))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "nbcontain")
    yield shell
    shell.run_line_magic("unload_ext", "nbcontain")


def test_a_notebook_shows_and_changes_them(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    table = shell.run_line_magic("nbcontain", "config")
    assert [row["name"] for row in table.records()] == [each.name for each in SETTINGS]
    shell.run_line_magic("config", "NbContain.display = 'html'")
    assert shell.nbcontain.session.mode == "html"
    assert {row["name"]: row["from"] for row in table.records()}["root"] == "$NBCONTAIN_ROOT"
    table = shell.run_line_magic("nbcontain", "config display=plain")
    assert shell.nbcontain.session.mode == "plain"
    shell.run_line_magic("config", "NbContain")
    assert "NbContain.pull" in capsys.readouterr().out
    with pytest.raises(UsageError, match="while an engine is at work"):
        shell.run_line_magic("nbcontain", "config root=/elsewhere")


def test_docker_on_the_path_can_be_this_notebooks_engine(shell: InteractiveShell) -> None:
    shell.run_line_magic("nbcontain", "shim docker --force")
    shell.nbcontain.session.engine.build("FROM scratch\nENV A=1").result()
    done = subprocess.run(["docker", "images", "-q"], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 1
    assert shell.nbcontain.session.engine.soundness.look().findings == ()
    shell.run_line_magic("nbcontain", "shim docker --off")
    assert str(shell.nbcontain.session.engine.layout.root) not in os.environ["PATH"]
