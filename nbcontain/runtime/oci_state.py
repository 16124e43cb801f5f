"""Where a runtime of the specification keeps what it knows of its containers, and how these are (runtime.md#state).

One directory each, on a file system that a reboot empties: `config.json` as it was when the container was created,
`state.json`, the filter, and the socket that `start` comes to.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nbcontain.errors import BadDocument, ContainerError, ContainerNotFound, NotRunning, SetupFailed
from nbcontain.linux.cgroups import Group, Tree
from nbcontain.linux.starts import start_of, start_time
from nbcontain.oci import spec_codec, strict_json
from nbcontain.oci.spec import Spec
from nbcontain.store import files, removal
from nbcontain.values import asdict, dataclass, field

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
_LIMIT_BYTES = 8 << 20
VERSIONS = ("1.0.0", "1.2.1")
"""The oldest and the newest of the specification that are understood."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of one container."""

    id: str
    bundle: str
    version: str
    """Of the specification, as its config.json says."""
    created: str = ""
    """RFC 3339."""
    owner: str = ""
    rootfs: str = ""
    pid: int = 0
    pid_start: int = 0
    """When that process began, in clock ticks since boot: a pid alone may be somebody else's by now."""
    group: tuple[str, str] = ("", "")
    """Its control group: the one that it is in, and its name there; empty where it has none."""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


def root_directory(given: str = "") -> Path:
    """Where containers' directories are: --root, or in the directory for what does not outlive a boot."""
    if given:
        return Path(given)
    home = os.environ.get("XDG_RUNTIME_DIR") if os.getuid() else ""
    return Path(home or "/run") / "nbcontain-runtime"


class Place:
    """One container's directory."""

    def __init__(self, root: Path, name: str) -> None:
        """Raises ContainerError for what is no id."""
        if not _ID.fullmatch(name) or name in (".", ".."):
            raise ContainerError(f"invalid id {name!r}", hint="letters, digits and _ + . -")
        self.id, self.path = name, root / name
        self._config: dict[str, Any] | None = None

    # --- its life ---

    def make(self) -> None:
        """Raises ContainerError if there is one."""
        files.make_directory(self.path.parent, durable=False)
        try:
            files.make_new_directory(self.path)
        except FileExistsError:
            raise ContainerError(f"container with id {self.id} already exists", hint="delete it first") from None

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            removal.remove_tree(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While others who want to change it wait. Raises ContainerNotFound."""
        import fcntl

        self.require()
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.require()
            yield
        finally:
            os.close(fd)

    def require(self) -> None:
        if not (self.path / "state.json").exists():
            raise ContainerNotFound(f"container {self.id} does not exist")

    # --- what is in it ---

    def write(self, known: Known) -> None:
        files.replace(self.path / "state.json", json.dumps(asdict(known)).encode(), durable=False)

    def write_config(self, config: Mapping[str, object], seccomp: bytes) -> None:
        files.write_new(self.path / "config.json", json.dumps(config).encode())
        if seccomp:
            files.write_new(self.path / "seccomp.bpf", seccomp)

    def known(self) -> Known:
        """Raises ContainerNotFound."""
        self.require()
        fields: dict[str, Any] = json.loads(files.read(self.path / "state.json", _LIMIT_BYTES))
        return Known(**{**fields, "group": tuple(fields["group"])})

    def config(self) -> dict[str, Any]:
        """Its config.json, which never changes."""
        if self._config is None:
            self._config = json.loads(files.read(self.path / "config.json", _LIMIT_BYTES))
            assert self._config is not None
        return self._config

    def spec(self) -> Spec:
        return spec_codec.spec_from_json(self.config())

    def seccomp(self) -> bytes:
        try:
            return files.read(self.path / "seccomp.bpf", _LIMIT_BYTES)
        except FileNotFoundError:
            return b""


def places(root: Path) -> list[Place]:
    """All containers there are."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [Place(root, name) for name in names if (root / name / "state.json").exists()]


def group_of(known: Known, below: str = "") -> Group | None:
    """Its control group, or one that is `below` in it. Raises SetupFailed where there is none of that name."""
    parent, name = known.group
    parts = [part for part in below.split("/") if part]
    if parts:
        whole = [*filter(None, (parent, name)), *parts]
        group = Group(Tree.here(is_root=True), whole[-1], "/".join(whole[:-1]))
        if not name or {".", ".."} & {*parts} or not group:
            raise SetupFailed(f"container {known.id} has no control group {below!r}")
        return group
    return Group(Tree.here(is_root=True), name, parent) if name else None


def status(place: Place, known: Known) -> str:
    """creating, created, running, paused or stopped."""
    if not is_alive(known):
        return "stopped" if known.pid else "creating"
    if (place.path / "control.sock").exists():
        return "created"
    group = group_of(known)
    return "paused" if group is not None and group.is_frozen() else "running"


def is_alive(known: Known) -> bool:
    """Whether its first process has not ended; one that nobody has reaped has."""
    return known.pid > 0 and start_of(known.pid) == known.pid_start


def open_process(known: Known) -> int:
    """A descriptor of its first process. Raises NotRunning."""
    try:
        pidfd = os.pidfd_open(known.pid)
        if start_time(known.pid) == known.pid_start:
            return pidfd
        os.close(pidfd)
    except (ProcessLookupError, FileNotFoundError, OSError):
        pass
    raise NotRunning(f"container {known.id} is not running")


def send(known: Known, number: int) -> None:
    """Signal its first process. Raises NotRunning."""
    pidfd = open_process(known)
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise NotRunning(f"container {known.id} is not running") from None
    finally:
        os.close(pidfd)


def document(place: Place, known: Known, how: str = "") -> dict[str, object]:
    """The state as the specification writes it (runtime.md#state, schema/state-schema.json)."""
    how = how or status(place, known)
    state: dict[str, object] = {"ociVersion": known.version, "id": known.id, "status": how}
    state["pid"] = 0 if how == "stopped" else known.pid
    state["bundle"] = known.bundle
    if known.annotations:
        state["annotations"] = dict(known.annotations)
    return state


def read_config(bundle: Path) -> dict[str, Any]:
    """A bundle's config.json. Raises BadDocument."""
    try:
        with (bundle / "config.json").open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise BadDocument(f"cannot read {bundle / 'config.json'}", why=error.strerror or "") from error
    return dict(strict_json.load(data, "config.json").values)
