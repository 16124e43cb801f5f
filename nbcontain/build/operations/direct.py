"""COPY and ADD of plain files: the layer is written straight from where they lie, and its snapshot with it.

Every file is opened and read once. Its bytes go to the layer's blob and, at the same time, to a worker that unpacks
them into the snapshot. What is copied so gives the layer that `copier` and the packer would have given, byte for byte
but for the times of what is made anew; whatever is not plain, or in the way of something, is theirs.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from nbcontain.build.fingerprint import kept_xattrs
from nbcontain.build.graph import CopyFiles
from nbcontain.build.laying import Item, Laying
from nbcontain.build.operations.workshop import Filesystem, Workshop
from nbcontain.build.walk import Entry, opened_directory, unreadable
from nbcontain.events import Progress
from nbcontain.host import Ability
from nbcontain.oci.digest import chain_id
from nbcontain.runtime import identity
from nbcontain.store import tar
from nbcontain.store.contents import File
from nbcontain.store.file_trees import Node
from nbcontain.store.layer_writer import LayerWriter, layer_writer, ring_for
from nbcontain.store.pipes import alongside
from nbcontain.store.tar_writing import header_of
from nbcontain.store.whiteouts import WHITEOUT
from nbcontain.values import dataclass

_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PLAIN = frozenset({"file", "directory", "symlink"})
_WHITEOUT = os.fsdecode(WHITEOUT)
_SMALL_BYTES = 128 << 10
_HEADER_BYTES = 2 * tar.BLOCK
"""What a file takes in a tar besides its bytes, about."""
_SHARED_BYTES = 256 << 10
"""Files that are larger than that, on the average, had better share their blocks with the context's, where they can."""
Group = tuple[int, list[Entry]]
Laid = list[tuple[tar.Entry, Any]]


class _NotPlain(Exception):
    """A file has attributes, holes or further names, or is another than it was a moment ago."""


def copied(
    operation: CopyFiles, parent: Filesystem, groups: Sequence[Group], workshop: Workshop
) -> Filesystem | None:
    """What COPY or ADD makes of `parent`; None where it has to be done file by file inside the root.

    Raises BuildError for an owner or a file that is not there. What was begun is gone if it fails.
    """
    entries = [entry for _, of_group in groups for entry in of_group]
    if not all(map(_is_plain, entries)):
        return None
    if workshop.host.can(Ability.REFLINKS) and sum(each.size for each in entries) > len(entries) * _SHARED_BYTES:
        return None
    met = _met(operation, parent, groups, workshop)
    if met is None or _WHITEOUT in met.place:
        return None
    laying = Laying(met.below, met.owner, time.time_ns())
    for fd, of_group in groups:
        items = [_item(fd, entry, met.owner) for entry in of_group]
        laying.copy(items, met.place, operation.chmod, into_directory=operation.into_directory)
    laid = laying.entries()
    if not laid:
        return parent
    try:
        return _written(laid, parent, workshop)
    except _NotPlain:
        return None


