"""Notebooks run one after the other in a plain IPython shell, without kernels, which is quick:

python notebook_shell.py [--solved] NOTEBOOK…

Tells on the last line, as JSON, for each notebook: how many claims were proved, how many cells were passed over, how
its exercises were judged, and the error of the first cell that failed, at which the notebook is left. With --solved
the exercises' solutions are run in place of their starters.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from nbcontain.lessons import course
from nbcontain.linux import syscalls


def main(words: list[str]) -> None:
    if os.geteuid() == 0:  # a bridge that a lesson makes is not to be the machine's
        syscalls.unshare(syscalls.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    is_solved, paths = "--solved" in words, [word for word in words if word != "--solved"]
    print(json.dumps({Path(path).stem[:2]: run(path, is_solved) for path in paths}))


def sources(path: str, is_solved: bool) -> list[str]:
    """The code of a notebook's cells."""
    found = []
    for cell in json.loads(Path(path).read_text())["cells"]:
        if is_solved and (exercise := cell["metadata"].get("exercise")):
            found += course.exercise(exercise).solution
        elif cell["cell_type"] == "code":
            found.append("".join(cell["source"]))
    return found


def run(path: str, is_solved: bool) -> dict[str, object]:
    """One notebook in a shell of its own."""
    shell = InteractiveShell.instance(colors="nocolor", config=Config(HistoryManager={"enabled": False}))
    error = ""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for source in sources(path, is_solved):
            result = shell.run_cell(source, store_history=False)
            if not result.success:
                error = f"{source.strip()}: {result.error_before_exec or result.error_in_exec!r}"
                break
        shell.extension_manager.unload_extension("nbcontain")
    InteractiveShell.clear_instance()
    text = said.getvalue()
    return {
        "proved": text.count("✔"), "passed_over": text.count("not run: it needs"), "error": error,
        "judged": dict(re.findall(r"(\d\d-\d) .*: (done|\d of \d)", text)),
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
