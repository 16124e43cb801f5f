"""JupyterLab in Chromium, as a person sees it: a private server, one notebook, and hands to use it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page, sync_playwright

import nbcontain
import needs

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    # All cells stay in the page, so that all outputs can be read.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
}
EXTENSION = Path(nbcontain.__file__).parent / "labextension"
# The open notebook's panel, and what of it tells whether it is ready, and whether it is at rest.
SCRIPT = """
window.nb = {
  panel: () => [...(window.jupyterapp?.shell.widgets('main') ?? [])].find(w => w.content?.widgets && w.sessionContext),
  status: () => nb.panel()?.sessionContext.session?.kernel?.status,
  isReady: () => !!nb.panel()?.context.isReady && ['idle', 'busy'].includes(nb.status())
      && !!nb.panel().sessionContext.session.kernel.info && nb.panel().content.widgets.length > 0,
  isIdle: () => nb.status() === 'idle' && !nb.panel().content.widgets.some(c => c.model.executionState === 'running'),
  run: async (i) => {
    nb.panel().content.activeCellIndex = i;
    nb.panel().content.deselectAll();
    await window.jupyterapp.commands.execute('notebook:run-cell');
  },
  command: (name, args) => { void window.jupyterapp.commands.execute(name, args); },
};
"""


class Lab:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page: Page, url: str, path: Path) -> None:
        self.page, self._url, self.path = page, url, path
        self.complaints: list[str] = []
        """Errors that the page reported, and addresses of other hosts that it asked for."""
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.route(lambda asked: not asked.startswith(("data:", "blob:", self._url_base())), self._refuse)
        page.add_init_script(SCRIPT)
        self._open()

    def _url_base(self) -> str:
        return self._url.split("/doc/")[0]

    def _refuse(self, route: Any) -> None:
        self.complaints.append(f"asked for {route.request.url}")
        route.abort()

    def _open(self) -> None:
        self.page.goto(self._url, wait_until="domcontentloaded")
        self.page.wait_for_function("window.nb && nb.isReady()", timeout=60_000)

    # --- as a person does ---

    def run(self, number: int, timeout_s: float = 60) -> None:
        """Run a code cell (counted from 0) to its end."""
        self.start(number)
        self.page.wait_for_function("nb.isIdle() && window.ran", timeout=timeout_s * 1000)

    def start(self, number: int) -> None:
        """Run a code cell without waiting for it."""
        self.page.evaluate("i => { window.ran = false; nb.run(i).finally(() => { window.ran = true; }); }", number)

    def reload(self) -> None:
        """Ctrl-S, then the browser's reload button."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self._open()

    def theme(self, name: str) -> None:
        """Settings → Theme: light or dark."""
        self.page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", THEMES[name])
        self.page.wait_for_function("t => document.body.dataset.jpThemeName === t", arg=THEMES[name])

    def width(self, pixels: int) -> None:
        """Make the window that wide."""
        self.page.set_viewport_size({"width": pixels, "height": 900})

    def write(self, number: int, text: str) -> None:
        """Replace a cell's text by typing."""
        editor = self.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".cm-content")
        editor.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(text)

    # --- as a person sees ---

    def language(self, number: int) -> str:
        """The mime type of a cell's editor."""
        return str(self.page.evaluate("i => nb.panel().content.widgets[i].model.mimeType", number))

    def coloured(self, number: int, word: str) -> str:
        """The colour of the first word of this text in a cell's editor, as CSS says it."""
        words = self.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".cm-line span")
        found = words.get_by_text(word, exact=True).first
        return str(found.evaluate("e => getComputedStyle(e).color"))

    def output(self, number: int) -> Locator:
        """The outputs of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".jp-Cell-outputArea")

    def card(self, number: int) -> Locator:
        """The card in the outputs of a cell."""
        return self.output(number).locator(".nbc").first

    def button(self, number: int, name: str) -> Locator:
        """A button in the outputs of a cell, by its accessible name."""
        return self.output(number).get_by_role("button", name=re.compile(rf"^{name}"))

    def wait_for_text(self, number: int, pattern: str, timeout_s: float = 20) -> str:
        """The outputs of a cell as soon as they say this."""
        end = time.monotonic() + timeout_s
        while not re.search(pattern, text := "\n".join(self.output(number).all_inner_texts())):
            assert time.monotonic() < end, f"no {pattern!r} within {timeout_s} s in:\n{text}"
            time.sleep(0.05)
        return text

    def picture(self, path: Path) -> None:
        """A PNG of the window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path))


@contextmanager
def opened(cells: Sequence[str], directory: Path, *, root: Path, width: int = 1100) -> Iterator[Lab]:
    """A notebook of these code cells, made in `directory` and opened; its server and kernel end with the context."""
    path = directory / "test.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    with ExitStack() as stack:
        url, token = stack.enter_context(_server(directory, root))
        page = stack.enter_context(_page(width))
        yield Lab(page, f"{url}/doc/tree/{path.name}?token={token}", path)


@contextmanager
def _page(width: int) -> Iterator[Page]:
    executable = needs.chromium()
    # Chromium refuses its own sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            context.set_default_timeout(20_000)
            yield context.new_page()
        finally:
            browser.close()


@contextmanager
def _server(directory: Path, root: Path) -> Iterator[tuple[str, str]]:
    token = secrets.token_hex(16)
    private = directory / ".jupyter"
    for name, value in SETTINGS.items():
        file = private / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    extensions = private / "data" / "labextensions"
    extensions.mkdir(parents=True)
    (extensions / "nbcontain").symlink_to(EXTENSION)  # the tree's own, whatever was installed
    env = dict(
        os.environ,
        JUPYTER_PATH=str(private / "data"),
        JUPYTER_RUNTIME_DIR=str(private / "runtime"),
        JUPYTER_CONFIG_DIR=str(private / "config"),
        JUPYTERLAB_SETTINGS_DIR=str(private / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(private / "workspaces"),
        IPYTHONDIR=str(private / "ipython"),
        JUPYTER_TOKEN=token,
        NBCONTAIN_ROOT=str(root),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={directory}",
        "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        yield _address(server, private / "runtime", directory / "server.log"), token
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            port = json.loads((runtime / f"jpserver-{server.pid}.json").read_text())["port"]
            urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=5).close()
            return f"http://127.0.0.1:{port}"
        except (OSError, ValueError):
            time.sleep(0.1)
    raise AssertionError(f"the Jupyter server did not start:\n{log.read_text()[-3000:]}")
