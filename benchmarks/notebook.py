"""What a person waits for in JupyterLab: loading, first paint, a line, a key, the explorer, a page that stays awake.

Chromium and JupyterLab as the browser tests have them (tests/lab.py), one page, one cell after the other. Times are the
page's own, from when a cell is run to when the page shows it. The peer of a key's echo is a widget of a few lines that
sends back what it gets. `python benchmarks/notebook.py profile` tells where the page's time goes while lines pour in.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests")]
# Kernels find modules compiled, as they do where the package is installed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import lab  # noqa: E402
import places  # noqa: E402
from archives import archive, member  # noqa: E402
from images import BUSYBOX  # noqa: E402
from nbcontain import Engine  # noqa: E402
from nbcontain.build.plan import BuildOptions  # noqa: E402

ECHO = """import anywidget
class Echo(anywidget.AnyWidget):
    _esm = "export default { render({ model, el }) { window.echo = model; el.textContent = 'echo'; } }"
echo = Echo()
echo.on_msg(lambda widget, content, buffers: widget.send(content))
echo"""
LINES = 100_000
CELLS = (
    "import time; began = time.perf_counter(); get_ipython().run_line_magic('load_ext', 'nbcontain'); "
    "print('took', time.perf_counter() - began)",
    "%container run -d --name first box sleep 600",
    "%container run -d --name second box sleep 600",
    """%container run -d --name clock box sh -c "while :; do cut -d' ' -f1 /proc/uptime; sleep 0.25; done\"""",
    ECHO,
    "%container exec -it first cat",
    "%image layers many",
    "%container rm -f clock first second",
    f"%container run -d --name flood box sh -c \"sleep 1; seq 1 {LINES} | sed 's/^/a line of some length, number /'; "
    'sleep 60"',
)
SHOWN = """async ([cell, what]) => {
  const area = document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelector('.jp-Cell-outputArea');
  const began = performance.now();
  const seen = new Promise(done => {
    const times = [], now = () => performance.now() - began;
    const look = () => {
      while (times.length < what.length && area.querySelector(what[times.length])) times.push(now());
      if (times.length === what.length) { watch.disconnect(); done(times); }
    };
    const watch = new MutationObserver(look);
    watch.observe(area, { subtree: true, childList: true }); });
  void nb.run(cell);
  return await seen;
}"""
DELAYS = """async ([cell, booted, count]) => {
  const log = document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelector('.nbc-log');
  return await new Promise(done => { const delays = [];
    new MutationObserver(() => {
      const written = Number(log.lastElementChild?.textContent);
      if (written) delays.push(performance.timeOrigin + performance.now() - 1000 * (booted + written));
      if (delays.length === count) done(delays); }).observe(log, { childList: true }); });
}"""
KEYS = """cell => {
  const xterm = document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelector('.xterm');
  const rows = xterm.querySelector('.xterm-rows');
  const pressed = [];
  window.echoed = [];
  xterm.addEventListener('keydown', () => { pressed.push(performance.now()); }, true);
  new MutationObserver(() => {
    while (echoed.length < pressed.length && rows.textContent.includes('k'.repeat(echoed.length + 1)))
      echoed.push(performance.now() - pressed[echoed.length]);
  }).observe(rows, { subtree: true, childList: true, characterData: true });
}"""
ECHOES = """async count => {
  const took = [];
  for (let i = 0; i < count; i++) {
    await new Promise(done => setTimeout(done, 150));
    const began = performance.now();
    await new Promise(done => { const back = () => { window.echo.off('msg:custom', back); done(); };
      window.echo.on('msg:custom', back); window.echo.send({ i }); });
    took.push(performance.now() - began);
  }
  return took;
}"""
POURED = """async ([cell, last]) => {
  const area = document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelector('.jp-Cell-outputArea');
  const tasks = [], watch = new PerformanceObserver(list => tasks.push(...list.getEntries().map(e => e.duration)));
  watch.observe({ entryTypes: ['longtask'] });
  let gap = 0, before = performance.now(), began = 0, isOver = false;
  const frame = () => { const now = performance.now(); gap = Math.max(gap, now - before); before = now;
    if (!isOver) requestAnimationFrame(frame); };
  const took = await new Promise(done => {
    new MutationObserver(() => {
      const text = area.querySelector('.nbc-log')?.textContent ?? '';
      if (!began && text) { began = before = performance.now(); requestAnimationFrame(frame); }
      if (!isOver && text.includes(last)) { isOver = true; done(performance.now() - began); }
    }).observe(area, { childList: true, subtree: true });
    void nb.run(cell); });
  await new Promise(done => setTimeout(done, 200));
  return { took, gap, tasks };
}"""


