"""A kernel that lives in an image, as a person meets it: a tile in JupyterLab's launcher, cells, a restart, an end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import lab
import needs
import places
from machine import until
from nbcontain.engine import Engine
from provisioning import CHECKOUT, declared

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
NAME = "paper, sealed"


@pytest.fixture
def own_desk(desk: lab.Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab.Desk]:
    """JupyterLab whose kernels are not this user's, on a store with an image of this machine's ipykernel."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", f"{declared(tmp_path)}:{CHECKOUT}")
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    with places.store_directory(needs.memory()) as root:
        with Engine(root) as engine:
            engine.from_host("paper", packages=("ipykernel",)).result()
        with lab.desk(notebooks, root=root, browser=desk.browser) as own:
            yield own


def typed(page: Page, code: str) -> None:
    """A cell of code in the notebook that is open, run as one runs it."""
    cell = page.locator(".jp-Notebook .jp-Cell.jp-mod-active .cm-content")
    cell.click()
    expect(cell).to_be_focused()
    page.keyboard.type(code)
    expect(cell).to_have_text(code)
    page.keyboard.press("Shift+Enter")


def test_a_kernel_of_an_image_is_started_from_the_launcher(own_desk: lab.Desk, pictures: Path) -> None:
    add = f"%kernel add paper --name paper --display-name '{NAME}' --network none"
    with own_desk.open(("%load_ext nbcontain", add)) as opened:
        opened.run_all()
        assert opened.complaints == []

    page = own_desk.page()
    page.set_viewport_size({"width": 1100, "height": 700})
    page.goto(own_desk.address(own_desk.directory).replace("/lab/tree/.?", "/lab?"))
    tile = page.locator(".jp-LauncherCard[data-category=Notebook]").filter(has_text=NAME)
    expect(tile).to_be_visible(timeout=60_000)
    page.screenshot(path=str(pictures / "launcher.png"))
    tile.click()
    status = page.locator(".jp-Toolbar-kernelName")
    expect(status).to_contain_text(NAME, timeout=60_000)
    # What is run before a kernel has said that it is there, Lab may forget.
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=60_000)
    typed(page, "import os; x = 42; print(os.listdir('/sys/class/net'), os.getpid() < 30)")
    outputs = page.locator(".jp-OutputArea-output")
    expect(outputs.last).to_have_text("['lo'] True", timeout=60_000)
    with Engine(own_desk.root) as engine:
        assert engine.kernels.running() == {"paper": 1}
        # What the menu's "Interrupt Kernel" and "Restart Kernel" do.
        typed(page, "import time; print('slee' + 'ping'); time.sleep(600)")
        expect(outputs.last).to_contain_text("sleeping")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
        expect(outputs.last).to_contain_text("KeyboardInterrupt")
        (before,) = engine.containers()
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:restart-kernel'); }")
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        until(lambda: [each.id for each in engine.containers() if each.id != before.id], 30)
        typed(page, "print('x' in globals())")
        expect(outputs.last).to_have_text("False", timeout=60_000)
        page.screenshot(path=str(pictures / "launched.png"))
        own_desk.end_kernels()
        until(lambda: engine.containers() == [] and engine.kernels.running() == {}, 30)
