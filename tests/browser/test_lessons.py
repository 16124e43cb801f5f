"""The first notebook of the course in JupyterLab, and as a page of nbconvert's: its table leads to the proofs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from lab import Desk

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

FIRST = Path(__file__).resolve().parents[2] / "notebooks" / "01-image-or-container.ipynb"
COUNTED = """() => {
  const links = [...document.querySelectorAll('.jp-RenderedMarkdown td a[href^="#"]')];
  const ids = new Set([...document.querySelectorAll('.jp-RenderedMarkdown :is(h1, h2, h3)')]
    .flatMap(e => [e.id, e.dataset.jupyterId]));
  const wanted = links.map(e => decodeURIComponent(e.hash.slice(1)));
  return [links.length, wanted.filter(each => !ids.has(each))];
}"""


def test_each_cell_of_the_table_leads_to_its_proof(desk: Desk) -> None:
    shutil.copy(FIRST, desk.directory)
    with desk.opened(FIRST.name) as lab:
        count, dead = lab.page.evaluate(COUNTED)
        assert (count >= 20, dead) == (True, [])
        lab.page.get_by_role("link", name="in its own layer").or_(
            lab.page.get_by_role("link", name="mutable", exact=True)
        ).first.click()
        expect(lab.page.get_by_role("heading", name="6 only the house changes")).to_be_in_viewport()


def test_and_so_it_does_on_a_page_that_is_made_of_the_saved_file() -> None:
    page, _ = HTMLExporter().from_notebook_node(nbformat.read(FIRST, as_version=4))
    wanted = {unquote(each) for each in re.findall(r'href="#(\d[^"]*)"', page)}
    ids = set(re.findall(r'<h\d[^>]* id="([^"]*)"', page))
    assert len(wanted) >= 10 and wanted - ids == set()