def told(what: str, times_ms: Sequence[float], limit: str) -> None:
    """A line of the table."""
    ordered = sorted(times_ms)
    print(f"{what:44} {statistics.median(ordered):7.1f} ms {ordered[0]:7.1f} ms {ordered[-1]:7.1f} ms   {limit}")


def typed(page: Any, cell: int, count: int) -> list[float]:
    """Keys pressed as a keyboard does: how long each took, from when the page has it until its echo is drawn.

    Events that a script makes up are none: xterm.js takes both of a key's for one, and sends it twice.
    """
    page.evaluate(KEYS, cell)
    for _ in range(count):
        page.wait_for_timeout(150)
        page.keyboard.press("k")
    page.wait_for_function(f"echoed.length === {count}")
    return list(page.evaluate("echoed"))


def filled(root: Path) -> None:
    """A store with the images that are looked at."""
    with tempfile.TemporaryDirectory() as context, Engine(root) as engine:
        shutil.copy2(shutil.which("busybox") or "", Path(context, "busybox"))
        engine.build(BUSYBOX, BuildOptions(tags=("box",), context=Path(context))).result()
        files = [member(f"d{n % 200:03}/a/long/way/down/f{n:05}.py", data=b"x" * (n % 3000)) for n in range(20_000)]
        # As it comes by `docker import`; a load or a pull unpacks in the same way.
        Path(context, "many.tar").write_bytes(archive(*files))
        engine.archives.import_image(str(Path(context, "many.tar")), "many").result()


def measure(opened: lab.Lab) -> None:
    """Print the table."""
    page = opened.page
    opened.run(0)
    took = float(opened.wait_for_text(0, "took").split("took ")[1].split()[0])
    told("%load_ext nbcontain", [1000 * took], "≤ 150")
    for cell, which in ((1, "first"), (2, "second")):
        painted, live = page.evaluate(SHOWN, [cell, [".nbc", ".nbc button"]])
        told(f"a kernel's {which} card", [painted], "≤ 150")
        told("   the same, live: container and buttons", [live], "")
    opened.run(3)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    told("from a line to the page (clock of 10 ms)", page.evaluate(DELAYS, [3, booted, 20]), "≤ 30")
    opened.run(4)
    told("a widget that sends back what it gets", page.evaluate(ECHOES, 20), "the peer")
    opened.run(5)
    opened.output(5).locator(".xterm").click()
    told("a key's echo in a terminal", typed(page, 5, 20), "≤ 15")
    told("the explorer, of 20,000 files", page.evaluate(SHOWN, [6, ["[role=tree] [role=treeitem]"]]), "≤ 500")
    opened.save()
    outputs = saved_cells(opened.path)[6]["outputs"]
    print(f"{'what the notebook keeps of it':44} {len(json.dumps(outputs)) / 1000:7.0f} kB   < 300")
    opened.run(7)
    poured = page.evaluate(POURED, [8, f"number {LINES}"])
    tasks = sorted(poured["tasks"])[::-1]
    print(f"{LINES:,} lines in {poured['took'] / 1000:.1f} s (≤ 3), longest frame {poured['gap']:.0f} ms, "
          f"{len(tasks)} tasks above 50 ms, the longest {[round(each) for each in tasks[:5]]}")  # fmt: skip


def saved_cells(path: Path) -> list[Any]:
    """The saved notebook's cells."""
    return list(json.loads(path.read_text())["cells"])


def profile(opened: lab.Lab) -> None:
    """Where the page's processor time goes while lines pour in, function by function."""
    opened.run(0)
    session = opened.page.context.new_cdp_session(opened.page)
    session.send("Profiler.enable")
    session.send("Profiler.setSamplingInterval", {"interval": 500})
    session.send("Profiler.start")
    print(opened.page.evaluate(POURED, [8, f"number {LINES}"]))
    found = session.send("Profiler.stop")["profile"]
    frames = {node["id"]: node["callFrame"] for node in found["nodes"]}
    spent: Counter[str] = Counter()
    for node, delta in zip(found["samples"], found["timeDeltas"], strict=True):
        frame = frames[node]
        spent[f"{frame['functionName'] or '(anonymous)'} {frame['url'][-40:]}:{frame['lineNumber']}"] += delta
    for name, us in spent.most_common(25):
        print(f"{us / 1000:8.1f} ms  {name}")


def main() -> None:
    """On a store and a server of its own."""
    if missing := [name for name in ("chromium", "busybox") if shutil.which(name) is None]:
        print(f"without {' and '.join(missing)} nothing is measured")
        return
    print(f"load {os.getloadavg()[0]:.1f}{'median':>39}       {'least':>5}      {'most':>5}   limit")
    with places.store_directory() as root, tempfile.TemporaryDirectory() as notebooks:
        filled(root)
        with lab.opened(CELLS, Path(notebooks), root=root) as opened:
            (profile if sys.argv[1:] == ["profile"] else measure)(opened)


if __name__ == "__main__":
    main()
