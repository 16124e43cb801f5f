"""A disk that does as it is told: it counts, records, fails or stops at every operation of this process.

The seam is the module `os` itself, whose functions are wrapped in the process under test and nowhere
else; production code knows nothing of it. Only what touches the store's directory counts.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbcontain.linux import syscalls

_BY_PATH = ("mkdir", "rmdir", "unlink", "remove", "chmod", "chown", "truncate", "mknod", "mkfifo", "utime", "setxattr")
_BY_FD = ("write", "writev", "pwrite", "ftruncate", "fsync", "fdatasync", "fchmod", "fchown")
_PAIRS = ("rename", "replace", "link", "symlink")
_CREATING = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Step:
    """One operation: what it does, where (relative to the store), and what more is needed to do it again."""

    what: str
    path: str
    other: str = ""
    data: bytes = b""
    mode: int = 0
    inode: int = 0
    offset: int = 0


@dataclass
class Disk:
    """Wraps `os` in this process, for good. `at` is the operation, counted from 1, at which `do` is called."""

    root: Path
    at: int = 0
    do: Callable[[], None] = lambda: None
    for_good: bool = False
    """Everything from `at` on, as a full disk does."""
    count: int = 0
    steps: list[Step] = field(default_factory=list)
    keep_steps: bool = False
    only: frozenset[str] = frozenset()
    """Count these operations alone, if there are any."""

    def install(self) -> Disk:
        for name in _BY_PATH:
            self._wrap(name, self._at_path)
        for name in _BY_FD:
            self._wrap(name, self._at_fd)
        for name in _PAIRS:
            self._wrap(name, self._pair)
        self._wrap("open", self._open)
        original = syscalls.syncfs

        def syncfs(fd: int) -> None:
            self._count("syncfs", self._name(fd))
            original(fd)

        syscalls.syncfs = syncfs
        return self

    def _wrap(self, name: str, place: Callable[..., Step | None]) -> None:
        original: Any = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            step = place(name, *args, **kwargs)
            if step is not None:
                self._strike(step)
            result = original(*args, **kwargs)
            if step is not None and self.keep_steps:
                self.steps.append(self._finished(step, result, args))
            return result

        setattr(os, name, wrapped)

    def _finished(self, step: Step, result: Any, args: tuple[Any, ...]) -> Step:
        if step.what == "open":
            return Step("open", step.path, mode=step.mode, inode=os.fstat(result).st_ino)
        if step.what == "write":
            fd = args[0]
            end = os.lseek(fd, 0, os.SEEK_CUR)
            return Step("write", step.path, data=step.data[:result], inode=os.fstat(fd).st_ino, offset=end - result)
        return step

    def _count(self, what: str, path: str | None) -> None:
        if path is not None:
            self._strike(Step(what, path))
            if self.keep_steps:
                self.steps.append(Step(what, path))

    def _strike(self, step: Step) -> None:
        if self.only and step.what not in self.only:
            return
        self.count += 1
        if self.at and (self.count == self.at or (self.for_good and self.count > self.at)):
            self.do()

    # --- where an operation strikes ---

    def _name(self, where: Any, dir_fd: int | None = None) -> str | None:
        """The path below the store's root; None for what is elsewhere."""
        if isinstance(where, int):
            path = os.readlink(f"/proc/self/fd/{where}")
        else:
            path = os.fsdecode(where)
            if dir_fd is not None and not path.startswith("/"):
                path = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}"
        path = path.removesuffix(" (deleted)")
        root = str(self.root)
        return path[len(root) + 1 :] if path == root or path.startswith(root + "/") else None

    def _at_path(self, name: str, path: Any, *args: Any, **kwargs: Any) -> Step | None:
        found = self._name(path, kwargs.get("dir_fd"))
        mode = args[0] if args and isinstance(args[0], int) else kwargs.get("mode", 0) or 0
        return None if found is None else Step("unlink" if name == "remove" else name, found, mode=mode)

    def _at_fd(self, name: str, fd: int, *args: Any, **kwargs: Any) -> Step | None:
        found = self._name(fd)
        if found is None:
            return None
        data = bytes(args[0]) if self.keep_steps and name == "write" else b""
        inode = os.fstat(fd).st_ino if self.keep_steps else 0
        return Step(name, found, data=data, inode=inode, mode=args[0] if name == "fchmod" else 0)

    def _pair(self, name: str, source: Any, target: Any, *args: Any, **kwargs: Any) -> Step | None:
        to = self._name(target, kwargs.get("dst_dir_fd", kwargs.get("dir_fd")))
        if to is None:
            return None
        at = os.fsdecode(source) if name == "symlink" else self._name(source, kwargs.get("src_dir_fd")) or ""
        return Step("rename" if name == "replace" else name, at, to)

    def _open(self, name: str, path: Any, flags: int, *args: Any, **kwargs: Any) -> Step | None:
        if not flags & _CREATING or flags & os.O_TMPFILE == os.O_TMPFILE:
            return None
        found = self._name(path, kwargs.get("dir_fd"))
        if found is None or (not flags & os.O_TRUNC and (self.root / found).exists()):
            return None
        return Step("open", found, mode=args[0] if args else 0o777)


def die() -> None:
    """As the power, or kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[], None]:
    """What a disk says that is full or broken."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail
