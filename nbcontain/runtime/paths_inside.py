"""Looking at a container's paths, reading and copying from and to them: functions of ours run in its root file system.

A symlink of the container's leads to where it leads inside; there is no outside, and nothing of the container's is
loaded or run for it (CVE-2018-15664, CVE-2019-14271). Run by init, and by a process that a supervisor forks into the
container's mount namespace.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from nbcontain.errors import SetupFailed
from nbcontain.linux import trees
from nbcontain.runtime.rootfs import Arguments, function
from nbcontain.store import files, tar
from nbcontain.store.tree_tar import write_tree
from nbcontain.store.unpack import add_tar

_CHUNK_BYTES = 1 << 18


@function
def look_at(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """What `path` is: kind ("file", "directory", "link", "other", "" for nothing), and whether its parent is there.

    With `follow` a symlink is what it leads to.
    """
    return _looked(arguments["path"], follow=arguments["follow"])


def _looked(path: str, *, follow: bool) -> dict[str, Any]:
    try:
        status = os.stat(path) if follow or path.endswith("/") else os.lstat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path.rstrip("/")) or "/"
        # A link that leads to nothing yet: something can be made where it leads.
        leads_to = os.path.realpath(path) if os.path.islink(path.rstrip("/")) else ""
        if leads_to:
            return {"kind": "", "parent": os.path.isdir(os.path.dirname(leads_to)), "path": leads_to}
        return {"kind": "", "parent": os.path.isdir(parent), "path": path}
    except NotADirectoryError:
        return {"kind": "", "parent": False, "path": path}
    mode = status.st_mode
    kind = (
        "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode)
        else "other"
    )  # fmt: skip
    # Through a link a file is written, as docker does, and does not take its place.
    return {"kind": kind, "parent": True, "path": os.path.realpath(path) if follow and kind != "directory" else path}


@function
def send_tree(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Write what is at `path` to fds[0] as a tar, called `name`; with `follow` what a symlink there leads to.

    Directories that are the kernel's (`empty`) are written without what is in them, unless one is asked for itself.
    """
    path = arguments["path"]
    # What is behind a symlink is named by where that leads.
    path = os.path.realpath(path) if arguments["follow"] else os.path.join(
        os.path.realpath(os.path.dirname(path.rstrip("/")) or "/"), os.path.basename(path.rstrip("/"))
    )  # fmt: skip
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    parent, leaf = os.path.split(path.rstrip("/"))
    kernels = map(os.stat, filter(os.path.isdir, arguments.get("empty", ())))
    empty = {(status.st_dev, status.st_ino) for status in kernels}
    try:
        fd = trees.open_in(root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(root)
    try:
        count = write_tree(
            fd, os.fsencode(leaf or "."), os.fsencode(arguments["name"]), lambda data: files.write(fds[0], data), empty
        )
    finally:
        os.close(fd)
    return {"entries": count}


@function
def take_tree(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Unpack the tar that fds[0] reads into the directory `path`, which is made with `make`; all of it is `owner`'s.

    Where no mount forbids devices to be opened, `guarded` says so: then only those are made that every container may
    open. Raises SetupFailed for others, and where a directory would take the place of something else, or the other way
    round.
    """
    path, owner = arguments["path"], arguments.get("owner")
    if arguments.get("make"):
        _make_directories(path, tuple(owner) if owner else None)
    if not os.path.isdir(path):
        raise SetupFailed(f"{path} is no directory", path=path)
    with os.fdopen(os.dup(fds[0]), "rb", buffering=0) as raw:
        admit = _admit if arguments["guarded"] else None
        applied = add_tar(raw, path, owner=tuple(owner) if owner else None, whole=True, admit=admit)
    return {"entries": applied.entries, "lost_owners": applied.lost_owners}


def _admit(entry: tar.Entry) -> None:
    from nbcontain.runtime.unmounted import admit_device

    kind = "b" if entry.kind == tar.BLOCK_DEVICE else "c"
    admit_device(os.fsdecode(entry.name), kind, (entry.major, entry.minor))


def _make_directories(path: str, owner: tuple[int, int] | None) -> None:
    """A directory, and those above it that are not there."""
    if os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path.rstrip("/")), owner)
    os.mkdir(path, 0o755)
    if owner:
        os.chown(path, *owner)


@function
def send_file(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Write the bytes of the file that `path` leads to to fds[0], at most `limit` of them if that is given.

    Raises OSError, and SetupFailed for what is no regular file.
    """
    # Not waiting: what is opened may be a pipe that nobody writes to.
    fd = os.open(arguments["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    left = arguments.get("limit")
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), arguments["path"])
        if not stat.S_ISREG(mode):
            raise SetupFailed(f"{arguments['path']} is no file", path=arguments["path"])
        while data := os.read(fd, _CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)):
            files.write(fds[0], data)
            left = None if left is None else left - len(data)
    finally:
        os.close(fd)
    return {}


@function
def list_directory(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """The names in the directory `path`, sorted, with their kinds as `look_at` has them; of links what they lead to.

    At most `limit` of them.
    """
    found = []
    with os.scandir(arguments["path"]) as entries:
        for entry in entries:
            kind = "directory" if entry.is_dir() else "file" if entry.is_file() else "other"
            found.append((entry.name, kind))
            if len(found) >= arguments["limit"]:
                break
    return {"entries": sorted(found)}


@function
def first_there(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """The first of `paths` that can be executed; "" if none can."""
    return {"path": next((each for each in arguments["paths"] if os.access(each, os.X_OK)), "")}


@function
def remove_file(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Remove the file `path`, if it is there."""
    try:
        os.unlink(arguments["path"])
    except FileNotFoundError:
        return {"was_there": False}
    return {"was_there": True}
