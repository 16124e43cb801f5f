"""The build context: the directory that COPY takes files from, less what .dockerignore names.

Nothing outside the directory is ever read (see `walk`).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nbcontain.build.patterns import Ignore, has_wildcards
from nbcontain.build.walk import Entry, Stat, Walk, opened_file, stat_key, unescaped
from nbcontain.errors import BuildError
from nbcontain.oci.digest import Digest

_CHUNK = 1 << 20
_MAX_IGNORE_BYTES = 1 << 20
_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read may change again within its time stamp's grain."""

_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_USTAR_AT, _USTAR = 257, b"ustar"


class ContentCache:
    """Remembers digests of files that did not change since. Only memory: what is lost is read again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stat, str]] = {}

    def get(self, path: str, seen: Stat) -> str | None:
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == seen else None

    def put(self, path: str, seen: Stat, hexdigest: str, now_ns: int) -> None:
        if now_ns - max(seen[3], seen[4]) > _RACY_NS:
            self._known[path] = (seen, hexdigest)


class Context:
    """The files of one directory, as a build sees them. Holds no descriptor; cheap to make."""

    def __init__(self, root: Path, cache: ContentCache | None = None) -> None:
        self.root = root
        self.cache = cache or ContentCache()
        self._ignore: Ignore | None = None

    def open_fd(self) -> int:
        """A new O_PATH descriptor of the root directory, for the copier. Raises BuildError."""
        try:
            return os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BuildError(
                f"the build context {self.root} cannot be opened",
                why=os.strerror(error.errno or 0),
                hint="--context DIR names a directory.",
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
                self._ignore = Ignore.parse(_read_ignore(root_fd))
        return self._ignore

    def select(self, sources: Sequence[str], *, refuse_archives: bool = False) -> tuple[Entry, ...]:
        """What these sources (relative paths or patterns) stand for, in their order, directories sorted by name.

        Raises BuildError for a source that is not there; a pattern may match nothing. With `refuse_archives`,
        which is ADD, an archive is refused too.
        """
        entries: list[Entry] = []
        with self._opened() as root_fd:
            walk = Walk(root_fd, self.ignore)
            for source in sources:
                paths = list(walk.matching(source)) if has_wildcards(source) else [unescaped(source)]
                for path in paths:
                    found = self._source(walk, path)
                    if refuse_archives and not found[0].is_content:
                        _refuse_archive(root_fd, found[0], path)
                    entries += found
        return tuple(entries)

    def _source(self, walk: Walk, path: str) -> list[Entry]:
        real = walk.resolve(path)
        top = walk.entry(real, path.rsplit("/", 1)[-1]) if real is not None else None
        if real is None or top is None or walk.ignored(real):
            raise self._missing(walk, path)
        if top.kind != "directory":
            return [top]
        return [Entry(real, ".", "directory", top.mode, True), *walk.below(real)]

    def _missing(self, walk: Walk, path: str) -> BuildError:
        pattern = walk.ignore.ignoring(path)
        if pattern is not None and walk.resolve(path) is not None:
            return BuildError(
                f"no {path} in the build context",
                why=f"line {pattern.line} of .dockerignore leaves it out: {pattern.text}",
                hint=f"Add a line !{path} to .dockerignore.",
            )
        link = walk.entry(path, "")
        if link is not None and link.kind == "symlink":
            why = f"it is a symlink to {link.link}, and there is no such file in the context {self.root}"
            return BuildError(f"no {path} in the build context", why=why, hint="COPY sees nothing outside the context.")
        parent, _, name = path.rpartition("/")
        directory = walk.resolve(parent or ".")
        names = [each for each in walk.names(directory) if each != name] if directory is not None else []
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {os.path.join(parent, near[0])}?" if near else "--context DIR names another directory."
        return BuildError(f"no {path} in the build context", why=f"the context is {self.root}", hint=hint)

    def digest(self, entries: Iterable[Entry], on_read: Callable[[int], None] | None = None) -> Digest:
        """The identity of what these entries copy: targets, kinds, modes, links and contents, but no times.

        `on_read` is called with the number of bytes read, after each megabyte or file. Raises BuildError for a
        file that is gone since it was selected.
        """
        total = hashlib.sha256()
        with self._opened() as root_fd:
            for entry in entries:
                content = self._content(root_fd, entry, on_read) if entry.kind == "file" else ""
                fields = (entry.target, entry.kind, f"{entry.mode:o}", str(entry.is_content), entry.link, content)
                for text in fields:
                    data = os.fsencode(text)
                    # Lengths make the fields' borders part of what is hashed.
                    total.update(len(data).to_bytes(8, "big") + data)
        return Digest("sha256", total.hexdigest())

    def _content(self, root_fd: int, entry: Entry, on_read: Callable[[int], None] | None) -> str:
        key = os.path.join(self.root, entry.path)
        known = self.cache.get(key, entry.stat)
        if known is not None:
            return known
        hasher = hashlib.sha256()
        started_ns = time.time_ns()
        with opened_file(root_fd, entry.path) as fd:
            before = stat_key(os.fstat(fd))
            while chunk := os.read(fd, _CHUNK):
                hasher.update(chunk)
                if on_read is not None:
                    on_read(len(chunk))
            if stat_key(os.fstat(fd)) == before == entry.stat:
                self.cache.put(key, before, hasher.hexdigest(), started_ns)
        return hasher.hexdigest()


def _read_ignore(root_fd: int) -> str:
    """The text of .dockerignore; "" if there is none."""
    walk = Walk(root_fd, Ignore())
    path = walk.resolve(".dockerignore")
    entry = walk.entry(path, "") if path is not None else None
    if path is None or entry is None or entry.kind != "file":
        return ""
    if entry.size > _MAX_IGNORE_BYTES:
        raise BuildError(f".dockerignore is larger than {_MAX_IGNORE_BYTES >> 20} MiB")
    with opened_file(root_fd, path) as fd:
        return os.read(fd, _MAX_IGNORE_BYTES).decode("utf-8", "surrogateescape")


def _refuse_archive(root_fd: int, entry: Entry, source: str) -> None:
    if entry.kind != "file":
        return
    with opened_file(root_fd, entry.path) as fd:
        head = os.read(fd, 512)
    if head.startswith(_ARCHIVES) or head[_USTAR_AT : _USTAR_AT + len(_USTAR)] == _USTAR:
        raise BuildError(
            "ADD of an archive is a Dockerfile feature that nbcontain does not have yet",
            why=f"ADD would unpack {source}",
            hint="COPY it, and unpack it in a RUN.",
        )
