"""Looking into a stack of layers, an image's or a container's: listed, searched, read, compared. `engine.explorer`."""

from __future__ import annotations

import difflib
import gc
import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

from nbcontain.anatomy import WRITTEN, LayerPart, Layers, layers_of
from nbcontain.errors import NbcontainError, StoreError
from nbcontain.events import Emit, Progress
from nbcontain.oci.image import History
from nbcontain.runtime.container import Container
from nbcontain.store import story, tar
from nbcontain.store.contents import Contents, File, parse_contents, read_file
from nbcontain.store.story import Place, Sum, Totals, Version, story_of
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

SHOWN_BYTES = 128 << 10
"""So much of a file is looked at."""
_COMPARED_LINES = 3000
_HEX_BYTES = 2048
_KEPT_TOTALS = 3
Sort = Literal["name", "size"]


@dataclass(frozen=True, slots=True)
class Row:
    """One path as a layer leaves it."""

    path: str
    kind: str
    """file, directory, link …; of what the layer removed, what it was."""
    letter: str
    """What that layer did here: A, C, D or ""."""
    size_bytes: int
    """With all that is below."""
    entries: int
    """How many are below."""
    touched: int
    """How many of those the layer added, changed or removed."""
    file: File | None
    number: int
    """Of the layer that wrote it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one layer made of a file."""

    number: int
    letter: str
    size_bytes: int
    what: tuple[str, ...]
    """Of a C: in what it differs from before."""


@dataclass(frozen=True, slots=True)
class Look:
    """One file, looked into."""

    row: Row
    told: tuple[Told, ...]
    """Lowest layer first."""
    data: bytes = b""
    """The first `SHOWN_BYTES` of it."""
    is_text: bool = False
    is_cut: bool = False
    difference: tuple[str, ...] = ()
    """From what was there before the layer that wrote it, as lines of a unified diff."""
    note: str = ""
    """Why there is nothing to read, or to compare."""

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace") if self.is_text else ""

    @property
    def hex(self) -> str:
        """As hexdump -C has it."""
        return "\n".join(_hex_lines(self.data[:_HEX_BYTES]))


