"""A model of a power cut: from the record of what a process asked of the disk, the states that a disk may be left in.

What was synced is there. What was not may be there, or not, in any order: bytes and names are written out
by the kernel when it likes. Of the many orders these are made at every moment: all that was asked is there;
nothing that was not synced is; each single un-synced step is missing while all others are there; each single
un-synced step is there alone; and files whose name came through while their bytes did not.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from reliability.faults import Step

_NAMING = frozenset({"open", "mkdir", "rename", "unlink", "rmdir", "link", "symlink"})


@dataclass
class Tree:
    """A directory tree in memory: the content of files by inode, and names as they are."""

    names: dict[str, int | None] = field(default_factory=dict)
    """Path → inode of a file; None is a directory."""
    data: dict[int, bytes] = field(default_factory=dict)
    modes: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Tree:
        return Tree(dict(self.names), dict(self.data), dict(self.modes))

    def apply(self, step: Step) -> None:
        """Do one step, if it can be done in this state."""
        match step.what:
            case "open":
                if self._has_parent(step.path):
                    self.names[step.path] = step.inode
                    self.data.setdefault(step.inode, b"")
            case "write":
                self.data[step.inode] = _written_to(self.data.get(step.inode, b""), step.offset, step.data)
            case "fchmod":
                self.modes[step.inode] = step.mode
            case "mkdir":
                if self._has_parent(step.path):
                    self.names.setdefault(step.path, None)
            case "unlink":
                self.names.pop(step.path, None)
            case "rmdir" if not any(path.startswith(step.path + "/") for path in self.names):
                # No file system loses a directory before what is in it.
                self.names.pop(step.path, None)
            case "rename" if step.path in self.names and self._has_parent(step.other):
                moved = {
                    step.other + path[len(step.path) :]: inode
                    for path, inode in self.names.items()
                    if path == step.path or path.startswith(step.path + "/")
                }
                for path in list(self.names):
                    if path == step.path or path.startswith(step.path + "/") or path == step.other:
                        del self.names[path]
                self.names.update(moved)
            case _:
                pass

    def _has_parent(self, path: str) -> bool:
        parent = os.path.dirname(path)
        return not parent or self.names.get(parent, 0) is None

    def key(self) -> frozenset[tuple[str, bytes, int]]:
        """What tells this state from others."""
        return frozenset(
            (path, b"/" if inode is None else self.data.get(inode, b""), self.modes.get(inode or 0, 0))
            for path, inode in self.names.items()
        )


@cache
def _written_to(content: bytes, offset: int, data: bytes) -> bytes:
    """A file's content after a write. The same content is one object in all states: thousands have it in common."""
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


def pending(steps: Sequence[Step]) -> list[int]:
    """Which of these steps no sync has made durable yet, by position."""
    waiting: list[int] = []
    for number, step in enumerate(steps):
        if step.what == "syncfs":
            waiting = []
        elif step.what in ("fsync", "fdatasync"):
            # A file's fsync: its bytes and mode. A directory's: the names in it, and only those (POSIX says no more).
            # A rename is one change, also between two directories: to sync either is to sync it.
            waiting = [
                each
                for each in waiting
                if not (steps[each].what in ("write", "fchmod") and steps[each].inode == step.inode)
                and not (steps[each].what in _NAMING and step.path in _directories(steps[each]))
            ]
        elif step.what in _NAMING or step.what in ("write", "fchmod"):
            waiting.append(number)
    return waiting


def _directories(step: Step) -> set[str]:
    return {os.path.dirname(path) for path in ((step.path, step.other) if step.what == "rename" else (step.path,))}


def _told_apart(steps: Sequence[Step]) -> list[Step]:
    """The same with inode numbers that are used once only: the kernel gives a removed file's to the next."""
    current: dict[int, int] = {}
    found = []
    for number, step in enumerate(steps):
        if step.what == "open":
            current[step.inode] = -1 - number
        found.append(replace(step, inode=current.get(step.inode, step.inode)))
    return found


CONTENT = ".content"
"""A file in a snapshot's fs/ that stands for all that a worker wrote there."""
_CONTENT = re.compile(r"snapshots/([0-9a-f]{64})/fs/\.content")
_PUBLISHING = re.compile(r"snapshots/([0-9a-f]{64})")


