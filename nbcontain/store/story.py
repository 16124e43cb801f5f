"""One tree of all that ever was in a stack of layers: at each path what each layer made of it. Pure.

From it follows what any layer shows, what it changed, which layer wrote a file, and what a file was before.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nbcontain.store.contents import Contents, File
from nbcontain.store.file_trees import Added, Change, Letter
from nbcontain.values import dataclass, field

_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""What os.fsencode asks for anew each time."""


class Version(NamedTuple):
    """What one layer made of a path."""

    number: int
    """Of the layer, counted from 1, the lowest."""
    is_there: bool
    file: File | None
    """None for a directory that nobody wrote, and for what is gone."""


@dataclass(slots=True, eq=False)
class Place:
    """A path. Not frozen, for speed: there are many."""

    versions: list[Version] = field(default_factory=list)
    """Lowest first, one a layer that did something to it."""
    children: dict[bytes, Place] = field(default_factory=dict)

    def at(self, number: int) -> Version | None:
        """What is there once the layers up to `number` are laid on each other; None for nothing."""
        last = _last(self, number)
        return last if last is not None and last.is_there else None

    def change(self, number: int) -> Letter | None:
        """What layer `number` itself did here."""
        if not any(version.number == number for version in self.versions):
            return None
        before, after = self.at(number - 1), self.at(number)
        if before is None:
            return "A" if after is not None else None
        return "C" if after is not None else "D"

    def child(self, path: str) -> Place | None:
        """The place of a path below this one."""
        place: Place | None = self
        for part in os.fsencode(path).split(b"/"):
            if part and place is not None:
                place = place.children.get(part)
        return place


@dataclass(slots=True)
class Sum:
    """What is at a place and below it, as one layer leaves it."""

    entries: int = 0
    size_bytes: int = 0
    """Hard links count once."""
    touched: int = 0
    """How many of these that layer added, changed or removed."""


def story_of(layers: Sequence[tuple[Sequence[Change], Contents]]) -> Place:
    """The tree of these layers, lowest first: what each changes, and what is in it."""
    root = Place([Version(0, True, None)])
    for number, (changes, contents) in enumerate(layers, 1):
        if isinstance(changes, Added) and not root.children:
            _add(root, changes, contents, number)
            continue
        files = dict(contents.entries)
        for path, target in contents.links:
            file = files.get(target) or _file_at(root, target, number)
            if file is not None:
                files[path] = file
        if b"" in files:
            root.versions.append(Version(number, True, files[b""]))
        above: dict[bytes, Place] = {}
        for change in changes:
            path = change.path[1:].encode(*_NAMES)
            head, _, name = path.rpartition(b"/")
            directory = above.get(head)
            if directory is None:
                directory = above[head] = _directory(root, head, number)
            place = directory.children.get(name)
            if place is None:
                if change.letter == "A":
                    # As nearly all are in the largest layers.
                    directory.children[name] = Place([Version(number, True, files.get(path))])
                    continue
                place = directory.children[name] = Place()
            if change.letter == "D":
                _remove(place, number)
                above.clear()
                continue
            version = Version(number, True, files.get(path))
            if version.file is not None and version.file.kind != "directory":
                for child in place.children.values():
                    _remove(child, number)
            place.versions.append(version)
    return root


def _add(root: Place, changes: Added, contents: Contents, number: int) -> None:
    """Put a lowest layer there, of which all is new."""
    directories: dict[bytes, dict[bytes, Place]] = {}
    for path, file in changes.files:
        head, _, name = path.rpartition(b"/")
        children = directories.get(head)
        if children is None:
            children = directories[head] = _directory(root, head, number).children
        children[name] = Place([Version(number, True, file)])
    root.versions += [Version(number, True, file) for path, file in contents.entries if not path][-1:]


def _file_at(root: Place, path: bytes, number: int) -> File | None:
    place = root.child(os.fsdecode(path))
    version = place.at(number) if place is not None else None
    return version.file if version is not None else None


