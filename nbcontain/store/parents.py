"""What a snapshot lies on: the file in its directory that says so. A snapshot without it is a crash's leftover."""

from __future__ import annotations

from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.oci.digest import ChainID, Digest
from nbcontain.store import files

_LIMIT_BYTES = 256


class Parents:
    """What was read of committed snapshots, as long as their files are the same. Safe among threads."""

    def __init__(self) -> None:
        self._read: dict[ChainID, tuple[tuple[int, ...], ChainID | None]] = {}
        """What its file is known again by, and what it said."""

    def of(self, name: ChainID, directory: Path) -> ChainID | None:
        """What that snapshot lies on, which is in this directory. Raises as `read`."""
        seen, known = files.known_by(f"{directory}/parent"), self._read.get(name)
        if not seen or known is None or known[0] != seen:
            known = self._read[name] = seen, read(directory)
        return known[1]


def read(directory: Path) -> ChainID | None:
    """What the snapshot in this directory lies on; raises StoreError if there is none, or it is damaged."""
    try:
        text = files.read(f"{directory}/parent", _LIMIT_BYTES).decode("ascii")
        if text == "scratch\n":
            return None
        if text.endswith("\n"):
            return ChainID(Digest.parse(text.removesuffix("\n")))
    except FileNotFoundError as error:
        raise StoreError(f"there is no snapshot {directory.name}") from error
    except (StoreError, UnicodeDecodeError):
        pass
    raise StoreError(f"the snapshot {directory.name} is damaged", why="nobody knows what it lies on")


def written(parent: ChainID | None) -> bytes:
    """What the file says."""
    return f"{parent or 'scratch'}\n".encode()
