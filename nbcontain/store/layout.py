"""Every path of the store and the version of its format; no I/O. Nobody else computes one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.oci.digest import ChainID, Digest

FORMAT_VERSION = "1"
INDEX_LIMIT = 64 << 20
"""So many bytes of index.json are read at most."""


@dataclass(frozen=True)
class Shelf:
    """Where the snapshots of one kind are: overlayfs' layers, or whole trees."""

    root: Path

    @cached_property
    def lock(self) -> Path:
        """Held while a committed snapshot loses its name, or is marked as written out."""
        return self.root.with_name(f"{self.root.name}.lock")

    def snapshot(self, name: ChainID) -> Path:
        """A committed snapshot: `parent` (chain ID of the one below, if any), `fs/`, and `owners` if need be."""
        return self.root / name.hex

    @cached_property
    def actives(self) -> Path:
        return self.root / "active"

    def active(self, key: str) -> Path:
        """A writable snapshot: `parent`, `fs/`, and `work/` (overlay's) or `index` (a whole tree's)."""
        return self.actives / key


@dataclass(frozen=True)
class Layout:
    """The store's directory, seen as names. All paths are absolute."""

    root: Path

    @classmethod
    def default(cls, environ: Mapping[str, str], *, is_root: bool) -> Layout:
        """$NBCONTAIN_ROOT; /var/lib/nbcontain for root; $XDG_DATA_HOME/nbcontain or ~/.local/share/nbcontain."""
        if chosen := environ.get("NBCONTAIN_ROOT"):
            return cls(Path(chosen).absolute())
        if is_root:
            return cls(Path("/var/lib/nbcontain"))
        if data_home := environ.get("XDG_DATA_HOME"):
            return cls(Path(data_home).absolute() / "nbcontain")
        if home := environ.get("HOME"):
            return cls(Path(home).absolute() / ".local/share/nbcontain")
        raise StoreError(
            "there is no place to keep images and containers",
            why="neither HOME nor NBCONTAIN_ROOT is set, and the account has no home",
            hint="export NBCONTAIN_ROOT=/some/directory of yours",
        )

    @cached_property
    def version(self) -> Path:
        return self.root / "version"

    @cached_property
    def lock(self) -> Path:
        """Held shared by users of things, exclusive by gc."""
        return self.root / "lock"

    @cached_property
    def index_lock(self) -> Path:
        """Held by whoever changes index.json."""
        return self.root / "index.lock"

    @cached_property
    def unsettled(self) -> Path:
        """What a power cut is undone by, while something is published that is not on the disk (`write_back`)."""
        return self.root / "unsettled"

    @cached_property
    def spare(self) -> Path:
        """Room that is put by for those who remove (`spare`)."""
        return self.root / "spare"

    # --- OCI image layout (image-spec image-layout.md) ---

    @cached_property
    def oci(self) -> Path:
        return self.root / "oci"

    @cached_property
    def oci_layout(self) -> Path:
        return self.oci / "oci-layout"

    @cached_property
    def index(self) -> Path:
        return self.oci / "index.json"

    @cached_property
    def blobs(self) -> Path:
        return self.oci / "blobs"

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest.algorithm / digest.hex

    @cached_property
    def ingest(self) -> Path:
        """Blobs on their way, each locked by who fetches it; what is there without a lock can be gone on with."""
        return self.root / "ingest"

    def partial(self, digest: Digest) -> Path:
        return self.ingest / f"{digest.algorithm}-{digest.hex}"

    # --- snapshots ---

    @cached_property
    def overlays(self) -> Shelf:
        """Layers as overlayfs wants them; an active one is its upper directory."""
        return Shelf(self.snapshots)

    @cached_property
    def trees(self) -> Shelf:
        """Whole trees, where no overlay can be; an active one is a copy of what it stands on."""
        return Shelf(self.root / "trees")

    @cached_property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    def snapshot(self, name: ChainID) -> Path:
        return self.overlays.snapshot(name)

    @cached_property
    def actives(self) -> Path:
        return self.overlays.actives

    def active(self, key: str) -> Path:
        return self.overlays.active(key)

    # --- the rest ---

    @cached_property
    def cache(self) -> Path:
        return self.root / "cache"

    def cache_record(self, key: Digest) -> Path:
        return self.cache / f"{key.hex}.json"

    def being_made(self, key: Digest) -> Path:
        """Locked by whoever makes what that key stands for; swept like all that is temporary."""
        return self.tmp / f".tmp-{key.hex}"

    @cached_property
    def builds(self) -> Path:
        """The last build of each name."""
        return self.root / "builds"

    def build_record(self, name: Digest) -> Path:
        return self.builds / f"{name.hex}.json"

    @cached_property
    def cache_mounts(self) -> Path:
        """What RUN --mount=type=cache keeps."""
        return self.root / "mounts"

    def cache_mount(self, name: Digest, number: int) -> Path:
        """One such directory: `lock`, `making`, `ready`, and `fs/` once it is."""
        return self.cache_mounts / f"{name.hex}-{number}"

    @cached_property
    def downloads(self) -> Path:
        """What ADD fetched: files by their digest, and what is known of each URL."""
        return self.root / "downloads"

    @cached_property
    def contexts(self) -> Path:
        """What is known of the files of contexts that take a while to read."""
        return self.root / "contexts"

    @cached_property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def volume(self, name: str) -> Path:
        """One volume: `volume.json`, `lock`, `_data/` with its files, and `filling/` if a copy was cut off."""
        return self.volumes / name

    @cached_property
    def containers(self) -> Path:
        return self.root / "containers"

    @cached_property
    def events(self) -> Path:
        """What happened to all that is here, of late: docker's events."""
        return self.root / "events" / "events.jsonl"

    @cached_property
    def names_lock(self) -> Path:
        """Held while a container's name is chosen and its bundle written, so that names stay unique."""
        return self.root / "names.lock"

    def container(self, container_id: str) -> Path:
        """One container's bundle (runtime-spec bundle.md)."""
        return self.containers / container_id

    @cached_property
    def networks(self) -> Path:
        """The networks: a file each, by id. `sandboxes/` says who is on them, `run/` is their processes'."""
        return self.root / "networks"

    def network(self, network_id: str) -> Path:
        return self.networks / f"{network_id}.json"

    @cached_property
    def network_sandboxes(self) -> Path:
        """Who is on networks now, by container: addresses, ports, names of kernel objects. Void without its lock."""
        return self.networks / "sandboxes"

    def network_sandbox(self, container_id: str) -> Path:
        return self.network_sandboxes / f"{container_id}.json"

    @cached_property
    def network_places(self) -> Path:
        """The networks' processes, a directory for each network namespace that they serve; `lock` guards all."""
        return self.networks / "run"

    def network_process(self, place: str, name: str) -> Path:
        """One of the networks' processes: its lock, and its control socket.

        `place` is the network namespace that it serves (`network.records.place`): each has processes of its own.
        """
        return self.network_places / place / name

    @cached_property
    def registry(self) -> Path:
        """What our own registry keeps, which is as far from the images here as a registry elsewhere."""
        return self.root / "registry"

    @cached_property
    def host_facts(self) -> Path:
        """What this machine allows, as last tried; void after a reboot."""
        return self.root / "host.json"

    @cached_property
    def tmp(self) -> Path:
        """Directories locked by their makers; what can be locked is rubbish."""
        return self.root / "tmp"

    @cached_property
    def quarantine(self) -> Path:
        """What `system check --repair` took out of use without destroying it."""
        return self.root / "quarantine"
