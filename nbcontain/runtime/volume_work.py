"""What is done to volumes and mounted directories where their owners are known. Run by init, as functions.

The directory that is worked on is the function's root, so that nothing in it leads out; the image, if one is needed, is
a descriptor. Imported by whoever calls them (`Launcher.call(…, imports=…)`).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbcontain.errors import SetupFailed
from nbcontain.linux import trees
from nbcontain.linux.directories import open_directory
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import identity
from nbcontain.runtime.rootfs import function
from nbcontain.store import files, removal, tar
from nbcontain.store.clone import clone_between, copy_attributes
from nbcontain.store.layers import tar_of
from nbcontain.store.pack import Pipe
from nbcontain.store.tar_writing import header_of
from nbcontain.store.unpack import add_tar
from nbcontain.store.volumes import DATA, FILLING

_MAKING = ".making"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEXT_BYTES = 1 << 20


@function
def fill_volume(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Fill a volume, which is the root, with what the image (fds[0]) has at `path`, if the volume is empty.

    Owners, modes, times and attributes are the image's, the directory's own too. Killed at any line, the volume is
    empty still, or full, or will be by the next call. `alone` says that nobody has it mounted.
    """
    if not os.path.isdir(f"/{FILLING}"):
        if os.listdir(f"/{DATA}"):
            return {"entries": 0}
        removal.remove_tree(Path(f"/{_MAKING}"))
        entries = _copied(arguments["path"], fds)
        if entries is None:
            return {"entries": 0}
        if arguments["durable"]:
            files.sync_filesystem(Path("/"))
        files.move(Path(f"/{_MAKING}"), Path(f"/{FILLING}"))
    else:
        entries = 0
    _take_place(alone=arguments["alone"])
    if arguments["durable"]:
        files.sync_directory(Path("/"))
    return {"entries": entries}


@function
def give_to_others(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Make the root, which is empty, what the image (fds[0]) is, for whom its files belong to others.

    `arguments` are the numbers of an id map: from what is seen as their owners to whose they are to be.
    """
    moved = IdMap.from_numbers(arguments)

    def owner(uid: int, gid: int) -> tuple[int, int]:
        return moved.outside(uid, gid)

    root = os.open("/", _DIRECTORY)
    try:
        entries = clone_between(fds[0], root, owner)
        copy_attributes(fds[0], root, owner)
    finally:
        os.close(root)
    return {"entries": entries}


def _copied(path: str, fds: list[int]) -> int | None:
    """Make a copy of the image's directory, beside the volume's own; None if the image has none there."""
    if not fds:
        return None
    try:
        found = trees.open_in(fds[0], path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise SetupFailed(
            f"cannot mount volume over existing file, file exists {path}", errno=errno.ENOTDIR, path=path,
            why="a volume is a directory",
        ) from error
    try:
        os.mkdir(f"/{_MAKING}", 0o755)
        made = os.open(f"/{_MAKING}", _DIRECTORY)
        try:
            return clone_between(found, made)
        finally:
            os.close(made)
    finally:
        os.close(found)


def _take_place(*, alone: bool) -> None:
    """The finished copy becomes the volume's content."""
    if alone and not os.listdir(f"/{DATA}"):
        files.move(Path(f"/{FILLING}"), Path(f"/{DATA}"))
        return
    # Somebody has the directory mounted: it has to stay the same one.
    source, target = os.open(f"/{FILLING}", _DIRECTORY), os.open(f"/{DATA}", _DIRECTORY)
    try:
        is_new = not os.listdir(target)
        for name in os.listdir(source):
            if not os.path.lexists(f"/{DATA}/{name}"):
                files.move(Path(f"/{FILLING}/{name}"), Path(f"/{DATA}/{name}"))
        if is_new:
            copy_attributes(source, target)
    finally:
        os.close(source)
        os.close(target)
    removal.remove_tree(Path(f"/{FILLING}"))


@function
def export_volume(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Write all there is in the root to fds[0] as a tar, the root's own owner and mode first."""

    pipe = Pipe(fds[0])
    root = os.stat("/")
    pipe.write(header_of(tar.Entry(
        b"./", tar.DIRECTORY, stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid, 0, root.st_mtime_ns
    )))  # fmt: skip
    entries = tar_of("/", pipe.write, overlay=False, userxattr=False, send=pipe.send)
    pipe.flush()
    return {"entries": entries}


@function
def import_volume(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Unpack the archive that fds[0] reads, plain or compressed, onto the directory that is the root."""
    with os.fdopen(os.dup(fds[0]), "rb", buffering=0) as raw:
        applied = add_tar(raw, "/", owner=None, whole=True)
    files.sync_filesystem(Path("/"))
    return {"entries": applied.entries, "size_bytes": applied.size_bytes, "lost_owners": applied.lost_owners}


@function
def own_tree(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Everything in the root becomes that of the `user` (USER's words), as the image (fds[0]) knows them (:U)."""
    texts = [_text(fds[0], path) if fds else "" for path in ("/etc/passwd", "/etc/group")]
    user = identity.resolve(arguments["user"], *texts).user
    top = os.open("/", _DIRECTORY)
    try:
        return {"entries": _owned(top, user.uid, user.gid)}
    except OSError as error:
        raise SetupFailed(
            f"cannot make user {user.uid}:{user.gid} the owner", errno=error.errno, path=error.filename or "",
            why=f"{error.strerror}: only the ids that are mapped into this container exist, and only what belongs to "
            "them can be given away",
        ) from error  # fmt: skip
    finally:
        os.close(top)


def _owned(top: int, uid: int, gid: int) -> int:
    count, waiting = 1, [os.dup(top)]
    os.fchown(top, uid, gid)
    try:
        while waiting:
            fd = waiting.pop()
            try:
                for name in os.listdir(fd):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if (status.st_uid, status.st_gid) != (uid, gid):
                        os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
                    count += 1
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(open_directory(name, fd))
            finally:
                os.close(fd)
    finally:
        for fd in waiting:
            os.close(fd)
    return count


@function
def make_scratch(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Make the root, which is empty, what an overlay over a directory (fds[0]) needs: `upper` looks as that does."""
    for name in ("upper", "work"):
        os.mkdir(f"/{name}", 0o755)
    upper = os.open("/upper", _DIRECTORY)
    try:
        copy_attributes(fds[0], upper)
    finally:
        os.close(upper)
    return {}


@function
def empty_scratch(arguments: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Throw away what was written to the scratches in the root, one directory each; they are mounted nowhere."""
    for each in os.listdir("/"):
        for name in ("upper", "work"):
            with suppress(FileNotFoundError, NotADirectoryError):
                fd = os.open(f"/{each}/{name}", _DIRECTORY)
                try:
                    for entry in os.listdir(fd):
                        removal.remove_at(fd, os.fsencode(entry))
                finally:
                    os.close(fd)
    return {}


def _text(root: int, path: str) -> str:
    """A small regular file of the image's; "" if it is anything else."""
    try:
        fd = trees.open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _TEXT_BYTES:
            return ""
        return os.read(fd, _TEXT_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)