def _directory(root: Place, path: bytes, number: int) -> Place:
    """The place of a directory; a tar need not mention it, nor those above it."""
    place = root
    for part in path.split(b"/") if path else ():
        below = place.children.get(part)
        if below is None:
            below = place.children[part] = Place()
        if below.at(number) is None:
            below.versions.append(Version(number, True, None))
        place = below
    return place


def _remove(place: Place, number: int) -> None:
    waiting = [place]
    while waiting:
        each = waiting.pop()
        if each.at(number) is not None:
            each.versions.append(Version(number, False, None))
        waiting.extend(each.children.values())


def is_directory(version: Version | None) -> bool:
    """Whether that is a directory, written by somebody or not."""
    return version is not None and (version.file is None or version.file.kind == "directory")


class Totals:
    """What is at each place and below it when the layers up to one are laid on each other: `totals[place]`.

    Most places are files, of which only what is in them is to be said: sums are kept of those that have some below.
    """

    def __init__(self, root: Place, number: int) -> None:
        self._number = number
        self._sums: dict[int, Sum] = {}
        """By the identity of the place."""
        self._counted: set[int] = set()
        """Places whose bytes were counted at another: hard links. By their identity."""
        order = [root]
        seen: set[int] = set()
        for place in order:
            self._sums[id(place)] = self._own(place)
            order += self._count_files(place, seen)
        for place in reversed(order):
            above = self._sums[id(place)]
            for child in place.children.values():
                if child.children:
                    below = self._sums[id(child)]
                    above.entries += below.entries
                    above.size_bytes += below.size_bytes
                    above.touched += below.touched

    def __getitem__(self, place: Place) -> Sum:
        return self._sums.get(id(place)) or self._own(place)

    def _own(self, place: Place) -> Sum:
        """What is at a place, without what is below."""
        last = _last(place, self._number)
        if last is None:
            return Sum()
        has_bytes = last.is_there and last.file is not None and id(place) not in self._counted
        size_bytes = last.file.size_bytes if has_bytes and last.file is not None else 0
        return Sum(int(last.is_there), size_bytes, int(last.number == self._number))

    def _count_files(self, place: Place, seen: set[int]) -> list[Place]:
        """Add what has nothing below to the sum of the directory that it is in; gives what has."""
        number = self._number
        deeper = []
        entries = size_bytes = touched = 0
        for child in place.children.values():
            if child.children:
                deeper.append(child)
                continue
            versions = child.versions
            last = versions[-1] if len(versions) == 1 and versions[0].number <= number else _last(child, number)
            if last is None:
                continue
            at, is_there, file = last
            touched += at == number
            entries += is_there
            if file is None:
                continue
            if id(file) in seen:
                self._counted.add(id(child))
            else:
                seen.add(id(file))
                size_bytes += file.size_bytes
        total = self._sums[id(place)]
        total.entries += entries
        total.size_bytes += size_bytes
        total.touched += touched
        return deeper


def _last(place: Place, number: int) -> Version | None:
    """What the layers up to `number` last made of a place."""
    for version in reversed(place.versions):
        if version.number <= number:
            return version
    return None


def walk(root: Place, number: int) -> Iterator[tuple[str, Place]]:
    """Every path that is there at layer `number`, or that it removed, in order."""
    waiting = [("", root)]
    while waiting:
        path, place = waiting.pop()
        if place is not root:
            yield path, place
        below = [
            (f"{path}/{os.fsdecode(name)}", child)
            for name, child in sorted(place.children.items())
            if child.at(number) is not None or child.change(number) is not None
        ]
        waiting.extend(reversed(below))


def matcher(text: str) -> Callable[[str], bool]:
    """Whether a path is meant by what somebody typed: a part of it, or with * and ? a pattern for its name or for all
    of it, whatever the case."""
    wanted = text.strip().lower()
    if "*" not in wanted and "?" not in wanted:
        return lambda path: wanted in path.lower()
    pattern = re.compile(fnmatch.translate(wanted))
    return lambda path: bool(pattern.match(path.lower()) or pattern.match(path.lower().rpartition("/")[2]))
