"""What the project's own pages say is so."""

from __future__ import annotations

import re
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
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/images.md", "docs/reliability.md", "docs/security.md",
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
