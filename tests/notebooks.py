"""A notebook's IPython shell in the tests' own process, with our magics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import nbcontain as nb
from images import BUSYBOX


class Notebook:
    """An IPython shell with our magics."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.engine: nb.Engine = shell.nbcontain.session.engine  # type: ignore[attr-defined]

    def run(self, cell: str) -> Any:
        """Run a cell; gives its value, or raises its error."""
        done = self.shell.run_cell(cell)
        done.raise_error()
        return done.result

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def clear(self) -> None:
        """Remove every container."""
        for container in self.engine.containers():
            self.engine.remove_container(container, force=True)


@contextmanager
def notebook(directory: Path, **environ: str) -> Iterator[Notebook]:
    """One that is run in a directory that holds busybox, and has the image `box`; its containers end with it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.chdir(directory)
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "nbcontain")
        opened = Notebook(shell)
        opened.run(f"%%dockerfile -q -t box\n{BUSYBOX}")
        yield opened
        opened.clear()
        shell.run_line_magic("unload_ext", "nbcontain")
        InteractiveShell.clear_instance()
