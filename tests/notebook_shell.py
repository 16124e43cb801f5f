"""Notebooks run one after the other in a plain IPython shell: `python notebook_shell.py NOTEBOOK…`; quick, no kernels.

Tells on a line, as JSON, for each notebook: how many claims were proved, how many cells were passed over,
how its exercises were judged, and the error of the first cell that failed, at which the notebook is left.
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

from nbcontain.linux import syscalls


def main(paths: list[str]) -> None:
    if os.geteuid() == 0:  # a bridge that a lesson makes is not to be the machine's
        syscalls.unshare(syscalls.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print(json.dumps({Path(path).stem[:2]: run(path) for path in paths}))


def run(path: str) -> dict[str, object]:
    """One notebook in a shell of its own."""
    shell = InteractiveShell.instance(colors="nocolor", config=Config(HistoryManager={"enabled": False}))
    error = ""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for cell in json.loads(Path(path).read_text())["cells"]:
            if cell["cell_type"] != "code":
                continue
            result = shell.run_cell("".join(cell["source"]), store_history=False)
            if not result.success:
                error = f"{cell['source'][0].strip()}: {result.error_before_exec or result.error_in_exec!r}"
                break
        shell.extension_manager.unload_extension("nbcontain")
    InteractiveShell.clear_instance()
    text = said.getvalue()
    judged = dict(re.findall(r"(\d\d-\d) .*: (done|\d of \d)", text))
    return {"proved": text.count("✔"), "passed_over": text.count("not run: it needs"), "judged": judged, "error": error}


if __name__ == "__main__":
    main(sys.argv[1:])
