"""The tutorial notebooks themselves: where they are, and copies of them to work in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nbcontain.errors import StoreError, Unavailable, UsageError
from nbcontain.store import files
from nbcontain.values import dataclass

DIRECTORY = "nbcontain-tutorials"
"""Where copies go unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One notebook, as it is now in the directory it was wanted in."""

    path: Path
    title: str
    is_new: bool
    """It was copied; if not, a file of that name was there and has been left as it was."""


def originals() -> tuple[Path, ...]:
    """Those that came with this package: beside it in a checkout, inside it where it is installed.

    Raises Unavailable where there are none.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "notebooks", package.parent / "notebooks"):
        if found := tuple(sorted(place.glob("[0-9][0-9]-*.ipynb"))):
            return found
    raise Unavailable("the tutorial notebooks are not here", hint="install nbcontain again: its wheel has them")


def copy_to(directory: Path) -> Iterator[Copy]:
    """Copies of all of them, one after the other. What somebody may have worked in is never written over.

    Raises UsageError where nothing can be written there, DiskFull.
    """
    found = originals()
    try:
        files.make_directory(directory, 0o755, durable=False)
        for original in found:
            data, path = original.read_bytes(), directory / original.name
            yield Copy(path, title_of(data), _made(path, data))
    except OSError as error:
        why = error.strerror or ""
        raise UsageError(f"cannot write notebooks to {directory}", why=why, hint="name another directory") from error


def title_of(notebook: bytes) -> str:
    """What its first heading says; "" without one."""
    source = "".join(json.loads(notebook)["cells"][0]["source"])
    return source.splitlines()[0].removeprefix("# ") if source.startswith("# ") else ""


def _made(path: Path, data: bytes) -> bool:
    try:
        files.write_new(path, data, 0o644)
    except FileExistsError:
        return False
    except (OSError, StoreError):
        files.unlink(path)
        raise
    return True
