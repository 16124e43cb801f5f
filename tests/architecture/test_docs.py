"""What the project's own pages say is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbcontain.store.check import MEANINGS

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def test_the_architecture_page_lists_the_modules_as_they_are() -> None:
    program = "import module_list as m; page = m.PAGE.read_text(); print(page == m.written(page))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT / "tools", capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n", "python tools/module_list.py writes it anew"


PAGES = (
    "README.md", "CONTRIBUTING.md",
    *sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md")),
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:tests|tools|docs|notebooks|nbcontain)/[\w./-]+)`", text)
    missing = [name for name in links if not (CHECKOUT / page).parent.joinpath(name).exists()]
    assert missing + [name for name in named if not (CHECKOUT / name).exists()] == []


def test_the_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.M))
    pages = (CHECKOUT / "README.md").read_text() + (CHECKOUT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"(?:\$ |`)make (\w+)", pages)) - {"test"} <= targets
    assert "test" in targets


def test_the_reliability_page_lists_the_findings_of_system_check_as_they_are() -> None:
    page = (CHECKOUT / "docs/reliability.md").read_text()
    rows = [f"| `{kind}` | {meaning.text} | {meaning.repair} |" for kind, meaning in MEANINGS.items()]
    assert [row for row in rows if row not in page] == []


def test_the_configuration_page_names_every_variable() -> None:
    package = CHECKOUT / "nbcontain"
    read = {name for path in package.rglob("*.py") for name in re.findall(r"\bNBCONTAIN_[A-Z_]+\b", path.read_text())}
    told = set(re.findall(r"^\| `(NBCONTAIN_[A-Z_]+)`", (CHECKOUT / "docs/configuration.md").read_text(), re.M))
    assert read == told


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (CHECKOUT / "docs/index.md").read_text()
    pages = {str(path.relative_to(CHECKOUT / "docs").with_suffix("")) for path in (CHECKOUT / "docs").rglob("*.md")}
    # The reference has these two on its own page.
    assert {page for page in pages if f"\n{page}\n" not in index} == {"index", "configuration"}


def test_the_reference_has_every_command_every_cell_and_every_error() -> None:
    program = """
import sys, tempfile, pathlib
sys.path.insert(0, "tools")
import reference
from nbcontain import errors
from nbcontain.commands import commands
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name, "pages")
    reference.write(folder)
    text = "".join(path.read_text() for path in folder.iterdir())
names = [each.name if each.group == "nbcontain" else f"{each.group} {each.name}" for each in commands()]
print([name for name in names if f"## {name}\\n" not in text])
types = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
from nbcontain.magic_names import CELL_MAGICS, LESSON_MAGICS
cells = [f"%%{name}" for name in (*CELL_MAGICS, "contextfile")] + [f"%{name}" for name in LESSON_MAGICS]
print([name for name in cells if f"## {name}" not in text or f"usage: {name}" not in text])
kinds = [name for name, kind in types.items() if issubclass(kind, errors.NbcontainError)]
print([name for name in kinds if f"| `{name}` |" not in text])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n[]\n"


def test_the_badges_lead_to_the_address_that_the_project_has_and_to_none_that_it_has_not() -> None:
    program = (
        "import badges as b; name = b.repository();"
        "print(all((text := (b.CHECKOUT / each).read_text()) == b.page(text, name) for each in b.PAGES));"
        "print(b.page(b.BEGIN + b.END, 'who/what').count('/who/what'), b.page(b.BEGIN + b.END, '').count('http'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT / "tools", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "3", "0"], "python tools/badges.py writes them anew"


def test_the_command_of_the_recipe_is_one_when_it_is_typed_in(tmp_path: Path) -> None:
    """CONTRIBUTING.md's, put where it says: it is in the index, in the help, and does what it does."""
    shutil.copytree(CHECKOUT / "nbcontain", tmp_path / "nbcontain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools")
    page = (CHECKOUT / "CONTRIBUTING.md").read_text()
    recipe = re.search(r"^  ```python\n(.*?)^  ```", page, re.DOTALL | re.MULTILINE)
    assert recipe is not None
    (tmp_path / "nbcontain/commands/greet.py").write_text(re.sub(r"^  ", "", recipe[1], flags=re.MULTILINE))

    def python(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(tmp_path), "NBCONTAIN_ROOT": str(tmp_path / "store")}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert python("tools/command_index.py") == ""
    assert '"greet": "greet"' in (tmp_path / "nbcontain/commands/index.py").read_text()
    assert "say hello to a container" in python("-m", "nbcontain", "greet", "--help")
    assert "there is no container 'web'" in python("-m", "nbcontain", "greet", "web")
