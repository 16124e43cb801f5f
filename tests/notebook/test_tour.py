"""The tutorial notebooks, executed: in both displays, twice in one store, under every profile; and what they leave."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from nbcontain.engine import Engine

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


def execute(path: Path, directory: Path, root: Path, display: str) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    env = {**os.environ, "NBCONTAIN_ROOT": str(root), "NBCONTAIN_DISPLAY": display}
    env.update(IPYTHONDIR=str(directory / "ipython"), JUPYTER_RUNTIME_DIR=str(directory / "runtime"))
    client = NotebookClient(notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": directory}})
    return client.execute(env=env)


def displays(notebook: nbformat.NotebookNode) -> list[dict[str, str]]:
    return [
        output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result")
    ]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("display", ["card", "plain"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_twice_in_one_store_and_leaves_no_container(
    profile: str, root: Path, tmp_path: Path, path: Path, display: str
) -> None:
    first = execute(path, tmp_path, root, display)
    second = execute(path, tmp_path, root, display)
    checks = re.findall(r"^✔ .*", printed(first), re.M)
    assert len(checks) >= 11
    assert re.findall(r"^✔ .*", printed(second), re.M) == checks
    with Engine(root) as engine:
        assert engine.containers() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_stores_can_be_read_without_widgets_and_is_harmless(
    root: Path, tmp_path: Path, path: Path
) -> None:
    notebook = execute(path, tmp_path, root, "card")
    shown = displays(notebook)
    assert len(shown) >= 5
    assert [sorted(data) for data in shown if "text/plain" not in data] == []
    assert [tag for data in shown for tag in forbidden(data.get("text/html", ""))] == []
    stored = nbformat.writes(notebook)
    assert len(stored) < 300_000
    assert str(root) not in stored
    assert str(Path.home()) + "/" not in stored


def test_notebooks_are_kept_without_outputs() -> None:
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count] == []


class _Reader(HTMLParser):
    """Collects what must not be in a saved card."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "link", "img", "form", "base", "meta"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "href", "srcdoc") or "javascript:" in (value or ""):
                self.found.append(f"{tag} {name}")


def forbidden(html: str) -> list[str]:
    """Elements and attributes of some HTML that could run something or ask for something."""
    reader = _Reader()
    reader.feed(html)
    return reader.found