def _is_plain(entry: Entry) -> bool:
    # A name that begins like a whiteout's is one to whoever unpacks the layer.
    return (
        entry.kind in _PLAIN and entry.inode is None and not entry.is_archive
        and _WHITEOUT not in entry.target
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Met:
    """What there is where the files go."""

    place: str
    owner: tuple[int, int]
    below: Node


def _met(operation: CopyFiles, parent: Filesystem, groups: Sequence[Group], workshop: Workshop) -> _Met | None:
    """None if something is in the way."""
    if parent.chain_id is None:
        user = identity.owner(operation.chown, "", "")
        return _Met(os.path.normpath(operation.destination), (user.uid, user.gid), Node())
    arguments = {
        "destination": operation.destination, "chown": operation.chown,
        "targets": [(entry.target, entry.kind == "directory") for _, entries in groups for entry in entries
                    if entry.target != "."],
    }  # fmt: skip
    mounts = workshop.view(parent)
    with workshop.stacks.ledger(parent.chain_id) as ledger:
        found = workshop.launcher.call("survey", mounts, arguments, ledger)
    if not found["place"]:
        return None
    below = Node()
    for path, mode, uid, gid, mtime_ns, attributes in found["directories"]:
        xattrs = tuple((os.fsencode(name), bytes.fromhex(value)) for name, value in attributes)
        # Which of the layers has it, nobody asks.
        file = File("directory", mode, uid, gid, 0, mtime_ns, "", (0, 0), xattrs, b"", parent.layers[-1], 0)
        _put(below, path, file)
    for path in found["others"]:
        _put(below, path, File("file", 0, 0, 0, 0, 0, "", (0, 0), (), b"", parent.layers[-1], 0))
    return _Met(found["place"], (found["owner"][0], found["owner"][1]), below)


def _put(node: Node, path: str, file: File) -> None:
    for part in os.fsencode(path).split(b"/"):
        node = node.children.setdefault(part, Node())
    node.file = file


def _item(fd: int, entry: Entry, owner: tuple[int, int]) -> Item:
    return Item(
        entry.target, entry.kind, entry.mode, entry.is_content, owner, entry.stat[3], entry.size, entry.link,
        source=(fd, entry.path) if entry.kind == "file" else None,
    )  # fmt: skip


# --- writing ---


def _written(laid: Laid, parent: Filesystem, workshop: Workshop) -> Filesystem:
    """The layer and its snapshot. Raises _NotPlain."""
    workshop.unpack(parent.layers)
    snapshots = workshop.store.snapshots
    with snapshots.staging(parent.chain_id) as staging, ExitStack() as stack:

        ring = ring_for(sum(entry.size + _HEADER_BYTES for entry, _ in laid))
        stack.callback(ring.leave)
        stack.callback(ring.close)

        def write() -> LayerWriter:
            try:
                writer = stack.enter_context(layer_writer(workshop.store.blobs, ring))
                # Its threads end before the ring is closed.
                with writer, _Sources() as sources:
                    for number, (entry, source) in enumerate(laid):
                        if not number % 256:
                            workshop.emit(Progress("", number))
                        if source is None:
                            writer.write(header_of(entry))
                        else:
                            sources.write(entry, source, writer)
                    writer.write(bytes(2 * tar.BLOCK))
                    writer.finish()
                return writer
            finally:
                ring.close()

        layer = alongside(write, lambda: workshop.stacks.apply(staging, ring)).commit()
        workshop.stacks.commit(staging, chain_id(parent.chain_id, layer.diff_id), parent.chain_id)
    return Filesystem((*parent.layers, layer))


class _Sources:
    """Where files are read from: one directory is open at a time, for most of them come one after the other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open = (-1, "")
        self._directory = -1

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, entry: tar.Entry, source: tuple[int, str], writer: LayerWriter) -> None:
        """Write one file's header and bytes. Raises _NotPlain, BuildError."""
        root, path = source
        above, _, name = path.rpartition("/")
        try:
            if self._open != (root, above):
                self._stack.close()
                self._directory = self._stack.enter_context(opened_directory(root, above or ".", os.O_PATH))
                self._open = (root, above)
            fd = os.open(name, _OLD_FILE, dir_fd=self._directory)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            self._write_opened(fd, entry, writer)
        finally:
            os.close(fd)

    def _write_opened(self, fd: int, entry: tar.Entry, writer: LayerWriter) -> None:
        status = os.fstat(fd)
        size = entry.size
        if (status.st_size, status.st_mtime_ns) != (size, entry.mtime_ns) or not stat.S_ISREG(status.st_mode):
            raise _NotPlain
        # What somebody's desktop noted at it is nobody else's business (see `copier`).
        if any(not attribute.startswith(b"user.") for attribute, _ in kept_xattrs(fd)):
            raise _NotPlain
        header = header_of(entry)
        if size <= _SMALL_BYTES:
            # A byte more than there was: less than that is the end.
            data = os.read(fd, size + 1) if size else b""
            if len(data) != size:
                raise _NotPlain
            writer.write(header + data + bytes(-size % tar.BLOCK))
            return
        if size > status.st_blocks * 512:
            raise _NotPlain
        writer.write(header)
        if writer.read_from(fd, size) != size:
            raise _NotPlain
        writer.write(bytes(-size % tar.BLOCK))
