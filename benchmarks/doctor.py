"""How long it takes to find out what this machine allows, and what is left of that in a start: nothing.

`doctor` tries everything anew; *cold* is the first of an engine, in which nothing is imported or begun yet; *a
terminal's* counts that process's start. `--cached` tells what is remembered since the boot, and *remembered* is what
each new engine takes to read it, before its first container.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import interleaved

from nbcontain import Engine, host
from nbcontain.commands import parse_words
from nbcontain.display.table import Table

CHECKOUT = Path(__file__).resolve().parent.parent
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
LIMITS_MS = {"doctor, cold": 400, "doctor, a terminal's": 400, "doctor, again": 400, "doctor --cached": 10}
_COLD = (
    "import time; from nbcontain import Engine; from nbcontain.commands import parse_words\n"
    "with Engine({root!r}) as engine:\n"
    "    began = time.perf_counter()\n"
    "    found, words = parse_words('', ('doctor',))\n"
    "    found.function(engine, words).text()\n"
    "    print(time.perf_counter() - began)\n"
)


def told(engine: Engine, *words: str) -> Callable[[], None]:
    """A command, drawn; what it would print is not."""

    def run() -> None:
        found, options = parse_words("", words)
        value = found.function(engine, options)
        assert isinstance(value, Table) and value.text()

    return run


def cold(root: str) -> float:
    """Seconds of the first one in a process."""
    words = [sys.executable, "-c", _COLD.format(root=root)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def detected(root: str) -> float:
    """Seconds that an engine takes to know its machine, where that is remembered. Nothing is tried."""
    probed = host._probed
    host._probed = None  # type: ignore[assignment]
    try:
        with Engine(root) as engine:
            began = time.perf_counter()
            _ = engine.host, engine.profile
            return time.perf_counter() - began
    finally:
        host._probed = probed


def main() -> None:
    """Print the table; processor time is that of this process and its children."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_BENCH_DIR")) as root, Engine(root) as engine:
        told(engine, "doctor")()
        terminal = [sys.executable, "-m", "nbcontain", "doctor"]
        environ = {**os.environ, "NBCONTAIN_ROOT": root, "PYTHONPATH": str(CHECKOUT)}

        def in_a_terminal() -> None:
            subprocess.run(terminal, env=environ, stdout=subprocess.DEVNULL, check=True)

        cases: dict[str, Callable[[], float | None]] = {
            "doctor, cold": lambda: cold(root),
            "doctor, a terminal's": in_a_terminal,
            "doctor, again": told(engine, "doctor"),
            "doctor --cached": told(engine, "doctor", "--cached"),
            "remembered": lambda: detected(root),
        }  # fmt: skip
        times = interleaved(ROUNDS, cases)
        print(f"{engine.profile.name}; {ROUNDS} rounds, milliseconds")
        print(f"{'':24}{'median':>9}{'best':>9}{'limit':>9}")
        for name, each in times.items():
            limit = LIMITS_MS.get(name, "")
            print(f"{name:24}{statistics.median(each):9.1f}{min(each):9.1f}{limit!s:>9}")


if __name__ == "__main__":
    main()
