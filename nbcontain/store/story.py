"""One tree of all that ever was in a stack of layers: at each path what each layer made of it. Pure.

From it follows what any layer shows, what it changed, which layer wrote a file, and what a file was before.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nbcontain.store.contents import Change, Contents, File, Letter
from nbcontain.values import dataclass, field


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
        for version in reversed(self.versions):
            if version.number <= number:
                return version if version.is_there else None
        return None

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
        files = dict(contents.entries)
        for path, target in contents.links:
            file = files.get(target) or _file_at(root, target, number)
            if file is not None:
                files[path] = file
        if b"" in files:
            root.versions.append(Version(number, True, files[b""]))
        above: dict[bytes, Place] = {}
        for change in changes:
            path = os.fsencode(change.path[1:])
            head, _, name = path.rpartition(b"/")
            directory = above.get(head)
            if directory is None:
                directory = above[head] = _directory(root, head, number)
            place = directory.children.get(name)
            if place is None:
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


def totals(root: Place, number: int) -> dict[int, Sum]:
    """By the identity of each place, what is there and below when the layers up to `number` are laid on each other."""
    seen: set[int] = set()
    sums: list[Sum] = []
    order, parents = [root], [-1]
    for at, place in enumerate(order):
        if place.children:
            order += place.children.values()
            parents += [at] * len(place.children)
        last = place.versions[-1] if place.versions else None
        if last is not None and last.number > number:
            last = next((each for each in reversed(place.versions) if each.number <= number), None)
        entries = size_bytes = 0
        if last is not None and last.is_there:
            entries = 1
            if last.file is not None and id(last.file) not in seen:
                seen.add(id(last.file))
                size_bytes = last.file.size_bytes
        sums.append(Sum(entries, size_bytes, int(last is not None and last.number == number)))
    for at in range(len(order) - 1, 0, -1):
        here, above = sums[at], sums[parents[at]]
        above.entries += here.entries
        above.size_bytes += here.size_bytes
        above.touched += here.touched
    return dict(zip(map(id, order), sums, strict=True))


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