def with_content(steps: Sequence[Step]) -> list[Step]:
    """The record with what it does not have: what workers write below a snapshot's fs/ before that has its name.

    One small file for all of it, which says which snapshot it belongs to.
    """
    found: list[Step] = []
    for number, step in enumerate(steps):
        if step.what == "rename" and (match := _PUBLISHING.fullmatch(step.other)):
            path, inode = f"{step.path}/fs/{CONTENT}", -1_000_000 - number
            found.append(Step("open", path, inode=inode))
            found.append(Step("write", path, data=match[1].encode(), inode=inode))
        found.append(step)
    return found


def published(steps: Sequence[Step]) -> frozenset[str]:
    """The snapshots that get their names in this record."""
    return frozenset(
        match[1] for step in steps if step.what == "rename" and (match := _PUBLISHING.fullmatch(step.other))
    )


def states(start: Tree, steps: Sequence[Step], every: int = 1) -> Iterator[tuple[str, Tree]]:
    """Every different state of the model, with a word on how it came about; with `every`, at so many-th moments."""
    steps = _told_apart(steps)
    seen: set[frozenset[tuple[str, bytes, int]]] = set()

    def made(word: str, lost: frozenset[int], end: int) -> Iterator[tuple[str, Tree]]:
        first = min(lost, default=end)
        tree = whole[first].copy()
        for number in range(first, end):
            if number not in lost:
                tree.apply(steps[number])
        key = tree.key()
        if key not in seen:
            seen.add(key)
            yield word, tree

    whole = [start]
    for step in steps:
        whole.append(whole[-1].copy())
        whole[-1].apply(step)
    for end in range(0, len(steps) + 1, every):
        waiting = pending(steps[:end])
        everything = frozenset(waiting)
        yield from made(f"{end}: all", frozenset(), end)
        yield from made(f"{end}: only what was synced", everything, end)
        yield from made(f"{end}: names without bytes", frozenset(n for n in waiting if steps[n].what == "write"), end)
        for number in waiting:
            yield from made(f"{end}: without {number} ({steps[number].what})", frozenset({number}), end)
            yield from made(f"{end}: of the un-synced only {number}", everything - {number}, end)


def loaded(root: Path) -> tuple[Tree, dict[int, Path]]:
    """A store as a tree, and where the content of each file can be linked from."""
    tree, sources = Tree(), {}
    for directory, folders, files in os.walk(root):
        below = os.path.relpath(directory, root)
        for name in folders:
            tree.names[os.path.normpath(os.path.join(below, name))] = None
        for name in files:
            path = Path(directory) / name
            inode = os.lstat(path).st_ino
            tree.names[os.path.normpath(os.path.join(below, name))] = inode
            sources[inode] = path
    return tree, sources


def written(tree: Tree, sources: dict[int, Path], root: Path, made: Path) -> None:
    """Make this state on a disk. What the process did not touch is linked, not copied.

    A snapshot whose content came through has the files of that name among those that were `made`.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    for path, inode in sorted(tree.names.items()):
        target = root / path
        if inode is None:
            target.mkdir(0o755 if path.endswith("/fs") else 0o700)
        elif inode in tree.data:
            target.write_bytes(tree.data[inode])
            target.chmod(tree.modes.get(inode, 0o600))
        elif inode in sources:
            try:
                os.link(sources[inode], target, follow_symlinks=False)
            except PermissionError:
                shutil.copy2(sources[inode], target, follow_symlinks=False)
        if (match := _CONTENT.fullmatch(path)) and inode is not None and tree.data.get(inode) == match[1].encode():
            laid_out(made / match[1] / "fs", target.parent)


def laid_out(source: Path, target: Path) -> None:
    """Copy what is in a directory, as it is. Deleted files are devices in a layer, which is no matter of reading."""
    for entry in os.scandir(source):
        path, status = target / entry.name, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            path.mkdir()
            laid_out(Path(entry.path), path)
            shutil.copystat(entry.path, path)
        elif stat.S_ISCHR(status.st_mode):
            os.mknod(path, status.st_mode, status.st_rdev)
        else:
            shutil.copy2(entry.path, path, follow_symlinks=False)
