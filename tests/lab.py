"""JupyterLab in Chromium, as a person sees it: one private server and one browser, notebooks, and hands to use them.

A browser test asks for `open_lab` (tests/conftest.py) and never starts a server of its own:

    pytestmark = [pytest.mark.browser, pytest.mark.slow]

    def test_stop_is_clicked(open_lab: OpenLab, desk_engine: Engine) -> None:
        lab = open_lab(LOAD, "%container run -d --name web box sh -c 'echo hi; sleep 60'")
        lab.run_all()
        expect(lab.card(1)).to_contain_text("hi")
        lab.button(1, "Stop").click()

`box` (busybox with a shell) is there already. The store is one for all tests of a session, `desk_engine` is an engine
on it, and the containers that a test leaves are removed after it. At a test's end the page must not have complained:
no console error, no exception, no address of another host asked for; `lab.complaints.clear()` forgives what a test
provoked. `lab.theme("dark")`, `lab.width(420)`, `lab.reload()`, `lab.another_tab()` and `lab.reopen()`, which opens the
saved notebook on a new kernel, are what else a person does. Opening a notebook costs a second, reloading a page three:
look at several things in one.
"""

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

import nbcontain
import needs

PATIENCE_MS = 20_000
"""So long a person would wait; where much else is at work, a page takes seconds for what it does at once."""
expect.set_options(timeout=PATIENCE_MS)
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
  main: () => [...(window.jupyterapp?.shell.widgets('main') ?? [])],
  panels: () => nb.main().filter(w => w.content?.widgets && w.sessionContext),
  panel: () => nb.panels().at(-1),
  status: () => nb.panel()?.sessionContext.session?.kernel?.status,
  isReady: () => !!nb.panel()?.context.isReady && ['idle', 'busy'].includes(nb.status())
      && !!nb.panel().sessionContext.session.kernel.info && nb.panel().content.widgets.length > 0,
  isIdle: () => nb.status() === 'idle' && !nb.panel().content.widgets.some(c => c.model.executionState === 'running'),
  run: async (i) => {
    nb.panel().content.activeCellIndex = i;
    nb.panel().content.deselectAll();
    await window.jupyterapp.commands.execute('notebook:run-cell');
  },
  // As much room for the notebook as there is.
  bare: () => {
    const { shell, commands } = window.jupyterapp;
    shell.mode = 'single-document';
    shell.collapseLeft();
    shell.collapseRight();
    for (const side of ['left', 'right']) if (commands.isToggled('application:toggle-side-tabbar', { side }))
      void commands.execute('application:toggle-side-tabbar', { side });
  },
  open: async (path) => {
    for (const panel of nb.panels()) { panel.context.model.dirty = false; panel.dispose(); }
    await window.jupyterapp.commands.execute('docmanager:open', { path, factory: 'Notebook' });
    nb.bare();
  },
  command: (name, args) => { void window.jupyterapp.commands.execute(name, args); },
};
"""


OpenLab = Callable[..., "Lab"]
"""open_lab(*cells, width=1100)"""


class Lab:
    """A notebook that is open in JupyterLab."""

    def __init__(self, desk: Desk, page: Page, path: Path) -> None:
        self.page, self.path, self._desk = page, path, desk
        self.complaints: list[str] = []
        """Errors that the page reported, and addresses of other hosts that it asked for."""
        self._listeners = {
            "pageerror": lambda error: self.complaints.append(str(error)),
            "console": self._said,
            "requestfailed": self._refused,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]
        self._open()

    def _said(self, message: Any) -> None:
        """Errors, but for what Lab says of its own debugger when a kernel ends soon after it began."""
        if message.type == "error" and "debugger state" not in message.text:
            self.complaints.append(message.text)

    def _refused(self, request: Any) -> None:
        """Of other hosts, that is; what a reload cuts short is none of ours."""
        if not request.url.startswith(self._desk.url):
            self.complaints.append(f"asked for {request.url}")

    def leave(self) -> None:
        """Nobody looks at it any more; the page can show another one."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def _open(self) -> None:
        if self.page.evaluate("() => !!window.nb?.bare && !!window.jupyterapp"):
            self.page.evaluate("path => nb.open(path)", str(self.path.relative_to(self._desk.directory)))
        else:
            self.page.goto(self._desk.address(self.path), wait_until="domcontentloaded")
        self.page.wait_for_function("window.nb && nb.isReady()", timeout=60_000)
        self.page.evaluate("() => nb.bare()")

    # --- as a person does ---

    def run(self, number: int, timeout_s: float = 60) -> None:
        """Run a code cell (counted from 0) to its end."""
        self.start(number)
        self.page.wait_for_function("nb.isIdle() && window.ran", timeout=timeout_s * 1000)

    def start(self, number: int) -> None:
        """Run a code cell without waiting for it."""
        self.page.evaluate("i => { window.ran = false; nb.run(i).finally(() => { window.ran = true; }); }", number)

    def run_all(self) -> None:
        """Run the cells one after the other."""
        for number in range(self.page.locator(".jp-Notebook .jp-Cell").count()):
            self.run(number)

    def save(self) -> None:
        """Ctrl-S."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def reload(self) -> None:
        """Ctrl-S, then the browser's reload button."""
        self.save()
        self.page.goto("about:blank")
        self._open()

    def reopen(self) -> None:
        """Ctrl-S, shut the kernel down, and open the saved notebook again, on a kernel that knows nothing of it."""
        self.save()
        self.page.goto("about:blank")
        self._desk.end_kernels()
        self._open()

    @contextmanager
    def another_tab(self) -> Iterator[Lab]:
        """The same notebook, with its kernel, in a second tab of the browser."""
        page = self._desk.page()
        other = Lab(self._desk, page, self.path)
        try:
            yield other
        finally:
            self.complaints += other.complaints
            page.close()

    def theme(self, name: str) -> None:
        """Settings → Theme: light or dark."""
        self.page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", THEMES[name])
        self.page.wait_for_function("t => document.body.dataset.jpThemeName === t", arg=THEMES[name])
        # Lab takes its splash away some time later, and complains where another theme has come meanwhile.
        self.page.wait_for_function("() => !document.getElementById('jupyterlab-splash')")

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

    def whole_picture(self, path: Path, height: int = 3000) -> None:
        """PNGs of the notebook from top to bottom, as many as it takes: NAME-1.png, NAME-2.png …"""
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": size["width"], "height": height})
        pane = self.page.locator(".jp-WindowedPanel-outer").last
        whole, step = pane.evaluate("e => [e.scrollHeight, e.clientHeight]")
        for number in range(-(-whole // step)):
            pane.evaluate("(e, top) => { e.scrollTop = top; }", number * step)
            self.page.wait_for_timeout(1000)  # frames of pages are drawn anew where cells come back into view
            self.picture(path.with_stem(f"{path.stem}-{number + 1}"))
        self.page.set_viewport_size(size)

    def cell_picture(self, numbers: Sequence[int], path: Path) -> None:
        """A PNG of these cells, which stand below each other."""
        self.page.evaluate("() => { nb.panel().content.activeCellIndex = nb.panel().content.widgets.length - 1; }")
        first = self.page.locator(".jp-Notebook .jp-Cell").nth(numbers[0])
        size = self.page.viewport_size
        assert size is not None
        # As tall as they are: what is scrolled out of sight is in no picture.
        self.page.set_viewport_size({"width": size["width"], "height": 2400})
        first.scroll_into_view_if_needed()
        cells = self.page.locator(".jp-Notebook .jp-Cell")
        boxes = [box for number in numbers if (box := cells.nth(number).bounding_box())]
        left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
        right, bottom = (max(box[a] + box[b] for box in boxes) for a, b in (("x", "width"), ("y", "height")))
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        self.page.screenshot(path=str(path), clip=clip)  # type: ignore[arg-type]
        self.page.set_viewport_size(size)


class Desk:
    """A server and a browser, for notebooks one after the other."""

    def __init__(self, url: str, token: str, directory: Path, root: Path, browser: Browser) -> None:
        self.url, self._token, self.directory, self.root, self.browser = url, token, directory, root, browser
        self._context = browser.new_context(reduced_motion="reduce", accept_downloads=True)
        self._context.set_default_timeout(PATIENCE_MS)
        self._context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        self._context.route(lambda asked: not asked.startswith(("data:", "blob:", url)), lambda route: route.abort())
        self._page = self.page()
        """Lab is loaded once, as that takes longer than all else; each notebook is opened in it."""

    def address(self, path: Path) -> str:
        """Where the browser finds a notebook."""
        return f"{self.url}/lab/tree/{path.relative_to(self.directory)}?reset&token={self._token}"

    def page(self) -> Page:
        """Another tab, in which nothing is open."""
        page = self._context.new_page()
        page.add_init_script(SCRIPT)
        return page

    @contextmanager
    def open(self, cells: Sequence[str], *, width: int = 1100, name: str = "test.ipynb") -> Iterator[Lab]:
        """A notebook of these code cells, made and opened; its kernel ends with the context."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.directory / name)
        with self.opened(name, width=width) as lab:
            yield lab

    @contextmanager
    def opened(self, name: str, *, width: int = 1100) -> Iterator[Lab]:
        """A notebook that lies there already."""
        path = self.directory / name
        self._page.set_viewport_size({"width": width, "height": 900})
        lab = Lab(self, self._page, path)
        try:
            yield lab
        finally:
            lab.leave()
            self.end_kernels()

    def end_kernels(self) -> None:
        """What "Shut Down All" does."""
        for session in self._asked("GET", "/api/sessions"):
            self._asked("DELETE", f"/api/sessions/{session['id']}")

    def _asked(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"token {self._token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextmanager
def desk(directory: Path, *, root: Path, browser: Browser | None = None) -> Iterator[Desk]:
    """A server whose notebooks lie in `directory` and whose kernels use the store at `root`, and a browser.

    A thread can have one browser only: where there is a desk already, another one takes its `browser`.
    """
    with ExitStack() as stack:
        url, token = stack.enter_context(_server(directory, root))
        yield Desk(url, token, directory, root, browser or stack.enter_context(_browser()))


@contextmanager
def opened(cells: Sequence[str], directory: Path, *, root: Path, width: int = 1100) -> Iterator[Lab]:
    """One notebook on a desk of its own: for whoever runs no other."""
    with desk(directory, root=root) as own, own.open(cells, width=width) as lab:
        yield lab


@contextmanager
def _browser() -> Iterator[Browser]:
    executable = needs.chromium()
    # Chromium refuses its own sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
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
        JUPYTER_DATA_DIR=os.environ.get("JUPYTER_DATA_DIR", str(private / "user")),
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
        # The tree's own, as the package's file has it.
        "--ServerApp.jpserver_extensions={'nbcontain.websockets': True}",
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
