"""COPY, ADD and WORKDIR where no container can be had: their layers are written straight away, and no root is made.

What the image holds is read from its layers (`store.contents`); what is laid on it is decided by `laying`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence

from nbcontain.build.fingerprint import kept_xattrs
from nbcontain.build.graph import CopyFiles, MakeDirectory
from nbcontain.build.laying import Item, Laying
from nbcontain.build.operations.workshop import Filesystem, Workshop
from nbcontain.build.patterns import has_wildcards
from nbcontain.build.walk import Entry, opened_file, unescaped
from nbcontain.errors import BuildError, StoreError
from nbcontain.events import Progress
from nbcontain.linux import trees
from nbcontain.runtime import identity
from nbcontain.store import contents, file_trees, tar
from nbcontain.store.compression import uncompressed
from nbcontain.store.contents import File
from nbcontain.store.file_trees import Node
from nbcontain.store.layer_writer import LayerWriter, layer_writer
from nbcontain.store.tar_writing import header_of

_READ_BYTES = 1 << 20
Group = tuple[int, list[Entry]]


def copied(
    operation: CopyFiles, inputs: Sequence[Filesystem], groups: Sequence[Group], workshop: Workshop
) -> Filesystem:
    """What COPY or ADD makes of the first input. Raises BuildError, and Unavailable for what takes a container."""
    _require(operation, groups, workshop)
    laying = _begun(inputs[0], operation.chown, workshop)
    if operation.sources and not operation.from_context:
        owner = laying.owner if operation.chown else None
        items = list(_of_tree(_tree(inputs[-1], workshop), operation.sources, owner))
        laying.copy(items, operation.destination, operation.chmod, into_directory=operation.into_directory)
    for fd, entries in groups:
        items = [_of_context(fd, entry, laying.owner) for entry in entries]
        laying.copy(items, operation.destination, operation.chmod, into_directory=operation.into_directory)
    return _written(laying, inputs[0], workshop)


def with_directory(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    """What WORKDIR makes of its input. Raises BuildError."""
    laying = _begun(inputs[0], operation.user, workshop)
    laying.make_directories(os.fsencode(operation.path).strip(b"/"))
    return _written(laying, inputs[0], workshop)


def _require(operation: CopyFiles, groups: Sequence[Group], workshop: Workshop) -> None:
    """What a file system has to be there for."""
    if any(entry.is_archive for _, entries in groups for entry in entries):
        workshop.require("ADD of an archive, which is unpacked,")
    if operation.sources and not operation.from_context:
        if operation.unpack:
            workshop.require("ADD --from")
        if operation.parents or operation.excludes or any(map(has_wildcards, operation.sources)):
            workshop.require("COPY --from with wildcards, --parents or --exclude")


def _begun(filesystem: Filesystem, owner: str, workshop: Workshop) -> Laying:
    tree = _tree(filesystem, workshop)
    user = identity.owner(owner, _text(tree, "/etc/passwd", workshop), _text(tree, "/etc/group", workshop))
    return Laying(tree, (user.uid, user.gid), time.time_ns())


def _tree(filesystem: Filesystem, workshop: Workshop) -> Node:
    """What the layers show together. Where it is told of, a cancellation strikes."""

    def strike(count: int) -> None:
        workshop.emit(Progress("", count))

    blobs = workshop.store.blobs
    return file_trees.all_of([contents.read_contents(blobs, layer, strike) for layer in filesystem.layers])


def _text(tree: Node, path: str, workshop: Workshop) -> str:
    """A text of the image; "" where there is none."""
    try:
        _, node = file_trees.resolve(tree, path)
    except StoreError:
        return ""
    if node.file is None or node.file.kind != "file":
        return ""
    return b"".join(contents.read_file(workshop.store.blobs, node.file.layer, node.file.place)).decode(errors="replace")


def _of_context(fd: int, entry: Entry, owner: tuple[int, int]) -> Item:
    """A file of the context. Raises BuildError if it is gone."""
    try:
        place = trees.open_beneath(fd, entry.path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise BuildError(f"{entry.path} cannot be read", why=error.strerror or "") from error
    try:
        status = os.fstat(place)
    finally:
        os.close(place)
    xattrs = {}
    if entry.kind == "file":
        with opened_file(fd, entry.path) as file:
            # What somebody's desktop noted at it is nobody else's business (see `copier`).
            xattrs = {name: value for name, value in kept_xattrs(file) if not name.startswith(b"user.")}
    return Item(
        entry.target, entry.kind, stat.S_IMODE(entry.mode), entry.is_content, owner, status.st_mtime_ns,
        status.st_size if entry.kind == "file" else 0, entry.link, twin=entry.inode, xattrs=xattrs,
        source=(fd, entry.path) if entry.kind == "file" else None,
    )  # fmt: skip


def _of_tree(tree: Node, sources: Iterable[str], owner: tuple[int, int] | None) -> Iterator[Item]:
    """Files of another file system's layers. Raises BuildError for what is not there."""
    for source in sources:
        try:
            path, node = file_trees.resolve(tree, unescaped(source))
        except StoreError as error:
            raise BuildError(f"no /{source.lstrip('/')} in that stage or image", hint=error.hint) from error
        yield _item("." if node.is_directory else path.rpartition("/")[2], node, owner, is_content=node.is_directory)
        for below, each in node.walk() if node.is_directory else ():
            yield _item(below.lstrip("/"), each, owner, is_content=True)


