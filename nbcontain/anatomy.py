"""What images are made of: the files of their layers, what one has otherwise than another, whether all of it is whole.

Read from the stored layers, without unpacking, running or being anybody in particular. `engine.anatomy`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from nbcontain.errors import ImageNotFound, StoreError, UsageError
from nbcontain.events import Emit, Progress, scope
from nbcontain.oci import codec
from nbcontain.oci.digest import ChainID, DiffID, Digest, chain_ids
from nbcontain.oci.image import Descriptor, History, Image, Layer
from nbcontain.store import inventory
from nbcontain.store.compression import uncompressed
from nbcontain.store.contents import Contents, File, listed_contents, paths_of, read_contents, read_file
from nbcontain.store.file_trees import Added, Change, Node, all_of, apply, compare, resolve
from nbcontain.task import Task
from nbcontain.values import dataclass, field

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_KEPT_ENTRIES = 300_000
"""How many files' descriptions stay in memory for the next question."""
WRITTEN = Layer(Descriptor("", Digest.of(b"what a container wrote"), 0), DiffID(Digest.of(b"what a container wrote")))
"""Stands for the layer that a container writes to, which is stored under no digest."""
_LAYER = re.compile(r"(.+)@layer(\d+)")


@dataclass(frozen=True, slots=True)
class LayerPart:
    """One layer of an image: what made it, and what it does to the files below."""

    number: int
    """Counted from 1, the lowest."""
    layer: Layer
    entry: History
    files_bytes: int
    """Of its files, unpacked."""
    changes: Sequence[Change]
    wasted: tuple[tuple[str, int], ...]
    """Its files that a later layer overwrites or removes: path and bytes."""
    letters: str = ""
    """Those of its changes, in their order."""

    @property
    def wasted_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self.wasted)

    @property
    def is_stored(self) -> bool:
        """Whether it is a layer of an image, and not what a container wrote."""
        return self.layer is not WRITTEN

    @property
    def instruction(self) -> str:
        """What made it, in the words of its Dockerfile."""
        return instruction_of(self.entry.created_by or self.entry.comment)

    def count(self, letter: str) -> int:
        """How many paths it adds (A), changes (C) or removes (D)."""
        return self.letters.count(letter)


@dataclass(frozen=True, slots=True)
class Layers:
    """An image, layer by layer, lowest first."""

    image: Image
    parts: tuple[LayerPart, ...]
    """Of a container the last one is what it wrote itself (`WRITTEN`)."""

    @property
    def files_bytes(self) -> int:
        return sum(part.files_bytes for part in self.parts)

    @property
    def wasted_bytes(self) -> int:
        return sum(part.wasted_bytes for part in self.parts)

    @property
    def efficiency(self) -> float:
        """Which part of the files' bytes can be seen in the end: 1.0 if all."""
        return 1 - self.wasted_bytes / self.files_bytes if self.files_bytes else 1.0

    def wasted(self) -> list[tuple[str, int, int]]:
        """Paths by what is wasted on them: path, bytes, and in how many layers."""
        found: dict[str, tuple[int, int]] = {}
        for part in self.parts:
            for path, size_bytes in part.wasted:
                total, times = found.get(path, (0, 0))
                found[path] = (total + size_bytes, times + 1)
        pairs = [(path, total, times) for path, (total, times) in found.items() if total]
        return sorted(pairs, key=lambda each: (-each[1], each[0]))


@dataclass(frozen=True, slots=True)
class Difference:
    """What a second image has otherwise than a first: of its config, and of its files."""

    config: tuple[tuple[str, str, str], ...]
    """What, before, after."""
    changes: tuple[Change, ...]

    def __repr__(self) -> str:
        return f"<Difference {len(self.config)} of the config, {len(self.changes)} changes of files>"


