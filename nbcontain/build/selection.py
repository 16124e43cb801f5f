"""What the sources of a COPY stand for: files of a tree, in their order, each with where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nbcontain.build.patterns import Ignore, has_wildcards
from nbcontain.build.walk import Entry, Walk, unescaped
from nbcontain.errors import BuildError
from nbcontain.values import dataclass, replace

Missing = Callable[[Walk, str], BuildError]
"""The error for a source that is not there."""
ANOTHER_CONTEXT = "The directory is the last word of nbcontain build, or a cell's --context DIR, as in --context ."
"""What to try where the files of a build lie elsewhere."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a tree, as COPY's words say it."""

    sources: tuple[str, ...]
    parents: bool = False
    excludes: tuple[str, ...] = ()


def select(walk: Walk, wanted: Wanted, missing: Missing) -> list[Entry]:
    """The entries, directories before what is in them and sorted by name.

    A pattern may match nothing; any other source that is not there raises what `missing` says.
    """
    excluding = Ignore.of(wanted.excludes)
    entries: list[Entry] = []
    for source in wanted.sources:
        found = _with_parents(walk, source, missing) if wanted.parents else _plain(walk, source, missing)
        entries += _kept(found, excluding) if wanted.excludes else found
    return _once(entries) if wanted.parents else entries


def tops(walk: Walk, source: str, missing: Missing) -> Iterator[Entry]:
    """The file or directory that a source names, or all that it matches; a directory's target is "."."""
    for path in walk.matching(source) if has_wildcards(source) else [unescaped(source)]:
        real = walk.resolve(path)
        top = walk.entry(real, path.rsplit("/", 1)[-1]) if real is not None else None
        if real is None or top is None or walk.ignored(real):
            raise missing(walk, path)
        yield replace(top, target=".", is_content=True) if top.kind == "directory" else top


def _plain(walk: Walk, source: str, missing: Missing) -> Iterator[Entry]:
    for top in tops(walk, source, missing):
        yield top
        if top.kind == "directory":
            yield from walk.below(top.path)


def _with_parents(walk: Walk, source: str, missing: Missing) -> Iterator[Entry]:
    """Like `_plain`, each file below the directories that it is in, from the pivot /./ on. Symlinks stay symlinks."""
    above, pivot, pattern = source.partition("/./")
    if not pivot:
        above, pattern = "", source
    pattern = "/".join(part for part in pattern.split("/") if part not in ("", "."))
    # As in BuildKit, a source has to be there only if nothing in it is a pattern.
    is_pattern = has_wildcards(above)
    for base in walk.matching(above) if is_pattern else [unescaped(above) or "."]:
        start = walk.resolve(base)
        if start is None or (entry := walk.entry(start, "")) is None or entry.kind != "directory":
            if is_pattern:
                continue
            raise missing(walk, base)
        if not pattern:
            yield from walk.below(start)
        elif has_wildcards(pattern):
            for path in walk.matching_deep(start, pattern):
                yield from _chain(walk, start, path)
        else:
            path = unescaped(pattern) if start == "." else f"{start}/{unescaped(pattern)}"
            if walk.entry(path, "") is None or walk.ignored(path):
                if is_pattern:
                    continue
                raise missing(walk, path)
            yield from _chain(walk, start, path)


def _chain(walk: Walk, start: str, path: str) -> Iterator[Entry]:
    """The directories from `start` down to `path`, it, and what is in it."""
    relative = path if start == "." else path[len(start) + 1 :]
    parts = relative.split("/")
    entry: Entry | None = None
    for count in range(1, len(parts) + 1):
        target = "/".join(parts[:count])
        entry = walk.entry(target if start == "." else f"{start}/{target}", target, True)
        if entry is None:
            return
        yield entry
    if entry is not None and entry.kind == "directory":
        for inner in walk.below(path):
            yield replace(inner, target=f"{relative}/{inner.target}")


def _kept(entries: Iterator[Entry], excluding: Ignore) -> list[Entry]:
    """Without what --exclude names, seen from the source's directory; a file that is a source is seen by its name."""
    kept: list[Entry] = []
    for entry in entries:
        is_excluded = entry.target != "." and excluding.ignoring(entry.target) is not None
        if not is_excluded or (entry.kind == "directory" and excluding.may_readmit_below(entry.target)):
            kept.append(entry)
    return kept


def _once(entries: list[Entry]) -> list[Entry]:
    """Each target of a directory once: patterns meet in the directories above what they match."""
    seen: set[str] = set()
    kept: list[Entry] = []
    for entry in entries:
        if entry.kind == "directory" and entry.target in seen:
            continue
        seen.add(entry.target)
        kept.append(entry)
    return kept
