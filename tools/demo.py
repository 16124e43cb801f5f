"""The first notebook's story in the terminal: its words, its cells and what they give, as plain text."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "01-image-or-container.ipynb"
BOLD, DIM, BLUE, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[34m", "\x1b[0m") if sys.stdout.isatty() else ("",) * 4


def tell(markdown: str) -> None:
    """Print a text cell: paragraphs wrapped, headings and tables as they are."""
    for paragraph in re.split(r"\n\s*\n", markdown):
        text = re.sub(r"\*\*(.+?)\*\*|`+(.+?)`+|\*(.+?)\*", lambda found: next(filter(None, found.groups())), paragraph)
        if text.startswith("#"):
            print("\n".join(f"{BOLD}{line.lstrip('# ')}{PLAIN}" for line in text.splitlines()))
        elif text.startswith("|"):
            print(text)
        else:
            print(textwrap.fill(" ".join(text.split()), min(96, shutil.get_terminal_size().columns)))
        print()


def main() -> int:
    """Run the notebook in a store of its own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="nbcontain-demo-", ignore_cleanup_errors=True) as home:
        os.environ.update(NBCONTAIN_DISPLAY="plain", NBCONTAIN_ROOT=f"{home}/store", IPYTHONDIR=f"{home}/ipython")
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        try:
            return play(InteractiveShell.instance(colors="nocolor", config=Config(HistoryManager={"enabled": False})))
        finally:
            clear()


def play(shell: InteractiveShell) -> int:
    """Tell and run the cells in order; 1 as soon as one fails."""
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            tell(source)
            continue
        print("\n".join(f"{BLUE}In{PLAIN} {DIM}│{PLAIN} {line}" for line in source.splitlines()), flush=True)
        result = shell.run_cell(source, store_history=False)
        print(flush=True)
        if not result.success:
            return 1
    return 0


def clear() -> None:
    """Remove what the store holds through the engine: not every file in it need belong to us."""
    from nbcontain import Engine

    with Engine() as engine:
        for container in engine.containers():
            engine.remove_container(container, force=True)
        for _, image in engine.images():
            engine.remove_image(str(image.id), force=True)


if __name__ == "__main__":
    sys.exit(main())
