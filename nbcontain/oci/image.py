"""Images and their parts: descriptors, manifests, configs, layers (image-spec)."""

from __future__ import annotations

import os as _os
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nbcontain.oci.digest import ChainID, DiffID, Digest, chain_id_of
from nbcontain.values import dataclass, field

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
REF_NAME = "org.opencontainers.image.ref.name"

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and architecture in Go's words (image-spec image-index.md)."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    @classmethod
    def here(cls) -> Platform:
        """This machine's."""
        machine = _os.uname().machine
        known = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64"}
        return cls("linux", known.get(machine, machine), "v7" if machine == "armv7l" else "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What to fetch, and how to know that it arrived whole (image-spec descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    platform: Platform | None = None
    """Of a manifest in an index: what it is for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer under both its names: the stored blob and the uncompressed tar."""

    descriptor: Descriptor
    diff_id: DiffID


@dataclass(frozen=True, slots=True)
class History:
    """One instruction of how an image was made (image-spec config.md#properties)."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """docker's extension of the config: how to ask a container whether it is well. Durations in nanoseconds."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How to run an image, and which layers it is made of (image-spec config.md).

    `env` is a tuple of NAME=value. `entrypoint` and `cmd` are None where the image has none, which is
    not the same as an empty one. Times are RFC 3339.
    """

    platform: Platform = Platform()
    created: str = ""
    author: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    diff_ids: tuple[DiffID, ...] = ()
    history: tuple[History, ...] = ()
    inline_cache: str = ""
    """BuildKit's extension: a build cache of this image's layers, as base64 (build/cache_document.py)."""

    @property
    def chain_id(self) -> ChainID | None:
        """Names the snapshot of all the layers; None for scratch."""
        return chain_id_of(self.diff_ids)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an image is made of (image-spec manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)


@dataclass(frozen=True, slots=True)
class Index:
    """Names and platforms pointing at manifests (image-spec image-index.md)."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    media_type: str = INDEX


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and its config, with the bytes they were read from or will be stored as.

    Digests are over these bytes, so they are never rebuilt from the values.
    """

    manifest: Manifest
    config: ImageConfig
    raw_manifest: bytes = field(repr=False)
    raw_config: bytes = field(repr=False)

    @property
    def id(self) -> Digest:
        """The digest of the config, which is what docker prints as IMAGE ID."""
        return self.manifest.config.digest

    @property
    def digest(self) -> Digest:
        """The digest of the manifest, which is what a registry knows the image by."""
        return Digest.of(self.raw_manifest)

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return Descriptor(self.manifest.media_type, self.digest, len(self.raw_manifest))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Lowest first."""
        return tuple(map(Layer, self.manifest.layers, self.config.diff_ids))

    @property
    def steps(self) -> list[tuple[History, Layer | None]]:
        """Its history with the layer of each entry, oldest first; layers without an entry come last."""
        layers = list(map(Layer, self.manifest.layers, self.config.diff_ids))
        found: list[tuple[History, Layer | None]] = []
        for entry in self.config.history:
            found.append((entry, None if entry.empty_layer or not layers else layers.pop(0)))
        return [*found, *((History(), layer) for layer in layers)]

    @property
    def chain_id(self) -> ChainID | None:
        """Names the snapshot of all its layers; None for scratch."""
        return self.config.chain_id

    @property
    def size_bytes(self) -> int:
        """The sum of its layers' blobs."""
        return sum(layer.size for layer in self.manifest.layers)

    @classmethod
    def of(cls, config: ImageConfig, layers: Sequence[Layer]) -> Image:
        """An image made here of these layers, lowest first; `config.diff_ids` is set from them."""
        from nbcontain.oci import codec

        return codec.image_of(config, layers)


def timestamp(at_s: float | None = None) -> str:
    """Now, or a time, as the image specification writes it (RFC 3339, UTC)."""
    seconds, rest_ns = divmod(time.time_ns() if at_s is None else int(at_s * 1e9), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // 1000:06d}Z"