def _item(target: str, node: Node, owner: tuple[int, int] | None, *, is_content: bool) -> Item:
    file = node.file
    if file is None:
        return Item(target, "directory", 0o755, is_content, owner or (0, 0), 0)
    kind = {"link": "symlink", "fifo": "pipe"}.get(file.kind, file.kind)
    return Item(
        target, kind, file.mode, is_content, owner or (file.uid, file.gid), file.mtime_ns, file.size_bytes, file.target,
        file.device, file, dict(file.xattrs), file if kind == "file" else None,
    )  # fmt: skip


# --- writing ---


def _written(laying: Laying, below: Filesystem, workshop: Workshop) -> Filesystem:
    entries = laying.entries()
    if not entries:
        return below
    with layer_writer(workshop.store.blobs) as writer:
        of_layers: list[tuple[File, tar.Entry]] = []
        last = []
        for entry, source in entries:
            if entry.kind == tar.LINK:
                last.append(entry)
            elif isinstance(source, File):
                of_layers.append((source, entry))
            else:
                writer.write(header_of(entry))
                if source is not None:
                    _write_file(writer, source, entry.size)
        _write_files_of_layers(writer, of_layers, workshop)
        for entry in last:
            writer.write(header_of(entry))
        writer.write(bytes(2 * tar.BLOCK))
        return Filesystem((*below.layers, writer.commit()))


def _write_file(writer: LayerWriter, source: tuple[int, str], size_bytes: int) -> None:
    with opened_file(*source) as file:
        left = size_bytes
        while left:
            # A file that somebody cut meanwhile is filled up: the header has promised its size.
            data = os.read(file, min(left, _READ_BYTES)) or bytes(min(left, _READ_BYTES))
            writer.write(data)
            left -= len(data)
    writer.write(bytes(-size_bytes % tar.BLOCK))


def _write_files_of_layers(writer: LayerWriter, wanted: list[tuple[File, tar.Entry]], workshop: Workshop) -> None:
    """In the order of their layers' tars, so that each of those is read once, and again for what is there twice."""
    once = dict(reversed(wanted))
    for layer in dict.fromkeys(file.layer for file, _ in wanted):
        places = {file.place: entry for file, entry in once.items() if file.layer == layer}
        with workshop.store.blobs.open(layer.descriptor.digest) as blob:
            reader = tar.Reader(uncompressed(blob), contents.LIMITS, hashes=False)
            while reader.next() is not None:
                if (entry := places.get(reader.entries - 1)) is None:
                    continue
                writer.write(header_of(entry))
                while chunk := reader.chunk():
                    writer.write(chunk)
                writer.write(bytes(-entry.size % tar.BLOCK))
    if again := [(file, entry) for file, entry in wanted if once[file] is not entry]:
        _write_files_of_layers(writer, again, workshop)