@dataclass(frozen=True, slots=True)
class TreeAt:
    """A directory of an image, or a file, with all that is below. `marks` are the changes of one layer, by path."""

    name: str
    path: str
    node: Node
    marks: dict[str, Change] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<TreeAt {self.name} {self.path}>"

    @property
    def paths(self) -> list[str]:  # every one below
        return [path for path, _ in self.node.walk("" if self.path == "/" else self.path)]


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing of an image that was read and hashed. `damage` is "" for one that is whole."""

    what: str
    digest: str
    size_bytes: int | None
    damage: str = ""
    mend: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.damage


class Anatomy:
    """Looks into the images of one engine, safe among threads. What was read of a layer stays for a while."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: dict[Digest, Contents] = {}

    def layers(self, name: str) -> Task[Layers]:
        """Every layer of an image: its instruction, what it changes, and what of it is hidden later."""

        def body(emit: Emit) -> Layers:
            image = self._engine.image(name)
            return layers_of(image, self.contents(image.layers, emit))

        return Task(f"layers of {name}", body)

    def diff(self, first: str, second: str, *, times: bool = False) -> Task[Difference]:
        """What the second image has otherwise than the first; `times` says whether modification times count."""

        def body(emit: Emit) -> Difference:
            old, new = self._engine.image(first), self._engine.image(second)
            # What both stand on is read once, and its files are the same values in both trees.
            before, after = (all_of(self.contents(image.layers, emit, whole=True)) for image in (old, new))
            return Difference(tuple(_config_differences(old, new)), tuple(compare(before, after, times=times)))

        return Task(f"diff {first} {second}", body)

    def tree(self, name: str, path: str = "/") -> Task[TreeAt]:
        """The files of an image from `path` down; of NAME@layer2, what its second layer changes."""

        def body(emit: Emit) -> TreeAt:
            image, number = self._layer_of(name)
            contents = self.contents(image.layers[:number], emit)
            if number is None:
                found, node = resolve(all_of(contents), path)
                return TreeAt(name, found, node)
            root = all_of(contents[:-1])
            below = all_of(contents[:-1])
            changes, _ = apply(root, contents[-1])
            return TreeAt(
                name, *resolve(_changed_only(root, below, changes), path), {each.path: each for each in changes}
            )

        return Task(f"tree of {name}", body)

    def read(self, name: str, path: str) -> Iterator[bytes]:
        """The bytes of a file of an image, symbolic links followed inside of it. Raises StoreError, ImageNotFound."""
        image, number = self._layer_of(name)
        found, node = resolve(all_of(self.contents(image.layers[:number], lambda event: None)), path)
        if node.file is None or node.file.kind != "file":
            kind = node.file.kind if node.file else "directory"
            hint = f"%image tree {name} {found}" if node.is_directory else ""
            raise StoreError(f"{found} is a {kind}", hint=hint)
        return read_file(self._engine.store.blobs, node.file.layer, node.file.place)

    def names(self, name: str, path: str) -> list[tuple[str, str]]:
        """What is in a directory of an image: names and kinds, of symlinks what they lead to. Raises StoreError."""
        tree, (found, node) = self._found(name, path)
        if not node.is_directory:
            raise StoreError(f"{found} is no directory")
        return [(os.fsdecode(each), _kind(tree, f"{found}/{os.fsdecode(each)}")) for each in sorted(node.children)]

    def kind(self, name: str, path: str) -> str:
        """What a path of an image leads to: "file", "directory", "other". Raises StoreError for nothing."""
        tree, (found, _) = self._found(name, path)
        return _kind(tree, found)

    def _found(self, name: str, path: str) -> tuple[Node, tuple[str, Node]]:
        image, number = self._layer_of(name)
        tree = all_of(self.contents(image.layers[:number], lambda event: None))
        return tree, resolve(tree, path)

    def _layer_of(self, name: str) -> tuple[Image, int | None]:
        """The image, and the number after @layer."""
        match = _LAYER.fullmatch(name)
        if match is None:
            return self._engine.image(name), None
        image = self._engine.image(match[1])
        number = int(match[2])
        if not 1 <= number <= len(image.layers):
            raise UsageError(
                f"{match[1]} has no layer {number}", why=f"it has {len(image.layers)}, counted from 1, the lowest",
                hint=f"%image layers {match[1]}",
            )  # fmt: skip
        return image, number

    def contents(
        self, layers: Sequence[Layer], emit: Emit, above: Sequence[Contents] = (), *, whole: bool = False
    ) -> list[Contents]:
        """What is in these layers, lowest first, to be compared with each other and with what is `above` them.

        Only with `whole` they can be compared with other images' layers: else files are hashed just where other layers
        of these have the same paths. What an inventory tells is not read from the tar.
        """
        done, total = 0, sum(layer.descriptor.size for layer in layers)
        with scope(emit, "read", "layers"), self._engine.store.shared():
            names = _names_of(layers)
            known = [self._known(layer, name) for layer, name in zip(layers, names, strict=True)]
            found: list[Contents] = []
            for number, layer in reversed(list(enumerate(layers))):
                below = [each for each in known[:number] if each is not None]
                is_told = len(below) == number and not whole
                hashed = paths_of([*below, *found, *above]) if is_told else None
                contents = known[number]
                if contents is None or not contents.is_hashed_at(hashed):
                    keep = partial(inventory.keep, self._engine.store.snapshots, names[number])
                    contents = read_contents(
                        self._engine.store.blobs, layer, _teller(emit, done, total), hashed, keep
                    )  # fmt: skip
                done += layer.descriptor.size
                self._keep(layer, contents)
                found.append(contents)
        return found[::-1]

    def _known(self, layer: Layer, name: ChainID) -> Contents | None:
        """What is in a layer, if that is known without reading its tar; `name` is the snapshot that ends with it."""
        with self._lock:
            contents = self._kept.pop(layer.descriptor.digest, None)
        if contents is None and (data := inventory.read(self._engine.store.snapshots, name)):
            with suppress(StoreError):
                return listed_contents(data, layer)
        return contents

    def _keep(self, layer: Layer, contents: Contents) -> None:
        with self._lock:
            self._kept[layer.descriptor.digest] = contents
            while sum(len(each.entries) for each in self._kept.values()) > _KEPT_ENTRIES and len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]

    # --- whether all is whole ---

    def verify(self, name: str) -> Task[tuple[Examined, ...]]:
        """Read everything that an image is made of and hash it anew: documents, layers as stored, and unpacked.

        Raises ImageNotFound; what is damaged is told, not raised.
        """

        def body(emit: Emit) -> tuple[Examined, ...]:
            with scope(emit, "verify", f"verify {name}"), self._engine.store.shared():
                return tuple(self._verified(name, emit))

        return Task(f"verify {name}", body)

    def _verified(self, name: str, emit: Emit) -> Iterator[Examined]:
        mend = "%nbcontain system check --full --repair sets it aside; then pull, load or build the image again"
        try:
            image = self._engine.image(name)
            # Not what memory has of it.
            store = self._engine.store
            raw = store.blobs.read(image.digest, store.blobs.size(image.digest))
            again = codec.image_from(raw, store.blobs.read(image.id, store.blobs.size(image.id)))
        except ImageNotFound:
            raise
        except (StoreError, OSError) as error:
            why = error.why or error.message if isinstance(error, StoreError) else str(error)
            yield Examined("manifest or config", "", None, why, mend)
            return
        yield Examined("manifest", str(again.digest), len(raw))
        yield Examined("config", str(again.id), len(again.raw_config))
        for number, (layer, chain) in enumerate(zip(again.layers, _names_of(again.layers), strict=True), start=1):
            damage = self._damage(layer, emit)
            yield Examined(
                f"layer {number}", str(layer.descriptor.digest), layer.descriptor.size, damage, mend * bool(damage)
            )
            snapshots = self._engine.store.snapshots
            if snapshots.exists(chain):
                hurt = "" if (snapshots.shelf.snapshot(chain) / "fs").is_dir() else "its files are gone"
                mended = "%nbcontain system check --repair unpacks it again"
                yield Examined(f"layer {number}, unpacked", str(chain), None, hurt, mended * bool(hurt))

    def _damage(self, layer: Layer, emit: Emit) -> str:
        """What is wrong with a layer's blob, or with what it unpacks to."""
        digest = layer.descriptor.digest
        plain = hashlib.new(layer.diff_id.algorithm)
        try:
            size_bytes = self._engine.store.blobs.size(digest)
            if size_bytes != layer.descriptor.size:
                return f"it has {size_bytes} bytes, and the manifest says {layer.descriptor.size}"
            with self._engine.store.blobs.open(digest) as blob:
                stream = uncompressed(blob)
                told = done = 0
                while chunk := stream.chunk():
                    plain.update(chunk)
                    done += len(chunk)
                    if done - told > 8 << 20:
                        emit(Progress("verify", done, None))
                        told = done
                while blob.read(1 << 20):
                    pass
        except FileNotFoundError:
            return "it is missing"
        except (StoreError, OSError) as error:
            return error.message if isinstance(error, StoreError) else str(error)
        found = DiffID(Digest(layer.diff_id.algorithm, plain.hexdigest()))
        return "" if found == layer.diff_id else f"it unpacks to {found}, and the config says {layer.diff_id}"


