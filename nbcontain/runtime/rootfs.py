"""Our own functions that run where programs run: inside a root file system, with nothing outside. Run by init.

After the pivot a symlink `/evil -> ../../..` of the image's resolves inside, ids are mapped, and a
deletion in an overlay makes its whiteout. Each function takes JSON arguments and file descriptors that
were opened outside, and gives a JSON object.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        applied = layers.apply_tar(raw, "/", userxattr=arguments["userxattr"], ids=arguments["ids"])
    return {
        "diff_id": str(applied.diff_id),
        "entries": applied.entries,
        "size_bytes": applied.size_bytes,
        "lost_owners": applied.lost_owners,
    }


@function
def changes(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """What an upper directory changes of its lowers, as docker says it; the root is the store's snapshots."""
    letters: dict[type, str] = {layers.Added: "A", layers.Modified: "C", layers.Deleted: "D"}
    skip = frozenset(arguments["skip"])
    found = layers.changes(arguments["upper"], arguments["lowers"], userxattr=arguments["userxattr"], skip=skip)
    return {"changes": [[letters[type(change)], change.path] for change in found]}


@function
def tar_of(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Write the root, a snapshot's own changes, to fds[0] as a layer, after removing what was made as stubs."""
    for stub in sorted(arguments["stubs"], reverse=True):
        _remove_stub(stub)

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fds[0], view) :]

    entries = layers.tar_of("/", write, overlay=arguments["overlay"], userxattr=arguments["userxattr"])
    return {"entries": entries}


def _remove_stub(path: str) -> None:
    """A mount point that nobody used for anything else: an empty file, or an empty directory."""
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(path)
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.unlink(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR):
            raise


@function
def remove_tree(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Remove a directory of the root."""
    files.remove_tree(Path("/") / arguments["name"])
    return {}
