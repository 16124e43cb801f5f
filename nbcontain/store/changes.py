"""What a container changed of its image, path by path (docker diff)."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.store.whiteouts import is_opaque, is_whiteout, join, kept_xattrs, opaque_xattr
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Added:
    """A path that no layer below has."""

    path: str


@dataclass(frozen=True, slots=True)
class Modified:
    """A path that a layer below has too."""

    path: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A path that a layer below has, and this one hides."""

    path: str


Change = Added | Modified | Deleted


def changes(
    root: str,
    lowers: Sequence[str],
    *,
    userxattr: bool,
    skip: frozenset[str] = frozenset(),
) -> Iterator[Change]:
    """What an overlay's upper directory changes of the layers `lowers`, topmost first; paths absolute, sorted.

    Nothing is said of `skip`, mount points that were made for the container, nor of directories that are in the upper
    one for their sake only.
    """
    opaque = opaque_xattr(userxattr=userxattr)
    skipped = frozenset(os.fsencode(path).strip(b"/") for path in skip)
    below = tuple(os.fsencode(lower) for lower in lowers)
    found: Iterable[Change] = _changes(os.fsencode(root), b"", below, opaque, skipped)
    quiet = above(skip)
    if quiet:
        found = list(found)
        quiet -= above(each.path for each in found)
    for each in found:
        path = os.fsencode(each.path).strip(b"/")
        if path not in quiet or not isinstance(each, Modified) or not _is_as_it_was(os.fsencode(root), path, below):
            yield each


def above(paths: Iterable[str]) -> set[bytes]:
    """The directories above these absolute paths, without the slash that they begin with."""
    found: set[bytes] = set()
    for path in paths:
        # What is above one that is known is known too.
        while (path := os.path.dirname(path).rstrip("/")) and (name := os.fsencode(path.strip("/"))) not in found:
            found.add(name)
    return found


def same_metadata(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether mode and owner are the same, whatever the time."""
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _is_as_it_was(upper: bytes, path: bytes, below: tuple[bytes, ...]) -> bool:
    """Whether it is a directory with mode, owner and attributes as in the topmost layer that has it."""
    here = os.path.join(upper, path)
    status = os.lstat(here)
    for lower in below if stat.S_ISDIR(status.st_mode) else ():
        there = os.path.join(lower, path)
        with suppress(FileNotFoundError, NotADirectoryError):
            return same_metadata(status, os.lstat(there)) and kept_xattrs(here) == kept_xattrs(there)
    return False


def _changes(
    upper: bytes, path: bytes, below: tuple[bytes, ...], opaque: bytes, skip: frozenset[bytes]
) -> Iterator[Change]:
    """The changes in directory `path`; `below` are the lower layers whose directory of that name shines through."""
    waiting: list[tuple[bytes, tuple[bytes, ...]]] = [(path, below)]
    while waiting:
        path, below = waiting.pop()
        with os.scandir(os.path.join(upper, path)) as listing:
            names = sorted(os.fsencode(entry.name) for entry in listing)
        inner = []
        for name in names:
            child = join(path, name)
            status = os.lstat(os.path.join(upper, child))
            shown = os.fsdecode(b"/" + child)
            through = _showing(child, below, opaque)
            is_directory = stat.S_ISDIR(status.st_mode)
            if is_whiteout(status):
                if through and child not in skip:
                    yield Deleted(shown)
                continue
            if child not in skip:
                yield Modified(shown) if through else Added(shown)
            if is_directory:
                hides = is_opaque(os.path.join(upper, child), opaque)
                if hides:
                    yield from (Deleted(os.fsdecode(b"/" + gone)) for gone in _hidden(upper, child, through, opaque))
                inner.append((child, () if hides else _directories(child, through)))
        waiting.extend(reversed(inner))


def _showing(path: bytes, below: tuple[bytes, ...], opaque: bytes) -> tuple[bytes, ...]:
    """Those of `below` that have a say in what is at `path`, topmost first; none if it is not there."""
    found: list[bytes] = []
    for lower in below:
        full = os.path.join(lower, path)
        try:
            status = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return tuple(found or [lower])
        found.append(lower)
        if is_opaque(full, opaque):
            break
    return tuple(found)


def _directories(path: bytes, through: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(lower for lower in through if stat.S_ISDIR(os.lstat(os.path.join(lower, path)).st_mode))


def _hidden(upper: bytes, path: bytes, through: tuple[bytes, ...], opaque: bytes) -> list[bytes]:
    """What an opaque directory hides directly in it and does not have itself."""
    names: set[bytes] = set()
    for lower in _directories(path, through):
        names.update(os.fsencode(entry.name) for entry in os.scandir(os.path.join(lower, path)))
    paths = sorted(join(path, name) for name in names)
    return [
        child for child in paths if _showing(child, through, opaque) and not os.path.lexists(os.path.join(upper, child))
    ]


def is_untouched(upper: Path, stubs: Collection[str]) -> bool:
    """Whether nothing is in an upper directory but these mount points, still empty. Nobody may write to it any more.

    False also where this process may not look.
    """
    waiting = [upper]
    try:
        while waiting:
            directory = waiting.pop()
            with os.scandir(directory) as listing:
                for entry in listing:
                    if f"/{Path(entry.path).relative_to(upper)}" not in stubs:
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_size:
                        return False
    except PermissionError:
        return False
    return True