def layers_of(image: Image, contents: Sequence[Contents], writer: History | None = None) -> Layers:
    """An image's layers from what is in them, lowest first; with one more that a container wrote, which is `writer`."""
    layers = [*image.layers, *([WRITTEN] if writer else [])]
    entries = [*entries_of(image), *([writer] if writer else [])]
    root = Node()
    found: list[Sequence[Change]] = []
    index = {layer.descriptor.digest: number for number, layer in enumerate(layers)}
    hidden_at: dict[File, str] = {}
    for each in contents:
        changes, hidden = apply(root, each)
        found.append(changes)
        for path, file in hidden:
            if file.size_bytes:
                hidden_at.setdefault(file, path)
    # A file of which another name is still to be seen is not wasted.
    shown = {node.file for _, node in root.walk()} if hidden_at else set()
    wasted: list[list[tuple[str, int]]] = [[] for _ in contents]
    for file, path in hidden_at.items():
        if file not in shown:
            wasted[index[file.layer.descriptor.digest]].append((path, file.size_bytes))
    parts = []
    for number, (layer, entry, each, changes) in enumerate(zip(layers, entries, contents, found, strict=True)):
        letters = "A" * len(changes) if isinstance(changes, Added) else "".join([each.letter for each in changes])
        kept = changes if isinstance(changes, Added) else tuple(changes)
        parts.append(LayerPart(number + 1, layer, entry, each.size_bytes, kept, tuple(wasted[number]), letters))
    return Layers(image, tuple(parts))


