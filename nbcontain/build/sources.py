"""Where a build's context comes from: a directory, a tar archive, or files that a notebook holds in memory.

All but the directory are written into a temporary directory of the store, without ever leaving it, and are gone
when the build is over.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from nbcontain.build.graph import RemoteFile, Repository
from nbcontain.errors import BuildError, UsageError
from nbcontain.linux.directories import open_directory
from nbcontain.values import dataclass

if TYPE_CHECKING:
    import tarfile

_READ_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A file of an in-memory context. `mode` is its permission bits."""

    data: bytes
    mode: int = 0o644


Source = Path | bytes | Mapping[str, Any] | Repository | RemoteFile
"""A directory, a tar archive (a file, or its bytes), names and what is in them, or what has to be fetched."""


def is_directory(source: Source) -> bool:
    """Whether it is used as it is. A file is a tar archive; what is not there is told of by whoever looks into it."""
    return isinstance(source, Path) and not os.path.isfile(source)


def write_out(source: Path | bytes | Mapping[str, Any], root: Path) -> None:
    """Write the files of a context that is no directory below `root`, which is empty and the caller's.

    Raises BuildError for what no file can be made of, and for archives that are damaged or mean harm.
    """
    with Writer.at(root) as writer:
        if isinstance(source, bytes):
            unpack_stream(io.BytesIO(source), writer, "the context")
        elif isinstance(source, Path):
            with source.open("rb") as file:
                unpack_stream(file, writer, f"the context {source}")
        else:
            for name, value in source.items():
                _write(writer, name, value)


# --- files in memory --------------------------------------------------------------------------


def checked(name: str) -> str:
    """A name as a relative path without detours. Raises UsageError."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UsageError(f"{name!r} is no place in a context", hint="A relative path without .., as in src/app.py")
    return "/".join(parts)


def _write(writer: Writer, name: str, value: Any) -> None:
    path = checked(name)
    if isinstance(value, MemoryFile):
        writer.file(path, io.BytesIO(value.data), value.mode)
    elif isinstance(value, Path):
        _copy(writer, path, value)
    else:
        from nbcontain.objects import content

        writer.file(path, io.BytesIO(content(name, value)), 0o644)


def _copy(writer: Writer, path: str, source: Path) -> None:
    """A file or a directory of the user's own; symlinks in it stay what they are."""
    try:
        if not source.is_dir():
            with source.open("rb") as file:
                writer.file(path, file, os.fstat(file.fileno()).st_mode & 0o777)
            return
        writer.directory(path, 0o755)
        for entry in sorted(os.scandir(source), key=lambda each: each.name):
            inner = f"{path}/{entry.name}"
            if entry.is_symlink():
                writer.symlink(inner, os.readlink(entry.path))
            elif entry.is_dir() or entry.is_file():
                _copy(writer, inner, Path(entry.path))
    except OSError as error:
        raise BuildError(f"the context's {path} cannot be read", why=f"{error.strerror}: {source}") from error


# --- archives ---------------------------------------------------------------------------------


def unpack_stream(stream: IO[bytes], writer: Writer, what: str) -> None:
    """Write out what is in a tar archive, compressed or not. Raises BuildError."""
    import lzma
    import tarfile
    import zlib

    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                _unpack_one(archive, member, writer)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BuildError(f"{what} is no tar archive, or a damaged one", why=str(error)) from error


def is_archive(head: bytes) -> bool:
    """Whether a file that begins like this is a tar archive, compressed or not, as BuildKit tells them."""
    if head.startswith((b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0")):
        return True
    import tarfile

    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, writer: Writer) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in member.name:
        raise BuildError(f"the context's archive has a file outside of it: {member.name}")
    path = "/".join(parts)
    if not path:
        return
    if member.isdir():
        writer.directory(path, member.mode & 0o7777)
    elif member.issym():
        writer.symlink(path, member.linkname)
    elif member.islnk():
        writer.link(path, checked(member.linkname))
    elif member.isfile():
        with cast(IO[bytes], archive.extractfile(member)) as file:
            writer.file(path, file, member.mode & 0o7777)
    # Devices and pipes are nothing that COPY could take.


class Writer:
    """Makes files below one directory. No symlink is ever followed on the way."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd

    @classmethod
    @contextmanager
    def at(cls, root: Path) -> Iterator[Writer]:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    def file(self, path: str, data: IO[bytes], mode: int) -> None:
        with self._parent(path) as (parent, name):
            self._remove(parent, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
            with os.fdopen(fd, "wb") as file:
                while chunk := data.read(_READ_BYTES):
                    file.write(chunk)
                os.fchmod(file.fileno(), mode)

    def directory(self, path: str, mode: int) -> None:
        with self._parent(f"{path}/.") as (fd, _):
            os.fchmod(fd, mode | 0o700)

    def symlink(self, path: str, target: str) -> None:
        with self._parent(path) as (parent, name):
            self._remove(parent, name)
            os.symlink(target, name, dir_fd=parent)

    def link(self, path: str, target: str) -> None:
        with self._parent(target) as (source, old), self._parent(path) as (parent, name):
            self._remove(parent, name)
            os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that `path` is in, made if need be, and its last name."""
        *above, name = path.split("/")
        fd = os.dup(self._root)
        try:
            for part in above:
                try:
                    os.mkdir(part, 0o755, dir_fd=fd)
                except FileExistsError:
                    pass
                below = open_directory(part, fd)
                os.close(fd)
                fd = below
            yield fd, name
        except OSError as error:
            raise BuildError(f"the context's {path} cannot be made", why=error.strerror or str(error)) from error
        finally:
            os.close(fd)

    def _remove(self, parent: int, name: str) -> None:
        """A later file of the same name wins, as with tar."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
