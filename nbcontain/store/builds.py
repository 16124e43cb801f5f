"""The last build of each name: its steps, what each depended on, and the layers as each step left them.

It serves to say why a step has to run again, and to run programs at a step. It may be lost and is never
wrong: what is damaged, or whose layers are gone, is as if it had never been.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.errors import BadDigest, StoreError
from nbcontain.oci.digest import DiffID, Digest
from nbcontain.oci.image import Descriptor, Layer
from nbcontain.store import files
from nbcontain.store.layout import Layout
from nbcontain.values import dataclass

_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class State:
    """A file system during a build, and how programs run there."""

    number: int
    """Of the step that left it, from 1."""
    outcome: str
    """done, cached or failed."""
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    """The image's, were this the last line: the JSON of an OCI config."""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One build, as far as it came."""

    name: str
    """What the image was to be called, or where its context is; "" for neither."""
    recipes: tuple[Mapping[str, Any], ...] = ()
    """What each step depended on (`build.recipe`)."""
    states: tuple[State, ...] = ()
    made: float = 0.0
    """Seconds since the epoch."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(layer for state in self.states for layer in state.layers))


class BuildRecords:
    """The records of one store, a file each."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def get(self, name: str) -> BuildRecord | None:
        """The last build of that name."""
        return self._read(self._layout.build_record(Digest.of(name.encode())))

    def last(self) -> BuildRecord | None:
        """The last build of all."""
        return max((record for _, record in self.walk()), key=lambda each: each.made, default=None)

    def put(self, record: BuildRecord) -> None:
        """Remember it in the place of the one before. Not synced."""
        files.make_directory(self._layout.builds, durable=False)
        path = self._layout.build_record(Digest.of(record.name.encode()))
        files.replace(path, _encode(record), durable=False)

    def touch(self, name: str) -> None:
        """The same build once more: young again."""
        try:
            os.utime(self._layout.build_record(Digest.of(name.encode())))
        except FileNotFoundError:
            return

    def walk(self) -> Iterator[tuple[Path, BuildRecord]]:
        """All that can be read."""
        try:
            names = sorted(os.listdir(self._layout.builds))
        except FileNotFoundError:
            return
        for name in names:
            path = self._layout.builds / name
            if name.endswith(".json") and (record := self._read(path)) is not None:
                yield path, record

    def remove_old(self, max_age_s: float) -> int:
        """Forget what was not built for so long; how many went."""
        count = 0
        now = time.time()
        for path, _ in list(self.walk()):
            if now - path.stat().st_mtime >= max_age_s:
                count += files.unlink(path)
        return count

    def _read(self, path: Path) -> BuildRecord | None:
        try:
            return _decode(files.read(path, _LIMIT))
        except FileNotFoundError:
            return None
        except (StoreError, BadDigest, ValueError, KeyError, TypeError, IndexError, RecursionError):
            files.unlink(path)
            return None


def _encode(record: BuildRecord) -> bytes:
    places = {layer: number for number, layer in enumerate(record.layers)}
    return json.dumps(
        {
            "name": record.name,
            "made": record.made,
            "recipes": record.recipes,
            "layers": layers_to_json(tuple(places)),
            # By their places: each step has all the layers of the one before.
            "states": [
                [each.number, each.outcome, [places[layer] for layer in each.layers], each.config]
                for each in record.states
            ],
        },
        separators=(",", ":"),
    ).encode()


def _decode(data: bytes) -> BuildRecord:
    document = json.loads(data)
    layers = layers_from_json(document["layers"])
    states = tuple(
        State(int(number), str(outcome), tuple(layers[place] for place in places), dict(config))
        for number, outcome, places, config in document["states"]
    )
    recipes = tuple(dict(each) for each in document["recipes"])
    return BuildRecord(str(document["name"]), recipes, states, float(document["made"]))


def layers_to_json(layers: Sequence[Layer]) -> list[dict[str, object]]:
    """Layers under both their names."""
    return [
        {
            "mediaType": layer.descriptor.media_type,
            "digest": str(layer.descriptor.digest),
            "size": layer.descriptor.size,
            "diffID": str(layer.diff_id),
        }
        for layer in layers
    ]


def layers_from_json(documents: Sequence[Mapping[str, Any]]) -> tuple[Layer, ...]:
    """Raises KeyError, TypeError, ValueError and BadDigest for what is none."""
    return tuple(
        Layer(
            Descriptor(str(each["mediaType"]), Digest.parse(each["digest"]), int(each["size"])),
            DiffID(Digest.parse(each["diffID"])),
        )
        for each in documents
    )