class Exploration:
    """A stack of layers that is looked into. Safe among threads.

    A place is named by its path, and its state by the number of the layer, counted from 1, that leaves it so.
    """

    def __init__(
        self, engine: Engine, name: str, layers: Layers, contents: Sequence[Contents],
        container: Container | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.layers = layers
        self.container = container
        self.story = story_of([(part.changes, each) for part, each in zip(layers.parts, contents, strict=True)])
        self._engine = engine
        self._lock = threading.Lock()
        self._totals: dict[int, Totals] = {}

    @property
    def top(self) -> int:
        """The number of the uppermost layer; 0 if there is none."""
        return len(self.layers.parts)

    def part(self, number: int) -> LayerPart:
        return self.layers.parts[number - 1]

    def again(self) -> Task[Exploration]:
        """The same, opened now: a container may have written more."""
        if self.container is None:
            return self._engine.explorer.image(str(self.layers.image.id), self.name)
        return self._engine.explorer.container(self.container)

    # --- places ---

    def rows(self, path: str, number: int, *, changed: bool = False, sort: Sort = "name") -> list[Row]:
        """What is in a directory, and what layer `number` removed from it; only what it `changed`, if that is asked."""
        place = self.story.child(path)
        if place is None:
            return []
        totals = self.totals(number)
        base = path.rstrip("/")
        found = [
            self._row(f"{base}/{os.fsdecode(name)}", child, number, total)
            for name, child in sorted(place.children.items())
            if (total := totals[child]).entries or total.touched
        ]
        if changed:
            found = [row for row in found if row.letter or row.touched]
        return sorted(found, key=lambda row: -row.size_bytes) if sort == "size" else found

    def found(self, text: str, number: int, *, changed: bool = False) -> Iterator[Row]:
        """Every path that is meant by `text` (see `story.matcher`), in order."""
        totals = self.totals(number)
        is_meant = story.matcher(text)
        for path, place in story.walk(self.story, number):
            if is_meant(path) and (not changed or place.change(number)):
                yield self._row(path, place, number, totals[place])

    def row(self, path: str, number: int) -> Row:
        """One path. Raises StoreError for one that is not there."""
        place = self.story.child(path)
        if place is None or (place.at(number) is None and place.change(number) is None):
            raise StoreError(f"there is no {path} at layer {number} of {self.name}")
        return self._row(path, place, number, self.totals(number)[place])

    def _row(self, path: str, place: Place, number: int, total: Sum) -> Row:
        letter = place.change(number) or ""
        version = place.at(number) or place.at(number - 1) or Version(0, True, None)
        kind = version.file.kind if version.file is not None else "directory"
        gone = letter == "D"
        size_bytes = total.size_bytes
        if gone:
            size_bytes = self.totals(number - 1)[place].size_bytes if place.children else (
                version.file.size_bytes if version.file else 0
            )  # fmt: skip
        return Row(
            path, kind, letter, size_bytes, max(0, total.entries - 1), total.touched - bool(letter),
            version.file, version.number,
        )  # fmt: skip

    def totals(self, number: int) -> Totals:
        """Sizes and counts of all places at a layer."""
        with self._lock:
            found = self._totals.pop(number, None)
            if found is None:
                with _many_values():
                    found = Totals(self.story, number)
            self._totals[number] = found
            while len(self._totals) > _KEPT_TOTALS:
                del self._totals[next(iter(self._totals))]
            return found

    def records(self) -> list[dict[str, object]]:
        """Everything that is there in the end, a dictionary per path."""
        found: list[dict[str, object]] = []
        for path, place in story.walk(self.story, self.top):
            version = place.at(self.top)
            if version is None:
                continue
            file = version.file
            found.append({
                "path": path, "layer": version.number, "size": file.size_bytes if file else 0,
                "mode": file.permissions if file else "drwxr-xr-x",
                "owner": f"{file.uid}:{file.gid}" if file else "0:0",
                "kind": file.kind if file else "directory", "target": file.target if file else "",
                "changed": sum(each.number > 0 for each in place.versions) - 1,
            })  # fmt: skip
        return found

    # --- files ---

    def look(self, path: str, number: int) -> Look:
        """A file's content as layer `number` leaves it, and how it came about. Reads; may take as long as its layer is.

        Raises StoreError.
        """
        row = self.row(path, number)
        place = self.story.child(path)
        assert place is not None
        told = tuple(_told(place))
        version = place.at(number)
        written = version or place.at(number - 1)
        if written is None or written.file is None or written.file.kind != "file":
            return Look(row, told, note=_about(written))
        data, note = self._bytes(path, written)
        before = place.at(written.number - 1) if version is not None else None
        difference: tuple[str, ...] = ()
        if before is not None and before.file is not None and before.file.kind == "file" and not note:
            older, note = self._bytes(path, before)
            difference = _difference(older, data, before.number, written.number)
        return Look(
            row, told, data[:SHOWN_BYTES], is_text(data), len(data) > SHOWN_BYTES, difference, note,
        )  # fmt: skip

    def _bytes(self, path: str, version: Version) -> tuple[bytes, str]:
        """The beginning of a file, a byte more than is shown if there is more; or why it cannot be had."""
        file = version.file
        assert file is not None
        try:
            if file.layer is WRITTEN:
                assert self.container is not None
                return self._engine.transfers.read(self.container, path, SHOWN_BYTES + 1), ""
            found = b""
            with self._engine.store.shared():
                for chunk in read_file(self._engine.store.blobs, file.layer, file.place):
                    found += chunk
                    if len(found) > SHOWN_BYTES:
                        break
            return found[: SHOWN_BYTES + 1], ""
        except (NbcontainError, OSError) as error:
            why = error.message if isinstance(error, NbcontainError) else error.strerror or str(error)
            return b"", f"it cannot be read: {why}"


class Explorer:
    """Opens images and containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def image(self, name: str, title: str = "") -> Task[Exploration]:
        """An image's layers, perhaps under another title than the name that finds it. Raises ImageNotFound at once."""
        image = self._engine.image(name)

        def body(emit: Emit) -> Exploration:
            with _many_values():
                contents = self._engine.anatomy.contents(image.layers, emit)
                return Exploration(self._engine, title or name, layers_of(image, contents), contents)

        return Task(f"layers of {name}", body)

    def container(self, container: Container) -> Task[Exploration]:
        """A container's: its image's, and on top what it wrote until now. Raises ImageNotFound, at once."""
        image = self._engine.archives.image_of(container)

        def body(emit: Emit) -> Exploration:
            with _many_values():
                written = self._written(container, emit)
                contents = self._engine.anatomy.contents(image.layers, emit, [written])
                writer = History(created_by=f"written by the container: {shlex.join(container.info.command)}")
                layers = layers_of(image, [*contents, written], writer)
                return Exploration(self._engine, container.name, layers, [*contents, written], container)

        return Task(f"layers of {container.name}", body)

    def _written(self, container: Container, emit: Emit) -> Contents:
        """What a container wrote, as the layer that a commit would make of it."""
        engine = self._engine
        found: list[Contents] = []

        def read(source: int) -> None:
            with os.fdopen(source, "rb", closefd=False) as stream:
                strike = lambda read_bytes: emit(Progress("read", read_bytes, None))  # noqa: E731
                found.append(parse_contents(cast(tar.Readable, stream), WRITTEN, strike))

        with engine.store.shared():
            active = engine.store.snapshots_of(container.id).active(container.id)
            engine.stacks.read_copy(active, container.bundle.stubs(), read)
        return found[0]


@contextmanager
def _many_values() -> Iterator[None]:
    """Tens of thousands of values are made that all stay: to look among them for garbage takes a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not gc.get_freeze_count():
                # Frozen and thawed, all count as old, and the next look among the young ones does not find them. What
                # somebody has frozen himself would be thawed with them.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _told(place: Place) -> Iterator[Told]:
    for before, version in zip([None, *place.versions], place.versions, strict=False):
        was = before if before is not None and before.is_there else None
        letter = "D" if not version.is_there else "C" if was is not None else "A"
        what: tuple[str, ...] = ()
        if version.file is not None and was is not None and was.file is not None:
            what = version.file.differs(was.file)
        if version.number:
            yield Told(version.number, letter, version.file.size_bytes if version.file else 0, what)


def _about(version: Version | None) -> str:
    file = version.file if version is not None else None
    if file is None or file.kind == "directory":
        return "a directory"
    if file.kind == "link":
        return f"a symbolic link to {file.target}"
    return f"a {file.kind}" + (" {}:{}".format(*file.device) if "device" in file.kind else "")


def is_text(data: bytes) -> bool:
    """Whether people can read it."""
    head = data[:4096]
    if b"\0" in head:
        return False
    # A character may be cut at the end of what was read.
    return not head or head.decode(errors="replace").rstrip("\ufffd").count("\ufffd") * 20 <= len(head)


def _difference(older: bytes, newer: bytes, before: int, after: int) -> tuple[str, ...]:
    """Of texts that are small enough, as a unified diff."""
    if not (is_text(older) and is_text(newer)):
        return ()
    old, new = older.decode(errors="replace").splitlines(), newer.decode(errors="replace").splitlines()
    names = (f"layer {before}", f"layer {after}")
    return tuple(difflib.unified_diff(old[:_COMPARED_LINES], new[:_COMPARED_LINES], *names, lineterm=""))


def _hex_lines(data: bytes) -> Iterator[str]:
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        shown = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield f"{start:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{shown}|"
