"""Looking around in a build context, without ever leaving it.

Symlinks are resolved inside the root, and files are opened from directory to directory without following
any, so that a link put there meanwhile does not lead out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from nbcontain.build.patterns import Glob, Ignore, Matched, has_wildcards
from nbcontain.errors import BuildError
from nbcontain.linux.directories import open_directory
from nbcontain.values import dataclass, field

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["file", "directory", "symlink", "device", "pipe", "empty"]
else:
    Kind = str

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_LINKS = 40

Stat = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


@dataclass(slots=True)
class Entry:
    """A file, directory or symlink that a COPY takes. Not frozen, for speed: one is made per file."""

    path: str
    """Under the context's root, "." for the root itself; no directory on the way is a symlink."""
    target: str
    """Where it goes under the destination: "." for the destination itself, else a relative path.

    Of a directory that is a source, first comes the entry "." (its mode counts only if the destination is made
    by this copy), then its contents. A file that is a source has its name here.
    """
    kind: Kind
    mode: int
    """The twelve permission bits."""
    is_content: bool
    """It is (or is in) a directory that is a source, so that the destination is a directory."""
    size: int = 0
    link: str = ""
    """What a symlink says; not resolved."""
    inode: tuple[int, int] | None = None
    """Device and inode of a file that has several names."""
    device: int = 0
    owner: tuple[int, int] = (0, 0)
    """As the file system has it; what is copied from a context is root's."""
    is_archive: bool = False
    """It gives its contents."""
    stat: Stat = field(default=(0, 0, 0, 0, 0), compare=False, repr=False)

    def to_json(self) -> list[object]:
        """For the copier, which runs in another process: everything but `stat`, in the order of the fields."""
        return [
            self.path, self.target, self.kind, self.mode, self.is_content, self.size, self.link, self.inode,
            self.device, self.owner, self.is_archive,
        ]  # fmt: skip


