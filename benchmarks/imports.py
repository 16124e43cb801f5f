"""What a notebook's user waits for before anything runs: `import nbcontain`, and %load_ext in an IPython shell.

The extension is loaded in a fresh shell each time: once with what is known of the host already on disk, and
once with an empty store, so that the host has to be probed and the zygote started, which must not hold the cell.
*blocked* is the longest time that the shell's own thread did not run for, in the second after that.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import heading, interleaved, row, spawned

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
IMPORT_LIMIT_MS = 60
LOAD_LIMIT_MS = 150
LOAD = """
import asyncio, os, sys, time  # a notebook's kernel and a terminal's shell both have asyncio already
os.environ["NBCONTAIN_ROOT"] = sys.argv[1]
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
shell.run_cell("1")
began = time.perf_counter()
shell.run_line_magic("load_ext", "nbcontain")
loaded = time.perf_counter()
blocked, last = 0.0, loaded
while last - loaded < 1:
    time.sleep(0.001)
    now = time.perf_counter()
    blocked, last = max(blocked, now - last), now
print(loaded - began, blocked)
"""


def main() -> None:
    """Print the table."""
    blocked: list[float] = []
    with tempfile.TemporaryDirectory(prefix="nbcontain-bench-") as directory:

        def load(root: Callable[[], str]) -> Callable[[], float]:
            def once() -> float:
                script = [sys.executable, "-c", LOAD, root()]
                words = subprocess.run(script, check=True, capture_output=True, text=True).stdout.split()
                blocked.append(float(words[-1]) * 1e3)
                return float(words[-2])

            return once

        times = interleaved(
            ROUNDS,
            {
                "bare": lambda: spawned([sys.executable, "-c", "pass"]),
                "import": lambda: spawned([sys.executable, "-c", "import nbcontain"]),
                "load": load(lambda: str(Path(directory, "store"))),
                "load cold": load(lambda: str(Path(tempfile.mkdtemp(dir=directory), "store"))),
            },
        )
    over = [b - a for a, b in zip(times["bare"], times["import"], strict=True)]
    heading("before anything runs")
    row("bare Python", times["bare"])
    row("import nbcontain, over that", over, f"{statistics.median(over):.0f} ms, at most {IMPORT_LIMIT_MS}")
    row("%load_ext nbcontain", times["load"], f"worst {max(times['load']):.0f} ms, at most {LOAD_LIMIT_MS}")
    row("%load_ext, nothing known", times["load cold"], f"worst {max(times['load cold']):.0f} ms")
    row("longest pause of the shell after it", blocked, f"worst {max(blocked):.0f} ms")


if __name__ == "__main__":
    main()
