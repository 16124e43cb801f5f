"""Directories of the tests' own that stores lie in."""

from __future__ import annotations

import shutil
import time
from pathlib import Path


def remove(directory: Path) -> None:
    """Remove it whole. What a store still writes out in the background may come in between, but not for long."""
    for left in reversed(range(40)):
        try:
            shutil.rmtree(directory)
            return
        except OSError:
            if not directory.exists():
                return
            if not left:
                raise
            time.sleep(0.05)