class Walk:
    """Looks around beneath one root. Paths are relative, "." is the root."""

    def __init__(self, root_fd: int, ignore: Ignore, *, special: bool = False) -> None:
        """`special` takes devices and pipes too: in an image they are files like others."""
        self.root_fd = root_fd
        self.ignore = ignore
        self.special = special

    def resolve(self, path: str) -> str | None:
        """The path with its symlinks followed, none of them out of the root; None if there is nothing."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        real: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del real[-1:]
                continue
            here = "/".join((*real, part))
            found = self._lstat(here)
            if found is None or (pending and not stat.S_ISDIR(found.st_mode) and not stat.S_ISLNK(found.st_mode)):
                return None
            if not stat.S_ISLNK(found.st_mode):
                real.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise BuildError(f"{path} in the build context is a symlink that leads in circles")
            link = self._readlink(here)
            if link.startswith("/"):
                # In the image / would be another directory; in the context it is the context.
                real = []
            pending += [each for each in reversed(link.split("/")) if each not in ("", ".")]
        return "/".join(real) or "."

    def is_pipe(self, path: str) -> bool:
        """Whether a named pipe is there."""
        real = self.resolve(path)
        found = None if real is None else self._lstat(real)
        return found is not None and stat.S_ISFIFO(found.st_mode)

    def entry(self, path: str, target: str, is_content: bool = False) -> Entry | None:
        """The entry at this path; None if it is nothing that can be copied."""
        found = self._lstat(path)
        return None if found is None else self._entry(path, target, found, is_content)

    def _entry(self, path: str, target: str, found: os.stat_result, is_content: bool) -> Entry | None:
        kind = stat.S_IFMT(found.st_mode)
        mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        if kind == stat.S_IFREG:
            inode = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
            size, seen = found.st_size, stat_key(found)
            return Entry(path, target, "file", mode, is_content, size, inode=inode, owner=owner, stat=seen)
        if kind == stat.S_IFDIR:
            return Entry(path, target, "directory", mode, is_content, owner=owner, stat=stat_key(found))
        if kind == stat.S_IFLNK:
            link, seen = self._readlink(path), stat_key(found)
            return Entry(path, target, "symlink", 0o777, is_content, link=link, owner=owner, stat=seen)
        if self.special and kind in (stat.S_IFCHR, stat.S_IFBLK):
            return Entry(path, target, "device", found.st_mode, is_content, device=found.st_rdev, owner=owner)
        if self.special and kind == stat.S_IFIFO:
            return Entry(path, target, "pipe", mode, is_content, owner=owner)
        if not self.special and kind != stat.S_IFIFO:
            # As in BuildKit (testCopySocket) an empty file stands for a socket, and for a device.
            return Entry(path, target, "empty", mode, is_content, owner=owner)
        # In a context, pipes belong to what runs there now.
        return None

    def ignored(self, path: str) -> bool:
        """Whether .dockerignore leaves out this path. A directory with something readmitted in it is in."""
        if path == ".":
            return False
        pattern = self.ignore.ignoring(path)
        if pattern is None:
            return False
        return not (self.ignore.may_readmit_below(path) and next(iter(self.below(path)), None) is not None)

    def below(self, directory: str) -> Iterator[Entry]:
        """Everything in a directory but what is ignored, parents before children, sorted by name."""
        state = self.state_of(directory)
        return self._below(directory, "", state)

    def state_of(self, directory: str) -> Matched:
        """What .dockerignore's patterns say of a directory, for what is in it."""
        state = self.ignore.nothing_matched
        if directory != ".":
            parts = directory.split("/")
            for count in range(len(parts)):
                _, state = self.ignore.match("/".join(parts[: count + 1]), state)
        return state

    def _below(self, directory: str, target: str, state: Matched) -> Iterator[Entry]:
        # A stack and no recursion, since the depth of the tree is not ours.
        stack = [iter(self._children(directory, target, state))]
        held: list[Entry] = []
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                del held[max(len(stack) - 1, 0) :]
                continue
            entry, is_ignored, inner = following
            if entry.kind == "directory":
                if is_ignored and not self.ignore.may_readmit_below(entry.path):
                    continue
                # An ignored directory appears only if something in it does.
                held.append(entry)
                if not is_ignored:
                    yield from _release(held)
                stack.append(iter(self._children(entry.path, entry.target, inner)))
            elif not is_ignored:
                yield from _release(held)
                yield entry

    def _children(self, directory: str, target: str, state: Matched) -> list[tuple[Entry, bool, Matched]]:
        """Each child, whether it is ignored, and what its own children need to know of that."""
        children: list[tuple[Entry, bool, Matched]] = []
        try:
            with opened_directory(self.root_fd, directory) as fd:
                for name in sorted(os.listdir(fd)):
                    path = _joined(directory, name)
                    ignored, inner = self.ignore.match(path, state)
                    try:
                        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        # Removed meanwhile; or an overlay lists a whiteout that hides nothing.
                        continue
                    entry = self._entry(path, f"{target}/{name}".lstrip("/"), found, True)
                    if entry is not None:
                        children.append((entry, ignored, inner))
        except OSError as error:
            raise unreadable(directory, error) from error
        return children

    def matching(self, pattern: str) -> Iterator[str]:
        """Paths that match a pattern, component by component; symlinks are not walked through. Sorted."""
        components = pattern.split("/")
        plain = 0
        while plain < len(components) - 1 and not has_wildcards(components[plain]):
            plain += 1
        start = self.resolve("/".join(map(unescaped, components[:plain])) or ".")
        if start is None:
            return
        globs = [Glob.compile(component) for component in components[plain:]]
        pending = [(start, 0)]
        found: list[str] = []
        while pending:
            directory, depth = pending.pop()
            for name in self.names(directory):
                if not globs[depth].matches(name):
                    continue
                path = _joined(directory, name)
                if depth + 1 < len(globs):
                    pending.append((path, depth + 1))
                elif not self.ignored(path) and self.entry(path, name) is not None:
                    found.append(path)
        yield from sorted(found)

    def matching_deep(self, start: str, pattern: str) -> Iterator[str]:
        """Like `matching`, below the directory `start`, where ** stands for any number of directories."""
        globs = [None if part == "**" else Glob.compile(part) for part in pattern.split("/")]
        pending, found = [(start, 0)], set()
        while pending:
            directory, depth = pending.pop()
            glob, is_last = globs[depth], depth + 1 == len(globs)
            if glob is None and not is_last:
                pending.append((directory, depth + 1))
            for name in self.names(directory):
                path = _joined(directory, name)
                if glob is None:
                    pending.append((path, depth))
                elif not glob.matches(name):
                    continue
                elif not is_last:
                    pending.append((path, depth + 1))
                if is_last and not self.ignored(path):
                    found.add(path)
        yield from sorted(found)

    def names(self, directory: str) -> list[str]:
        """What is in a directory; nothing if it is none."""
        try:
            with opened_directory(self.root_fd, directory) as fd:
                return os.listdir(fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
                return []
            raise unreadable(directory, error) from error

    def _lstat(self, path: str) -> os.stat_result | None:
        parent, name = os.path.split(path)
        try:
            with opened_directory(self.root_fd, parent or ".", os.O_PATH) as fd:
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise unreadable(path, error) from error

    def _readlink(self, path: str) -> str:
        parent, name = os.path.split(path)
        try:
            with opened_directory(self.root_fd, parent or ".", os.O_PATH) as fd:
                return os.readlink(name, dir_fd=fd)
        except OSError as error:
            raise unreadable(path, error) from error


def _joined(directory: str, name: str) -> str:
    return name if directory == "." else f"{directory}/{name}"


def _release(held: list[Entry]) -> Iterator[Entry]:
    """The directories that were waiting for something to be in them; each only once."""
    for index, entry in enumerate(held):
        if entry.target:
            yield entry
            held[index] = Entry(entry.path, "", "directory", entry.mode, True)


@contextmanager
def opened_directory(root_fd: int, path: str, how: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of a directory beneath the root, reached without following a symlink."""
    fd = os.open(".", _OPEN | os.O_DIRECTORY | (how if path == "." else os.O_PATH), dir_fd=root_fd)
    try:
        parts = [] if path == "." else path.split("/")
        for index, part in enumerate(parts):
            flags = how if index == len(parts) - 1 else os.O_PATH
            deeper = open_directory(part, fd, flags)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_file(root_fd: int, path: str) -> Iterator[int]:
    """A descriptor of a regular file beneath the root. Raises BuildError."""
    parent, name = os.path.split(path)
    try:
        with opened_directory(root_fd, parent or ".", os.O_PATH) as directory:
            fd, _ = opened_name(directory, name, path)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def opened_name(directory: int, name: str, shown: str) -> tuple[int, os.stat_result]:
    """A regular file that an open directory has, for the caller to close. Raises OSError; BuildError, which calls it
    `shown`, if it is something else by now."""
    # Non-blocking, for it may have become a pipe; a regular file does not mind.
    fd = os.open(name, _OPEN | os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BuildError(f"{shown} in the build context changed while it was read")
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def unreadable(path: str, error: OSError) -> BuildError:
    """The error for what could not be read, or is another thing than a moment ago."""
    return BuildError(f"{path} in the build context cannot be read", why=os.strerror(error.errno or 0))


def stat_key(found: os.stat_result) -> Stat:
    """What changes when a file does."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def unescaped(source: str) -> str:
    r"""A source without wildcards, its \ taken away."""
    result, escaped = "", False
    for char in source:
        if char == "\\" and not escaped:
            escaped = True
            continue
        result += char
        escaped = False
    return result
