"""A path inside a container or an image, in Python's hands: `container["/etc/hosts"].text`."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from nbcontain.errors import ContainerError, NbcontainError


class Files(Protocol):
    """What a place belongs to: the files of a container, or of an image."""

    @property
    def name(self) -> str: ...

    def read(self, path: str) -> bytes:
        """What is in a file."""
        ...

    def names(self, path: str) -> list[tuple[str, str]]:
        """What is in a directory: names, and kinds as `Place.kind` has them."""
        ...

    def kind(self, path: str) -> str: ...

    def write(self, path: str, value: Any) -> None:
        """Put a Python object there. Raises ContainerError where nothing can be changed."""
        ...


class Place:
    """A path inside something. Nothing is read before it is asked for, and then it is read anew."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self.path = posixpath.normpath("/" + path.lstrip("/"))

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        try:
            kind = self.kind or "not there"
        except (NbcontainError, OSError):
            kind = "unknown"
        return f"<Place {self._files.name}:{self.path}  {kind}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self._files, self.path) == (other._files, other.path)

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def kind(self) -> str:
        """"file", "directory", "other", or "" where nothing is; of a symlink what it leads to inside."""
        return self._files.kind(self.path)

    def exists(self) -> bool:
        """Whether something is there."""
        return bool(self.kind)

    # --- reading ---

    @property
    def bytes(self) -> bytes:
        """What is in the file."""
        return self._files.read(self.path)

    @property
    def text(self) -> str:
        """The same as text; what is no UTF-8 is replaced."""
        return self.bytes.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines of the text."""
        return self.text.splitlines()

    def df(self, **how: Any) -> Any:
        """The file as a DataFrame, by its suffix: CSV, Parquet, JSON; `how` goes to the library's reader."""
        from nbcontain import objects

        return objects.table(self.name, self.bytes, **how)

    @property
    def value(self) -> Any:
        """The file as the object that its suffix says: a table, an array, values of JSON, text, bytes."""
        from nbcontain import objects

        return objects.read(self.name, self.bytes)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the file to this machine; into a directory, under its own name. Gives where it is now."""
        from nbcontain.store import destinations

        target = Path(path)
        target = target / self.name if target.is_dir() else target
        destinations.write(target, self.bytes)
        return target

    # --- looking around ---

    def __iter__(self) -> Iterator[Place]:
        """What is in the directory, by name."""
        return (self / name for name, _ in self._files.names(self.path))

    def __truediv__(self, name: str) -> Place:
        return Place(self._files, posixpath.join(self.path, name))

    def __getitem__(self, name: str) -> Place:
        return self / name

    def names(self) -> list[tuple[str, str]]:
        """What is in the directory: names and kinds."""
        return self._files.names(self.path)

    def _ipython_key_completions_(self) -> list[str]:
        try:
            return [name for name, _ in self.names()]
        except (NbcontainError, OSError):
            return []

    # --- writing ---

    def write(self, value: Any) -> None:
        """Put a Python object there, as its suffix says: text, bytes, a Path, a table, an array, values for JSON."""
        self._files.write(self.path, value)

    def __setitem__(self, name: str, value: Any) -> None:
        (self / name).write(value)


def refuse_to_write(name: str, path: str) -> None:
    """An image is what it is. Raises ContainerError."""
    raise ContainerError(
        f"{path} of the image {name} cannot be changed", why="an image never changes",
        hint="change it in a container and commit that, or build another image",
    )  # fmt: skip