def _names_of(layers: Sequence[Layer]) -> list[ChainID]:
    """Those of the snapshots that end with these, lowest first."""
    return list(chain_ids(layer.diff_id for layer in layers))


def _kind(tree: Node, path: str) -> str:
    try:
        node = resolve(tree, path)[1]
    except StoreError:
        return "other"  # a symlink that leads nowhere
    return "directory" if node.is_directory else "file" if node.file and node.file.kind == "file" else "other"


def _teller(emit: Emit, done: int, total: int) -> Callable[[int], None]:
    """Tells that somebody is at work, and is struck if nobody wants it."""
    return lambda read_bytes: emit(Progress("read", done, total))


def instruction_of(text: str) -> str:
    """A line of a history in the words of its Dockerfile: without what all of them have in common."""
    return text.removesuffix(" # buildkit").replace("RUN /bin/sh -c ", "RUN ", 1)


def entries_of(image: Image) -> list[History]:
    """The history entry of every layer; an empty one where the history says less."""
    entries = [entry for entry in image.config.history if not entry.empty_layer][: len(image.layers)]
    return [*entries, *[History()] * (len(image.layers) - len(entries))]


def _changed_only(root: Node, below: Node, changes: Sequence[Change]) -> Node:
    """The tree of these paths alone; what was removed is taken from the tree below."""
    kept = Node(root.file)
    for change in changes:
        node, source, older = kept, root, below
        parts = os.fsencode(change.path[1:]).split(b"/")
        for part in parts:
            source = source.children.get(part) or Node()
            older = older.children.get(part) or Node()
            made = node.children.get(part)
            if made is None:
                made = node.children[part] = Node(source.file or older.file)
            node = made
        if change.letter == "D":
            node.children = older.children
    return kept


def _config_differences(old: Image, new: Image) -> Iterator[tuple[str, str, str]]:
    """What differs in the configs, variable by variable and label by label."""
    one, other = old.config, new.config
    pairs: list[tuple[str, object, object]] = [
        (name.replace("_", " "), getattr(one, name), getattr(other, name))
        for name in ("platform", "user", "working_dir", "entrypoint", "cmd", "shell", "stop_signal", "exposed_ports",
                     "volumes", "on_build", "healthcheck", "author")
    ]  # fmt: skip
    for what, before, after in (
        ("env", _pairs(one.env), _pairs(other.env)), ("label", dict(one.labels), dict(other.labels))
    ):  # fmt: skip
        pairs += [(f"{what} {key}", before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())]
    for name, first, second in pairs:
        if first != second:
            yield name, _said(first), _said(second)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)


def _said(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return str(value)
