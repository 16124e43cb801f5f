"""A build context: a directory that COPY takes files from, less what .dockerignore names.

Nothing outside the directory is ever read (see `walk`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nbcontain.build.fingerprint import ContentCache, Fingerprint
from nbcontain.build.patterns import Ignore
from nbcontain.build.selection import ANOTHER_CONTEXT, Wanted, select, tops
from nbcontain.build.walk import Entry, Walk, opened_file
from nbcontain.errors import BuildError, did_you_mean
from nbcontain.oci.digest import Digest

__all__ = ["ContentCache", "Context", "Entry", "Wanted"]

MAX_IGNORE_BYTES = 1 << 20
MAX_DOCKERFILE_BYTES = 16 << 20


class Context:
    """The files of one directory, as a build sees them. Holds no descriptor; cheap to make.

    `ignore` stands for its .dockerignore, and so does the file NAME.dockerignore for the Dockerfile NAME in it.
    """

    def __init__(
        self, root: Path, cache: ContentCache | None = None, *, ignore: Ignore | None = None, dockerfile: str = "",
        called: str = "",
    ) -> None:  # fmt: skip
        """`called` is what people know it by who have never heard of its directory."""
        # What is known of it is known by this name, from wherever it is built.
        self.root = root.absolute()
        self._called = called or str(self.root)
        self.cache = cache or ContentCache()
        self._ignore = ignore
        self._selected: dict[Wanted, list[Entry]] = {}
        self._ignore_names = (*([f"{dockerfile}.dockerignore"] if dockerfile else []), ".dockerignore")

    def open_fd(self) -> int:
        """A new O_PATH descriptor of the root directory, for the copier. Raises BuildError."""
        try:
            return os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BuildError(
                f"the build context {self.root} cannot be opened",
                why=os.strerror(error.errno or 0),
                hint=ANOTHER_CONTEXT,
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[int]:
        root_fd = self.open_fd()
        try:
            yield root_fd
        finally:
            os.close(root_fd)

    @property
    def ignore(self) -> Ignore:
        """What .dockerignore says; read once. Raises BuildError."""
        if self._ignore is None:
            with self._opened() as root_fd:
                texts = ((name, _read(root_fd, name, MAX_IGNORE_BYTES)) for name in self._ignore_names)
                name, data = next(((name, data) for name, data in texts if data is not None), (".dockerignore", b""))
                self._ignore = Ignore.parse(data.decode("utf-8", "surrogateescape"), name)
        return self._ignore

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """A file of the context, ignored or not; None if there is none. Raises BuildError for one that is larger."""
        with self._opened() as root_fd:
            return _read(root_fd, path, max_bytes)

    def select(self, wanted: Wanted) -> list[Entry]:
        """What these sources (relative paths or patterns) stand for, in their order, directories sorted by name.

        Raises BuildError for a source that is not there; a pattern may match nothing.
        """
        with self._opened() as root_fd:
            found = self._selected[wanted] = select(Walk(root_fd, self.ignore), wanted, self._missing)
            return found

    def selected(self, wanted: Wanted) -> list[Entry]:
        """The same, as it was when this was last selected, if it was: for who tells of what was copied then."""
        return self._selected.get(wanted) or self.select(wanted)

    def digest(self, wanted: Wanted, on_read: Callable[[int], None] | None = None) -> Digest:
        """The identity of what these sources copy: targets, kinds, modes, links, contents and attributes, but no times.

        `on_read` is called with the number of bytes read, now and then. Raises BuildError.
        """
        with self._opened() as root_fd, Fingerprint(str(self.root), root_fd, self.cache, on_read) as found:
            walk = Walk(root_fd, self.ignore)
            if wanted.parents or wanted.excludes or any(pattern.readmits for pattern in self.ignore.patterns):
                found.add(select(walk, wanted, self._missing))
                return Digest("sha256", found.hexdigest())
            for top in (top for source in wanted.sources for top in tops(walk, source, self._missing)):
                if top.kind == "directory":
                    found.add_tree(top, self.ignore, walk.state_of(top.path))
                else:
                    found.add([top])
            return Digest("sha256", found.hexdigest())

    def _missing(self, walk: Walk, path: str) -> BuildError:
        pattern = walk.ignore.ignoring(path)
        if pattern is not None and walk.resolve(path) is not None:
            return BuildError(
                f"no {path} in the build context",
                why=f"line {pattern.line} of {walk.ignore.name} leaves it out: {pattern.text}",
                hint=f"Add a line !{path} to {walk.ignore.name}.",
            )
        if walk.is_pipe(path):
            return BuildError(
                f"{path} in the build context is a named pipe", why="what comes through it is no file: docker, too, "
                "copies nothing of it", hint="It is left out of the directories that are copied; so leave it out here.",
            )  # fmt: skip
        link = walk.entry(path, "")
        if link is not None and link.kind == "symlink":
            why = f"it is a symlink to {link.link}, and there is no such file in the context, {self._called}"
            return BuildError(f"no {path} in the build context", why=why, hint="COPY sees nothing outside the context.")
        parent, _, name = path.rpartition("/")
        directory = walk.resolve(parent or ".")
        names = [each for each in walk.names(directory) if each != name] if directory is not None else []
        hint = did_you_mean(name, names, ANOTHER_CONTEXT, lambda near: os.path.join(parent, near))
        why = f"the context is {self._called}" if walk.names(".") else "nothing is in it"
        return BuildError(f"no {path} in the build context", why=why, hint=hint)


def _read(root_fd: int, name: str, max_bytes: int) -> bytes | None:
    """A file below the root, its symlinks followed there; None if there is none."""
    walk = Walk(root_fd, Ignore())
    path = walk.resolve(name)
    entry = walk.entry(path, "") if path is not None else None
    if path is None or entry is None or entry.kind != "file":
        return None
    if entry.size > max_bytes:
        raise BuildError(f"{name} is larger than {max_bytes >> 20} MiB")
    with opened_file(root_fd, path) as fd:
        data = bytearray()
        while len(data) <= max_bytes and (piece := os.read(fd, 1 << 20)):
            data += piece
        return bytes(data[:max_bytes])
