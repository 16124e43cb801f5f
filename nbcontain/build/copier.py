"""COPY, ADD and WORKDIR where they happen: inside the root file system that they change. Run by init.

The launcher has the zygote load this module (`Launcher(functions=…)`); here "/" is the image's root, its
symlinks lead nowhere else, and its ids are the container's.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from nbcontain.build.patterns import Ignore, has_wildcards
from nbcontain.build.walk import Entry, Walk, unescaped
from nbcontain.errors import BuildError
from nbcontain.linux import syscalls
from nbcontain.oci.spec import User
from nbcontain.runtime.identity import resolve
from nbcontain.runtime.init import text_of
from nbcontain.runtime.rootfs import Arguments, function

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_CHUNK_BYTES = 1 << 24


@function
def copy_files(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Lay entries of the build context, whose directory fds[0] is, on the root."""
    entries = [Entry(**fields) for fields in arguments["entries"]]
    return _copied(arguments, entries, fds[0])


@function
def copy_from(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Lay files of another stage, whose root fds[0] is, on the root. Raises BuildError for what is not there."""
    walk = Walk(fds[0], Ignore.parse(""))
    entries: list[Entry] = []
    for source in arguments["sources"]:
        paths = list(walk.matching(source)) if has_wildcards(source) else [unescaped(source)]
        for path in paths:
            real = walk.resolve(path)
            top = walk.entry(real, path.rsplit("/", 1)[-1]) if real is not None else None
            if real is None or top is None:
                raise BuildError(f"no /{path} in that stage or image")
            if top.kind == "directory":
                entries += [Entry(real, ".", "directory", top.mode, True), *walk.below(real)]
            else:
                entries.append(top)
    return _copied(arguments, entries, fds[0])


@function
def make_directory(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """WORKDIR: make a directory and what is missing above it, owned by `user`; nothing if it is there."""
    _make_directories(arguments["path"], owner_of(arguments["user"]))
    return {}


def owner_of(words: str) -> User:
    """Whom --chown or USER means, by the image's own files; a bare number is the group's number too. "" is root."""
    if words.isascii() and words.isdecimal():
        words = f"{words}:{words}"
    return resolve(words, text_of("/etc/passwd"), text_of("/etc/group")).user


@dataclass(slots=True)
class _Copy:
    """One COPY being done."""

    destination: str
    owner: User
    chmod: int | None
    source_fd: int
    into_directory: bool
    lost_owners: int = 0
    directories: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, mode and modification time, to be set when nothing more is put into them."""

    def take(self, entry: Entry) -> None:
        path = self._path(entry)
        match entry.kind:
            case "directory":
                self._directory(path, entry)
            case "symlink":
                self._clear(path)
                os.symlink(entry.link, path)
                self._own(path)
            case _:
                self._file(path, entry)

    def _path(self, entry: Entry) -> str:
        if entry.target == ".":
            return self.destination
        if entry.is_content or self.into_directory or os.path.isdir(self.destination):
            return os.path.join(self.destination, entry.target)
        return self.destination

    def _directory(self, path: str, entry: Entry) -> None:
        if os.path.isdir(path):
            # Also where a symlink of the image's leads to one; the destination keeps the mode that it has.
            if entry.target == ".":
                return
        elif os.path.lexists(path):
            raise BuildError(f"cannot copy a directory to {path}", why="a file of the image is in the way")
        else:
            os.mkdir(path, 0o700)
        self._own(path)
        source = self._opened(entry.path, os.O_PATH | os.O_DIRECTORY)
        try:
            mtime_ns = os.fstat(source).st_mtime_ns
        finally:
            os.close(source)
        self.directories.append((path, self._mode(entry), mtime_ns))

    def _file(self, path: str, entry: Entry) -> None:
        source = self._opened(entry.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise BuildError(f"{entry.path} changed while it was copied", why="it is no regular file any more")
            self._clear(path)
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                while os.sendfile(made, source, None, _CHUNK_BYTES):
                    pass
                self._own(made)
                # After the owner, since changing that clears the set-id bits.
                os.fchmod(made, self._mode(entry))
                os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _opened(self, path: str, flags: int) -> int:
        """A source. `Walk` has resolved its path: a symlink in it now was put there meanwhile."""
        try:
            return syscalls.openat2(self.source_fd, path, flags | os.O_NOFOLLOW, 0, _BENEATH)
        except OSError as error:
            raise BuildError(f"{path} cannot be read", why=error.strerror or "") from error

    def _clear(self, path: str) -> None:
        """Make way for a file or symlink."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            raise BuildError(f"cannot copy a file to {path}", why="a directory of the image is in the way") from error

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self.chmod is None else self.chmod

    def _own(self, target: str | int) -> None:
        if (self.owner.uid, self.owner.gid) == (0, 0):
            return
        try:
            os.chown(target, self.owner.uid, self.owner.gid, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            # Where there is one id only, everything is root's.
            self.lost_owners += 1


def _copied(arguments: Arguments, entries: list[Entry], source_fd: int) -> dict[str, Any]:
    owner = owner_of(arguments["chown"])
    destination = arguments["destination"]
    copy = _Copy(destination, owner, arguments["chmod"], source_fd, arguments["into_directory"])
    is_directory = copy.into_directory or any(entry.is_content for entry in entries)
    if not is_directory or not entries:
        _make_directories(os.path.dirname(destination), owner)
    elif not (len(entries) and entries[0].target == "." and not os.path.lexists(destination)):
        _make_directories(destination, owner)
    else:
        _make_directories(os.path.dirname(destination), owner)
    try:
        for entry in entries:
            copy.take(entry)
        for path, mode, mtime_ns in reversed(copy.directories):
            os.chmod(path, mode)
            os.utime(path, ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else destination
        raise BuildError(f"cannot write {name}", why=error.strerror or "") from error
    return {"lost_owners": copy.lost_owners}


def _make_directories(path: str, owner: User) -> None:
    """`mkdir -p` with mode 0755, following the image's symlinks; what is made belongs to `owner`."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make_directories(parent, owner)
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        raise BuildError(f"{path} cannot be made a directory", why="a file of the image has that name") from None
    if (owner.uid, owner.gid) != (0, 0):
        try:
            os.chown(path, owner.uid, owner.gid)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
