"""A notebook executed without a page, as others show it: nbconvert's HTML and Markdown, and what GitHub leaves."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import bleach
import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter, MarkdownExporter

import needs
import places
from kernels import BUSYBOX_CELL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CELLS = (
    "%load_ext nbcontain",
    BUSYBOX_CELL,
    "%container run -d --name web box sh -c 'echo hello from web; exit 3'",
    "import time; time.sleep(4)",
    "%container ps -a",
    "%image layers box",
    "%container rm web",
)
# The elements and attributes of github.com/gjtorikian/html-pipeline's allowlist that we use, and some that we do not.
ELEMENTS = {
    "b", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3", "hr", "i", "ins", "kbd", "li",
    "ol", "p", "pre", "q", "s", "samp", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot",
    "th", "thead", "tr", "tt", "ul", "var",
}  # fmt: skip
ATTRIBUTES = ["aria-label", "aria-hidden", "align", "open", "scope", "title"]


def executed(tmp_path_factory: pytest.TempPathFactory, cells: Sequence[str]) -> nbformat.NotebookNode:
    """A notebook of these cells, executed."""
    directory = tmp_path_factory.mktemp("saved")
    shutil.copy2(needs.program("busybox", "busybox-static"), directory / "busybox")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with places.store_directory() as root:
        env = {**os.environ, "NBCONTAIN_ROOT": str(root), "NBCONTAIN_DISPLAY": "auto", "PYTHONPATH": str(CHECKOUT)}
        client = NotebookClient(notebook, timeout=90, resources={"metadata": {"path": directory}})
        return client.execute(env=env)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The cells above, executed."""
    return executed(tmp_path_factory, CELLS)


def read(html: str) -> str:
    """What a person reads of some HTML in a browser that runs no script."""
    for element in ("script", "style", "head"):
        html = re.sub(rf"<{element}[ >].*?</{element}>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def assert_tells(text: str) -> None:
    assert "exited 3" in text and "hello from web" in text
    assert "busybox" in text and "COPY" in text
    assert "model not found" not in text and "Error displaying" not in text


def test_html_without_a_script_tells_how_it_ended(saved: nbformat.NotebookNode) -> None:
    assert_tells(read(HTMLExporter().from_notebook_node(saved)[0]))


def test_markdown_tells_how_it_ended(saved: nbformat.NotebookNode) -> None:
    assert_tells(read(MarkdownExporter().from_notebook_node(saved)[0]))


def test_what_a_sanitizer_leaves_tells_how_it_ended(saved: nbformat.NotebookNode) -> None:
    shown = [output.data for cell in saved.cells for output in cell.outputs if "data" in output]
    html = "".join(re.sub(r"<style.*?</style>", "", data.get("text/html", ""), flags=re.DOTALL) for data in shown)
    left = bleach.clean(html, tags=ELEMENTS, attributes=ATTRIBUTES, strip=True)
    assert_tells(read(left))


def test_short_cells_that_follow_have_said_what_it_became_and_the_last_says_what_is(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Nobody hears what is said between two cells, and none of these waits for it."""
    cells = (
        *CELLS[:2], "%container run -d --name bad box sh -c 'echo going wrong; sleep 0.1; exit 3'",
        "%container wait bad", *["1"] * 8, "%container attach bad",
    )  # fmt: skip
    shown = executed(tmp_path_factory, cells).cells
    for cell in (shown[2], shown[-1]):
        text, html = (cell.outputs[0].data[kind] for kind in ("text/plain", "text/html"))
        assert text.startswith("exited 3 bad") and "going wrong" in text
        assert 'class="nbc-state nbc-is-failed"' in html and "going wrong" in html
