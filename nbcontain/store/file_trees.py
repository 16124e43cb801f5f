"""What layers show together, laid on each other (image-spec layer.md#applying-changesets), and how such trees differ.

Pure. Paths are absolute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Literal, overload

from nbcontain.errors import StoreError, did_you_mean
from nbcontain.store.contents import Contents, File
from nbcontain.values import dataclass, field

Letter = Literal["A", "C", "D"]
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""What os.fsdecode asks for anew each time."""
_LINKS = 40
"""How many symbolic links one path may go through, as the kernel has it."""


@dataclass(slots=True, eq=False)
class Node:
    """A place in a tree: what is there, and if it is a directory what is in it. `file` is None for one nobody made."""

    file: File | None = None
    children: dict[bytes, Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.file is None or self.file.kind == "directory"

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Everything below, in order: absolute path and node."""
        waiting = [(path, self)]
        while waiting:
            path, node = waiting.pop()
            if node is not self:
                yield path, node
            below = [(f"{path}/{os.fsdecode(name)}", child) for name, child in sorted(node.children.items())]
            waiting.extend(reversed(below))

    def totals(self) -> tuple[int, int]:
        """How many files and directories are below, itself left out, and how many bytes; hard links count once."""
        seen: set[int] = set()
        count = size_bytes = 0
        waiting = [self]
        while waiting:
            node = waiting.pop()
            if node is not self:
                count += 1
            if node.file is not None and id(node.file) not in seen:
                seen.add(id(node.file))
                size_bytes += node.file.size_bytes
            waiting.extend(node.children.values())
        return count, size_bytes


@dataclass(slots=True)
class Change:
    """One path that a layer, or another image, has otherwise. `size_bytes` is that of what is there now, or was. Not
    frozen, for speed: there are many."""

    letter: Letter
    path: str
    size_bytes: int
    what: tuple[str, ...] = ()
    """Of a C: in what it differs."""
    before_bytes: int = 0
    """Of a C: how large it was."""
    is_directory: bool = False
    count: int = 1
    """Of a directory that came or went whole: how many entries it stands for."""


class Added(Sequence[Change]):
    """The changes of a layer that only adds, as the lowest one does, often the largest: made when somebody looks."""

    def __init__(self, files: list[tuple[bytes, File]]) -> None:
        self.files = files
        """Paths without the slash at their beginning, in no order."""

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | Sequence[Change]:
        return self._made[index]

    @cached_property
    def _made(self) -> list[Change]:
        made = [
            Change("A", _shown(path), file.size_bytes, is_directory=file.kind == "directory")
            for path, file in self.files
        ]  # fmt: skip
        return sorted(made, key=attrgetter("path"))


def apply(root: Node, contents: Contents) -> tuple[Sequence[Change], list[tuple[str, File]]]:
    """Lay a layer on a tree, in place: what it changes, and the files of lower layers that it hides."""
    changes: list[Change] = []
    hidden: list[tuple[str, File]] = []
    before: dict[bytes, Node] = {}

    def hide(path: bytes, node: Node) -> None:
        shown = _shown(path)
        hidden.extend((f"{shown}{below}", each.file) for below, each in [("", node), *node.walk()] if each.file)

    # What it hides is of the layers below, wherever in the tar it says so.
    for path in contents.opaque:
        node = _at(root, path)
        if node is not None:
            for name, child in node.children.items():
                before[_join(path, name)] = child
            node.children = {}
    for path in contents.removed:
        parent = _at(root, path.rpartition(b"/")[0])
        if parent is not None and (node := parent.children.pop(path.rpartition(b"/")[2], None)) is not None:
            before[path] = node
    made: list[tuple[bytes, Node | None, File]] = []
    own: set[File] | None = None  # made where it is needed: in a lowest layer, often the largest, it is not
    # Where a tar says something twice, the last word holds.
    directories: dict[bytes, dict[bytes, Node]] = {}
    for path, file in dict(contents.entries).items():
        head, _, name = path.rpartition(b"/")
        children = directories.get(head)
        if children is not None and name and name not in children:
            # As nearly all are: one more in a directory that was found before.
            children[name] = Node(file)
            made.append((path, None, file))
            continue
        made.append((path, _put(root, path, file), file))
        if made[-1][1] is not None:
            directories.clear()  # one may be none any more
        elif path and (node := _at(root, head)) is not None:
            directories[head] = node.children
    for path, target in contents.links:
        found = _at(root, target)
        if found is not None and found.file is not None and found.file.kind != "directory":
            made.append((path, _put(root, path, found.file), found.file))
    if made and not before and all(old is None or not (path or old.file) for path, old, _ in made):
        return Added([(path, file) for path, _, file in made if path]), []
    for path, old, file in made:
        old = old if old is not None or not before else _within(before, path)
        if old is not None and old.file is not None:
            own = {each for _, each in contents.entries} if own is None else own
            if old.file in own:
                continue
        if old is None or old.file is None:
            if path and (old is None or file.kind != "directory"):
                changes.append(Change("A", _shown(path), file.size_bytes, is_directory=file.kind == "directory"))
            continue
        what = file.differs(old.file)
        if what or file.kind != "directory":
            is_kept = not what and file is old.file
            if not is_kept and path:
                changes.append(
                    Change("C", _shown(path), file.size_bytes, what, old.file.size_bytes, file.kind == "directory")
                )
            hidden += [(_shown(path) + below, each.file) for below, each in old.walk() if each.file]
            if old.file.kind != "directory":
                hidden.append((_shown(path), old.file))
    for path, node in before.items():
        if _at(root, path) is None:
            count, size_bytes = node.totals()
            is_directory = node.is_directory
            changes.append(Change("D", _shown(path), size_bytes, is_directory=is_directory, count=1 + count))
            hide(path, node)
        else:
            now = _at(root, path)
            for below, each in node.walk():
                if now is None or each.file is None or _at(now, os.fsencode(below[1:])) is not None:
                    continue
                hidden.append((_shown(path) + below, each.file))
                above = _at(now, os.fsencode(below[1:].rpartition("/")[0]))
                if above is not None and above.is_directory:
                    count, size_bytes = each.totals()
                    changes.append(
                        Change("D", _shown(path) + below, size_bytes, is_directory=each.is_directory, count=1 + count)
                    )
    changes.sort(key=attrgetter("path"))
    return changes, hidden


def _put(root: Node, path: bytes, file: File) -> Node | None:
    """Put a file at its path; what was there before."""
    node = root
    parts = path.split(b"/") if path else []
    for part in parts[:-1]:
        child = node.children.get(part)
        if child is None or not child.is_directory:
            child = node.children[part] = Node()
        node = child
    if not parts:
        old, root.file = Node(root.file), file
        return old
    old_node = node.children.get(parts[-1])
    keeps = old_node is not None and old_node.is_directory and file.kind == "directory"
    node.children[parts[-1]] = Node(file, old_node.children if keeps and old_node else {})
    return Node(old_node.file, {} if keeps else old_node.children) if old_node is not None else None


def _at(root: Node, path: bytes) -> Node | None:
    """What is at a path, links not followed."""
    node: Node | None = root
    for part in path.split(b"/") if path else ():
        node = node.children.get(part) if node is not None else None
    return node


def _within(before: dict[bytes, Node], path: bytes) -> Node | None:
    """What was at a path before something above it was taken away."""
    head = path
    while head:
        if head in before:
            return _at(before[head], path[len(head) + 1 :])
        head = head.rpartition(b"/")[0]
    return None


def resolve(root: Node, path: str) -> tuple[str, Node]:
    """What is at a path, symbolic links followed inside of the tree: its own path, and the node. Raises StoreError."""
    waiting = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")][::-1]
    trail: list[tuple[bytes, Node]] = []
    links = 0
    while waiting:
        part = waiting.pop()
        here = trail[-1][1] if trail else root
        if part == b"..":
            trail = trail[:-1]
            continue
        node = here.children.get(part)
        if node is None:
            at = _shown(b"/".join([*(name for name, _ in trail), part]))
            why = "" if here.is_directory else f"{_shown(b'/'.join(name for name, _ in trail))} is no directory"
            near = _near(os.fsdecode(part), here)
            raise StoreError(f"there is no {at} in the image", why=why, hint=near)
        if node.file is not None and node.file.kind == "link":
            links += 1
            if links > _LINKS:
                raise StoreError(f"{path} goes through more than {_LINKS} symbolic links")
            target = os.fsencode(node.file.target)
            if target.startswith(b"/"):
                trail = []
            waiting += [each for each in target.split(b"/") if each not in (b"", b".")][::-1]
            continue
        trail.append((part, node))
    return _shown(b"/".join(name for name, _ in trail)), trail[-1][1] if trail else root


def _near(name: str, directory: Node) -> str:
    return did_you_mean(name, map(os.fsdecode, directory.children), "%image tree shows what there is")


def compare(old: Node, new: Node, *, times: bool = False) -> list[Change]:
    """What the second tree has otherwise than the first. A directory that came or went whole is one change."""
    found: list[Change] = []
    waiting = [("", old, new)]
    while waiting:
        path, one, other = waiting.pop()
        for name in sorted(one.children.keys() | other.children.keys()):
            shown = f"{path}/{os.fsdecode(name)}"
            before, after = one.children.get(name), other.children.get(name)
            if after is None or before is None:
                node = before or after
                assert node is not None
                count, size_bytes = node.totals()
                letter: Letter = "D" if after is None else "A"
                found.append(Change(letter, shown, size_bytes, is_directory=node.is_directory, count=1 + count))
                continue
            if before.file is not after.file:
                what = after.file.differs(before.file) if after.file and before.file else ()
                what = tuple(each for each in what if times or each != "time")
                if what and after.file and before.file:
                    found.append(
                        Change("C", shown, after.file.size_bytes, what, before.file.size_bytes, after.is_directory)
                    )
            if before.is_directory or after.is_directory:
                waiting.append((shown, before, after))
    return sorted(found, key=lambda change: change.path)


def all_of(layers: Sequence[Contents]) -> Node:
    """What these layers show together, lowest first."""
    root = Node()
    for contents in layers:
        apply(root, contents)
    return root


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _shown(path: bytes) -> str:
    return "/" + path.decode(*_NAMES)
