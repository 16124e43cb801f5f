"""The tutorial notebooks, executed under every profile: what they prove, judge and leave."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import needs
from nbcontain.engine import Engine
from nbcontain.lessons import course
from nbcontain.linux import syscalls

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
NETWORKED = {CHECKOUT / "notebooks" / "07-two-containers-talk.ipynb"}
FIRST = CHECKOUT / "notebooks" / "01-image-or-container.ipynb"
OTHERS = [path for path in NOTEBOOKS if path != FIRST]


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each exercise's starter replaced by its solution."""
    cells = []
    for cell in notebook.cells:
        if wanted := cell.metadata.get("exercise"):
            cells += [nbformat.v4.new_code_cell(source) for source in course.exercise(wanted).solution]
        else:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def execute(
    path: Path, directory: Path, root: Path, display: str, change: Callable[[Any], Any] = lambda notebook: notebook
) -> nbformat.NotebookNode:
    """The notebook with its outputs, perhaps changed before; raises CellExecutionError where a cell fails."""
    with ExitStack() as stack:
        return _execute(path, directory, root, display, change, stack)


def _execute(
    path: Path, directory: Path, root: Path, display: str, change: Callable[[Any], Any], stack: ExitStack
) -> nbformat.NotebookNode:
    notebook = change(nbformat.read(path, as_version=4))
    env = {**os.environ, "NBCONTAIN_ROOT": str(root), "NBCONTAIN_DISPLAY": display}
    env.update(IPYTHONDIR=str(directory / "ipython"), JUPYTER_RUNTIME_DIR=str(directory / "runtime"))
    manager = AsyncKernelManager(kernel_name="python3")
    if path in NETWORKED:  # it will not be on our network; and a socket's path must be short
        sockets = stack.enter_context(tempfile.TemporaryDirectory())
        manager.transport, manager.ip = "ipc", f"{sockets}/k"
    client = NotebookClient(notebook, timeout=90, km=manager, resources={"metadata": {"path": directory}})
    if path in NETWORKED:
        env["NBCONTAIN_NETWORK"] = ""
    return client.execute(env=env)


@contextmanager
def own_network() -> Iterator[None]:
    """As root: this thread, and all that it starts, in a network namespace of its own: no bridge is the machine's."""
    if os.geteuid():
        yield
        return
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    try:
        subprocess.run([needs.program("ip", "iproute2"), "link", "set", "lo", "up"], check=True)
        yield
    finally:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        os.close(home)


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
def test_the_first_notebook_runs_twice_in_one_store_and_leaves_no_container(
    profile: str, root: Path, tmp_path: Path, display: str
) -> None:
    first = execute(FIRST, tmp_path, root, display)
    second = execute(FIRST, tmp_path, root, display)
    checks = re.findall(r"^✔ .*", printed(first), re.M)
    assert len(checks) >= 11
    assert re.findall(r"^✔ .*", printed(second), re.M) == checks
    with Engine(root) as engine:
        assert engine.containers() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_is_and_then_with_its_exercises_solved(
    profile: str, root: Path, tmp_path: Path, path: Path
) -> None:
    # Both times in the same one: a store's networks are in one place.
    with own_network() if path in NETWORKED else nullcontext():
        begun = execute(path, tmp_path, root, "card")
        done = execute(path, tmp_path, root, "plain", solved)
    assert_harmless(begun, root)
    wanted = [cell.metadata["exercise"] for cell in begun.cells if "exercise" in cell.metadata]
    assert verdicts(begun) == dict.fromkeys(wanted, False)
    assert verdicts(done) == dict.fromkeys(wanted, True)
    assert len(re.findall(r"^✔ .*", printed(begun), re.M)) >= 4
    with Engine(root) as engine:
        assert engine.containers() == []


def verdicts(notebook: nbformat.NotebookNode) -> dict[str, bool]:
    """How the exercises of an executed notebook were judged."""
    found = {}
    for shown in displays(notebook):
        if judged := re.match(r"(\d\d-\d) .*: (done|\d of \d)", shown.get("text/plain", "")):
            found[judged[1]] = judged[2] == "done"
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_the_first_notebook_stores_can_be_read_without_widgets_and_is_harmless(
    root: Path, tmp_path: Path
) -> None:
    assert_harmless(execute(FIRST, tmp_path, root, "card"), root)


def assert_harmless(notebook: nbformat.NotebookNode, root: Path) -> None:
    """An executed notebook as it would be saved: readable without a kernel, small, and nothing in it runs."""
    shown = displays(notebook)
    assert shown
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
