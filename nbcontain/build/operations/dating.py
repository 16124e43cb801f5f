"""How old it is what an ADD gets from elsewhere, for SOURCE_DATE_EPOCH (see `build.epoch`)."""

from __future__ import annotations

from contextlib import ExitStack

from nbcontain.build import git
from nbcontain.build.graph import RemoteFile, Repository
from nbcontain.build.http import Fetched
from nbcontain.build.operations.keys import commit_of, fetched
from nbcontain.build.operations.workshop import Workshop
from nbcontain.errors import BadArchive
from nbcontain.store import files, tar
from nbcontain.store.compression import uncompressed


def last_change(what: object, workshop: Workshop) -> int | None:
    """Seconds since 1970: of a repository the commit's time, of a file Last-Modified or the youngest file that it
    archives. None for a directory, and for what has no time. Raises BuildError."""
    match what:
        case RemoteFile():
            found = fetched(what, workshop)
            return found.modified or _youngest(found)
        case Repository():
            return _committed(what, workshop)
    return None


def _youngest(found: Fetched) -> int | None:
    """The time of the youngest regular file of an archive; None if it is no archive."""
    try:
        with found.path.open("rb", buffering=0) as file:
            reader = tar.Reader(uncompressed(file))
            times = []
            while (entry := reader.next()) is not None:
                if entry.kind == tar.REGULAR:
                    times.append(entry.mtime_ns // 1_000_000_000)
    except BadArchive:
        return None
    return max(times, default=None)


def _committed(repository: Repository, workshop: Workshop) -> int:
    with ExitStack() as stack:
        place = stack.enter_context(files.temporary_directory(workshop.store.layout.tmp))
        stack.callback(workshop.store.snapshots.remove_tree, place)
        return git.time_of(repository, commit_of(repository, workshop), place, workshop.access, workshop.emit)
