"""An OCI layer onto the whole tree of what it lies on: what is hidden is removed. The archive is taken for hostile.

Regular files of the tree may have names elsewhere, in the tree that it began as: they are replaced, never written to.
"""

from __future__ import annotations

import os
import time

from nbcontain.errors import BadArchive
from nbcontain.store import removal
from nbcontain.store.open_directories import parted
from nbcontain.store.owners import Ledger
from nbcontain.store.unpack import NAME_BYTES, Ids, Target
from nbcontain.store.whiteouts import META, OPAQUE, WHITEOUT, join

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.store.plain_members import Made


class TreeTarget(Target):
    """A tree that a layer is laid on: the outcome is what an overlay of both would show."""

    def __init__(self, root: str, userxattr: bool, ids: Ids, ledger: Ledger | None) -> None:
        super().__init__(root, userxattr, ids, ledger)
        self._hides_below = False
        self._own: set[bytes] = {b""}
        """What this layer has itself, and the directories above that: whiteouts do not concern them."""
        self._anew: set[bytes] = set()
        """What it has where all of below was taken away: a directory that it does not name is none of below."""

    _looks_back = True

    def _take_made(self, members: Made) -> None:
        for name in members.names.split(b"\0")[:-1]:
            head, leaf = parted(name)
            self._claim(self._opened.spelled[head][1], leaf)
        super()._take_made(members)

    def _claim(self, path: bytes, leaf: bytes) -> None:
        self._claim_path(join(path, leaf))

    def _claim_path(self, path: bytes) -> None:
        while path not in self._own:
            self._keep(len(path) + NAME_BYTES)
            self._own.add(path)
            path = path.rpartition(b"/")[0]

    def _is_own(self, path: bytes) -> bool:
        return path in self._own

    def _finish_directories(self) -> None:
        for path in self._anew - self._directories.keys():
            self._directories[path] = 0o755, 0, 0, time.time_ns(), {}
        super()._finish_directories()

    def _whiteout(self, parent: int, path: bytes, leaf: bytes) -> None:
        if leaf == OPAQUE:
            self._claim_path(path)
            self._remove_foreign(path)
            return
        if leaf.startswith(META):
            self.skipped += 1
            return
        name = leaf[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise BadArchive(f"a whiteout of {name!r} in {path!r}")
        self._claim_path(path)
        if join(path, name) in self._own:
            self._remove_foreign(join(path, name))
            return
        place = os.dup(parent)
        try:
            # Some of what is open may be in there.
            self._opened.forget()
            removal.remove_at(place, name)
        finally:
            os.close(place)

    def _remove_foreign(self, path: bytes) -> None:
        """Remove what a directory of this layer has of the layers below; nothing if it is no directory."""
        self._opened.forget()
        waiting = [path]
        while waiting:
            path = waiting.pop()
            try:
                place = self._opened.exact(path)
            except (NotADirectoryError, FileNotFoundError):
                continue
            try:
                for name in map(os.fsencode, os.listdir(place)):
                    child = join(path, name)
                    if child in self._own:
                        waiting.append(child)
                        if child not in self._anew:
                            self._keep(len(child) + NAME_BYTES)
                            self._anew.add(child)
                    else:
                        removal.remove_at(place, name)
            finally:
                os.close(place)
