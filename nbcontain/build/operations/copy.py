"""COPY and ADD: files of the context, of another file system, of a server, or of the Dockerfile itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nbcontain.build import git, unpacker
from nbcontain.build.context import Context
from nbcontain.build.graph import CopyFiles, Document, RemoteFile, Repository
from nbcontain.build.operations import direct
from nbcontain.build.operations.keys import commit_of, context_of, fetched
from nbcontain.build.operations.workshop import Filesystem, Workshop, execute
from nbcontain.build.patterns import Ignore
from nbcontain.build.selection import Wanted, select
from nbcontain.build.walk import Entry, Walk
from nbcontain.errors import BuildError
from nbcontain.store import files, removal
from nbcontain.store.snapshots import Active


@execute.register
def _(operation: CopyFiles, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    with ExitStack() as stack:
        groups = _groups(operation, workshop, stack)
        if not workshop.can_enter:
            from nbcontain.build.operations.straight import copied

            return copied(operation, inputs, groups, workshop)
        if operation.from_context or not operation.sources:
            made = direct.copied(operation, inputs[0], groups, workshop)
            if made is not None:
                return made
        return _copied_inside(operation, inputs, groups, workshop)


def _copied_inside(
    operation: CopyFiles, inputs: Sequence[Filesystem], groups: Sequence[Group], workshop: Workshop
) -> Filesystem:
    """File by file, where it can be anything, and by what the kernel says of the root that it changes."""

    def copy(active: Active) -> Sequence[str]:
        with ExitStack() as stack:
            arguments: dict[str, Any] = {
                "destination": operation.destination, "chown": operation.chown, "chmod": operation.chmod,
                "into_directory": operation.into_directory, "parents": operation.parents,
                "excludes": operation.excludes, "unpack": operation.unpack,
                "sources": () if operation.from_context else operation.sources,
                "entries": [[entry.to_json() for entry in entries] for _, entries in groups],
            }  # fmt: skip
            source = workshop.view(inputs[-1]) if arguments["sources"] else ()
            fds = [fd for fd, _ in groups]
            if workshop.stacks.records:
                ledgers = [*stack.enter_context(workshop.ledger(active))]
                if source:
                    ledgers += [*stack.enter_context(workshop.stacks.ledger(inputs[-1].chain_id))]
                arguments["ledgers"] = list(range(len(fds), len(fds) + len(ledgers)))
                fds += ledgers
            if arguments["sources"] and not source:
                fds.append(_nothing(workshop, stack))
            has_archives = any(entry.is_archive for _, entries in groups for entry in entries)
            workshop.launcher.call(
                "copy_files", active.mounts, arguments, fds, source=source,
                imports=(_DECOMPRESSORS,) if has_archives or (operation.unpack and source) else (),
            )  # fmt: skip
        return ()

    return workshop.change(inputs[0], copy)


_DECOMPRESSORS = "nbcontain.build.decompressors"
Group = tuple[int, list[Entry]]
"""A directory's descriptor, and what is to be copied from there."""


def _groups(operation: CopyFiles, workshop: Workshop, stack: ExitStack) -> list[Group]:
    """The files that lie outside of any image, open until the end of `stack`."""
    groups: list[Group] = []
    directory: Path | None = None
    for number, each in enumerate(_in_order(operation)):
        if isinstance(each, tuple):
            context = context_of(operation, workshop)
            entries = context.select(Wanted(each, operation.parents, operation.excludes))
            fd = _opened(context, stack)
            groups.append((fd, unpacker.with_archives(fd, entries) if operation.unpack else entries))
            continue
        if directory is None:
            directory = stack.enter_context(files.temporary_directory(workshop.store.layout.tmp))
            stack.callback(workshop.store.overlays.remove_tree, directory)
        groups.append(_made(each, operation, directory / str(number), workshop, stack))
    return groups


def _in_order(operation: CopyFiles) -> list[tuple[str, ...] | RemoteFile | Repository | Document]:
    """What is copied from outside of any image, as the instruction names it: neighbours of the context together."""
    found: list[tuple[str, ...] | RemoteFile | Repository | Document] = []
    sources = operation.sources if operation.from_context else ()
    done = 0
    places = operation.remote_places or (len(sources),) * len(operation.remotes)
    for place, remote in zip(places, operation.remotes, strict=True):
        if place > done:
            found.append(sources[done:place])
            done = place
        found.append(remote)
    if done < len(sources):
        found.append(sources[done:])
    return [*found, *operation.documents]


def _made(
    source: RemoteFile | Repository | Document, operation: CopyFiles, place: Path, workshop: Workshop, stack: ExitStack
) -> Group:
    """A directory with what is to be had from elsewhere."""
    place.mkdir(mode=0o700)
    unpack = False
    match source:
        case RemoteFile():
            fetched(source, workshop).place(place / source.name)
            unpack = operation.unpack_remote
        case Repository():
            place = git.checked_out(source, commit_of(source, workshop), place, workshop.access, workshop.emit)
        case Document():
            files.write_new(place / source.name, source.text.encode("utf-8", "surrogateescape"), 0o644)
            os.chmod(place / source.name, 0o644)
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    names = (".",) if isinstance(source, Repository) else (source.name.replace("\\", "\\\\"),)
    walk = Walk(fd, Ignore())
    entries = (
        select(walk, Wanted(names, excludes=operation.excludes), _gone)
        if isinstance(source, Repository)
        else [entry for entry in [walk.entry(source.name, source.name)] if entry is not None]
    )
    return fd, unpacker.with_archives(fd, entries) if unpack else entries


def _nothing(workshop: Workshop, stack: ExitStack) -> int:
    """The files of FROM scratch: an empty root directory, as for BuildKit."""
    directory = stack.enter_context(files.temporary_directory(workshop.store.layout.tmp))
    stack.callback(removal.remove_tree, directory)
    # Its mode is that of what is copied.
    files.set_mode(directory, 0o755)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _gone(walk: Walk, path: str) -> BuildError:
    return BuildError(f"{path} is gone")


def _opened(context: Context, stack: ExitStack) -> int:
    fd = context.open_fd()
    stack.callback(os.close, fd)
    return fd
