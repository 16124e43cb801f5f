"""What a COPY would meet, told from inside the root file system that it is to change. Run by init, changes nothing."""

from __future__ import annotations

import os
import stat

from nbcontain.build.copier import owner_of
from nbcontain.runtime.rootfs import Arguments, function, ledger_from
from nbcontain.store.owners import NODE, OWNER, Ledger
from nbcontain.store.whiteouts import is_whiteout, kept_xattrs

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@function
def survey(arguments: Arguments, fds: list[int]) -> dict[str, Any]:
    """Where `destination` leads, whom `chown` means, and what is there of the `targets` below the destination.

    `directories` are those on the way and those that a directory of the copy is laid on, with what they are; `others`
    what a file replaces. `place` is "" where something is in the way. fds[0], if it is there, has the root's ledger.
    """
    owner = owner_of(arguments["chown"])
    found = _Found(ledger_from(fds[0]) if fds else None)
    place = os.path.realpath(arguments["destination"])
    parts = place.strip("/").split("/") if place != "/" else []
    is_clear = all(found.take("/".join(parts[: count + 1]), is_directory=count + 1 < len(parts) or None)
                   for count in range(len(parts)))  # fmt: skip
    start = "/".join(parts)
    if is_clear and start in found.directories:
        prefix = f"{start}/" if start else ""
        is_clear = all(found.take(prefix + target, is_directory=kind) for target, kind in arguments["targets"])
    return {
        "owner": [owner.uid, owner.gid],
        "place": place if is_clear else "",
        "directories": [[path, *fields] for path, fields in found.directories.items() if path],
        "others": found.others,
    }


class _Found:
    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self.directories: dict[str, list[Any]] = {"": []}
        """By path without a leading slash: mode, uid, gid, modification time, attributes."""
        self.others: list[str] = []

    def take(self, path: str, *, is_directory: bool | None) -> bool:
        """Look at one path, those above it first; False if it is in the way of what will be there (None: either)."""
        if path.rpartition("/")[0] not in self.directories:
            return True
        try:
            status = os.lstat(f"/{path}")
        except FileNotFoundError:
            return True
        except OSError:
            # As a name that is too long: whoever copies says what is wrong with it.
            return False
        if is_whiteout(status):
            return True
        if not stat.S_ISDIR(status.st_mode):
            # What is still a symlink after they were resolved goes round in circles.
            self.others.append(path)
            return not is_directory and not (is_directory is None and stat.S_ISLNK(status.st_mode))
        if is_directory is False:
            return False
        fd = os.open(f"/{path}", _DIRECTORY)
        try:
            owner, xattrs = (status.st_uid, status.st_gid), kept_xattrs(fd)
            if self._ledger is not None:
                owner = self._ledger.owner(fd, os.fsencode(path), status)
                for recorded in (OWNER, NODE):
                    xattrs.pop(recorded, None)
        finally:
            os.close(fd)
        attributes = [[os.fsdecode(name), value.hex()] for name, value in xattrs.items()]
        self.directories[path] = [stat.S_IMODE(status.st_mode), *owner, status.st_mtime_ns, attributes]
        return True
