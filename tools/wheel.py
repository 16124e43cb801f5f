"""What hatchling asks while it builds a wheel: the manual pages are made then, and `pip install` installs them.

`man nbcontain-run` finds them beside the program: man(1) derives …/share/man from each …/bin of PATH.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """Adds share/man/man1 to the wheel."""

    def dependencies(self) -> list[str]:
        """The table of commands is read, and with it the modules behind it; all but one of them need Python alone."""
        return ["pyyaml>=6.0"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is written."""
        # Where the build fails nobody calls `finalize`: then the directory goes with this object.
        self._folder = tempfile.TemporaryDirectory(prefix="nbcontain-man-")
        # A process of its own: what is imported here is this source, and it leaves no traces in it.
        program = Path(self.root, "tools", "manual.py")
        subprocess.run([sys.executable, "-B", program, self._folder.name], check=True)
        for page in sorted(Path(self._folder.name).iterdir()):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """When it is written."""
        self._folder.cleanup()
