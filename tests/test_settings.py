"""Settings: where they come from, which of them holds, and how a notebook sees and changes them."""

from __future__ import annotations

import os
import subprocess
import sys
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
    here = project(tmp_path, '[tool.nbcontain]\npull = "never"\ndisplay = "html"\nnetwork = "none"\n')
    settings = Settings({"NBCONTAIN_DISPLAY": "plain", "HOME": "/x"}, here)
    page = str(tmp_path / "pyproject.toml")
    assert sources(settings)["pull"] == ("never", page)
    assert sources(settings)["display"] == ("plain", "$NBCONTAIN_DISPLAY")
    assert sources(settings)["network"] == ("none", page)
    assert sources(settings)["root"] == ("", "default")
    settings.set("display", "card")
    assert settings["NBCONTAIN_DISPLAY"] == "card"
    assert {**settings}["NBCONTAIN_PULL"] == "never"
    settings.set("display", "")
    assert sources(settings)["display"][0] == "plain"
    assert "NBCONTAIN_ISOLATION" not in settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.nbcontain]\npul = "never"', "did you mean pull?"),
        ('[tool.nbcontain]\ndisplay = "loud"', "auto, card, html, plain"),
        ('[tool.nbcontain]\nroot = "store"', "NBCONTAIN_ROOT=…"),
        ('[tool.nbcontain]\nisolation = "chroot"', "NBCONTAIN_ISOLATION=…"),
        ('[tool.nbcontain]\nnetwork = "host"', "NBCONTAIN_NETWORK=…"),
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


def test_a_project_brings_no_store_that_would_lead_to_its_users_files(tmp_path: Path) -> None:
    """One is files and links, and so is in an archive or a repository as any others; prune would follow them."""
    (tmp_path / "thesis" / "chapter").mkdir(parents=True)
    here = project(tmp_path, '[tool.nbcontain]\nroot = "deep/store"\n')
    for directory in ("oci/blobs/sha256", "snapshots", "containers", "cache", "tmp"):
        (tmp_path / "deep" / "store" / directory).mkdir(parents=True)
    (tmp_path / "deep/store/oci/index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    (tmp_path / "deep/store/version").write_text("1\n")
    (tmp_path / "deep/store/snapshots/active").symlink_to(tmp_path / "thesis")
    command = [sys.executable, "-m", "nbcontain", "system", "prune", "-f"]
    environ = {name: text for name, text in os.environ.items() if name != "NBCONTAIN_ROOT"} | {"HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot say root" in done.stderr
    assert (tmp_path / "thesis" / "chapter").is_dir()


def test_a_project_that_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    (tmp_path / "in").mkdir()
    assert Settings({}, tmp_path / "in").get("NBCONTAIN_PULL") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
def test_where_everybody_may_write_a_project_is_ones_own_or_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever is the first in /tmp decides for all who work below."""
    here = project(tmp_path, '[tool.nbcontain]\npull = "never"\n')
    monkeypatch.setattr(os, "getuid", lambda: 1234)

    def pulled(owner: int, mode: int) -> str | None:
        os.chown(tmp_path / "pyproject.toml", owner, owner)
        tmp_path.chmod(mode)
        return Settings({}, here).get("NBCONTAIN_PULL")

    assert [pulled(owner, 0o1777) for owner in (1234, 0, 4321)] == ["never", "never", None]
    assert pulled(4321, 0o775) == "never"
    os.chown(tmp_path / "pyproject.toml", 1234, 1234)
    tmp_path.chmod(0o1777)
    (tmp_path / "pyproject.toml").rename(tmp_path / "real")
    (tmp_path / "pyproject.toml").symlink_to("real")
    os.chown(tmp_path / "pyproject.toml", 4321, 4321, follow_symlinks=False)
    assert Settings({}, here).get("NBCONTAIN_PULL") is None


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
