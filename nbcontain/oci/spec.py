"""The parts of the runtime specification's config.json that are used here (runtime-spec config.md, config-linux.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from nbcontain.values import dataclass, field

OCI_VERSION = "1.0.2"
"""The oldest that has all that is used here: crun before 1.9 takes no newer one."""


_NOTHING: Mapping[str, object] = MappingProxyType({})


class SharedDocument(dict[str, object]):
    """A JSON object that many specs share and nobody changes: what is made of it is made once, by its identity."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    made: tuple[str, bytes] = ("", b"")
    """Of a profile of the kernel's calls: a machine, and its filter for that, where somebody has them already."""


class LateDocument(Mapping[str, object]):
    """A JSON object that is read when somebody looks into it, which a container's own processes have no need to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._values: Mapping[str, object] | None = None

    def _read(self) -> Mapping[str, object]:
        if self._values is None:
            self._values = json.loads(self.text)
            assert self._values is not None
        return self._values

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> object:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


@dataclass(frozen=True, slots=True)
class User:
    """Who the program runs as, in the container's own numbers."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A limit of setrlimit(2), by its name there ("RLIMIT_NOFILE"); 2⁶⁴-1 is none (runtime-spec config.md#process)."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Process:
    """A program to be executed in a container."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    """Rows and columns of the terminal; zeros where nobody knows."""
    capabilities: tuple[str, ...] = ()
    """The bounding set ("CAP_CHOWN"), and permitted and effective ones alike where those are None."""
    permitted: tuple[str, ...] | None = None
    effective: tuple[str, ...] | None = None
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    no_new_privileges: bool = False
    apparmor: str = ""
    """The profile to run under, where the kernel has AppArmor."""
    label: str = ""
    """SELinux's, where the kernel has that."""
    oom_score_adj: int | None = None
    rlimits: tuple[Rlimit, ...] = ()
    scheduler: Mapping[str, object] = field(default_factory=lambda: _NOTHING, hash=False)
    """As in config.json: `policy`, `nice`, `priority`, `flags`, `runtime`, `deadline`, `period` (sched_setattr(2))."""
    io_priority: tuple[str, int] | None = None
    """Class (IOPRIO_CLASS_BE) and number (ioprio_set(2))."""


@dataclass(frozen=True, slots=True)
class IdMapping:
    """A range of ids inside and outside (runtime-spec config-linux.md#user-namespace-mappings)."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount inside the container; options as in fstab, with OCI's ro, rbind, nosuid … (`linux.mount_options`)."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    """Who files belong to as seen through it (config.md#posix-platform-mounts); with "idmap" and none of these, as in
    the container's user namespace."""
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A device node that the container has besides the usual ones (config-linux.md#devices)."""

    path: str
    type: str
    """c, u, b or p."""
    major: int = 0
    minor: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Hook:
    """A program that is run at a point of a container's life (config.md#posix-platform-hooks)."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int = 0
    """0 for none."""


@dataclass(frozen=True, slots=True)
class Linux:
    """What only Linux has."""

    namespaces: tuple[str, ...] = ()
    """OCI's words: mount pid network ipc uts user cgroup time."""
    paths: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Where the files of those are that exist already and are joined, by the same words (/proc/123/ns/net)."""
    time_offsets: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """How far its clocks "monotonic" and "boottime" are from the machine's, in seconds and nanoseconds."""
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    rootfs_propagation: str = ""
    """shared, slave, private or unbindable: what becomes of mounts in its root."""
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    mount_label: str = ""
    """SELinux's, of the file systems that are made."""
    personality: str = ""
    """LINUX32 makes the machine call itself a 32-bit one (personality(2))."""
    sysctl: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    resources: Mapping[str, object] = field(default_factory=lambda: _NOTHING, hash=False)
    """As in config.json (`linux.cgroups` reads it)."""
    seccomp: Mapping[str, object] = field(default_factory=lambda: _NOTHING, hash=False)
    """As in config.json (`oci.seccomp` reads it); what is in force is the filter that was made of it."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything a runtime needs to know of one container, but its root file system's mounts (rootfs.json)."""

    process: Process
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    root: str = "rootfs"
    """The directory of its root file system, in the bundle or anywhere."""
    root_readonly: bool = False
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """By the names of config.json: prestart, createRuntime, createContainer, startContainer, poststart, poststop."""
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
