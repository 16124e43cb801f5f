"""Answers to open(2) where a library is to translate paths: what it has not seen is opened in the container's tree.

The loader, and libc for itself, open files without the functions that the library stands in for: libraries by their
RUNPATH, /etc/resolv.conf, locales; a static program, and whoever calls the kernel itself, open all of them so. To them
these paths are the container's too. They are opened to be read, and by whoever is kept within the tree by the kernel,
from name to name: so nothing of this machine's is. Run by the answerer.
"""

from __future__ import annotations

import errno
import os
import stat

from nbcontain.linux import notify
from nbcontain.linux.notify import Call
from nbcontain.runtime.asked import MASK, Asked
from nbcontain.runtime.kept_ids import People
from nbcontain.runtime.preloaded import SHOWN, Tree

_READING = os.O_ACCMODE | os.O_PATH
_PASSED_ON = os.O_DIRECTORY | os.O_NOFOLLOW


class StrayAnswers:
    """Each public method answers the call that it is called after."""

    def __init__(self, asked: Asked, people: People, root: str, library: str) -> None:
        """`root` is the container's tree, as we see it; `library` is what translates paths, and is this machine's."""
        self._asked, self._people = asked, people
        self._tree = Tree(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), root)
        self._known = (*map(os.fsencode, (root, library)), *SHOWN)

    def open(self, call: Call) -> None:
        self._answer(call, call.arguments[0], call.arguments[1] & MASK)

    def openat(self, call: Call) -> None:
        self._answer(call, call.arguments[1], call.arguments[2] & MASK)

    def _answer(self, call: Call, address: int, flags: int) -> None:
        try:
            self._people.meet(call.pid)
            path = self._asked.path(call, address)
        except OSError:
            path = b""
        is_known = any((path + b"/").startswith(each + b"/") for each in self._known)
        if is_known or not path.startswith(b"/") or flags & _READING != os.O_RDONLY:
            self._asked.let_through(call)
            return
        fd = self._tree.open(os.fsdecode(path), os.O_RDONLY | flags & _PASSED_ON)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise PermissionError(errno.EACCES, "")
            os.set_blocking(fd, not flags & os.O_NONBLOCK)
            self._asked.check(call)
            notify.give(self._asked.listener, call, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)
