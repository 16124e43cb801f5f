"""Our own functions that run where programs run: inside a root file system, with nothing outside. Run by init.

After the pivot a symlink `/evil -> ../../..` of the image's resolves inside, ids are mapped, and a
deletion in an overlay makes its whiteout. Each function takes JSON arguments and file descriptors that
were opened outside, and gives a JSON object.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from nbcontain.store import files, layers

Arguments = dict[str, Any]
Function = Callable[[Arguments, list[int]], dict[str, Any]]

FUNCTIONS: dict[str, Function] = {}


def function(run: Function) -> Function:
    """Decorator: `Launcher.call` can run this by its name."""
    FUNCTIONS[run.__name__] = run
    return run


@function
def apply_tar(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Unpack a layer, which fds[0] reads, into the root."""
    with os.fdopen(fds[0], "rb", buffering=0, closefd=False) as raw:
        applied = layers.apply_tar(raw, "/", userxattr=arguments["userxattr"], ids=_ids())  # type: ignore[arg-type]
    return {
        "diff_id": str(applied.diff_id),
        "entries": applied.entries,
        "size_bytes": applied.size_bytes,
        "lost_owners": applied.lost_owners,
    }


def _ids() -> Any:
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        return "single" if lines.read().split()[2:] == ["1"] else "all"
