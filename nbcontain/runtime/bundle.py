"""One container's directory: an OCI bundle (runtime-spec bundle.md) with what we know besides.

Alive means that somebody holds the lock. It is taken by whoever writes the bundle or starts it again,
and handed on to the supervisor, so that there is no moment at which a living container looks dead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from nbcontain.errors import ContainerError, ContainerNotFound, StoreError
from nbcontain.events import Record
from nbcontain.journal import FileJournal, one_by_one
from nbcontain.linux import starts
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount, Spec
from nbcontain.oci.strict_json import Fields
from nbcontain.store import files, holds
from nbcontain.store.removal import set_aside
from nbcontain.values import asdict, dataclass, field

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any, Literal

    Status = Literal["creating", "created", "running", "restarting", "stopped"]

_STATUSES = ("creating", "created", "running", "restarting", "stopped")
_LIMIT_BYTES = 8 << 20
_ORPHAN_S = 5.0


@dataclass(frozen=True, slots=True)
class State:
    """How a container is (runtime-spec runtime.md#state), and how it went. Times in seconds since the epoch."""

    status: Status = "creating"
    pid: int = 0
    pid_start: int = 0
    """When that process began, in clock ticks since boot: a pid alone may be somebody else's by now."""
    exit_code: int | None = None
    started_at: float = 0.0
    finished_at: float = 0.0
    error: str = ""
    """Why it could not be started."""
    oom_killed: bool = False
    """One of its processes was killed, because there was no memory left for it."""
    memory_peak: int = 0
    """Bytes that its control group held at most, as the kernel says it; 0 where none counted them."""
    restart_count: int = 0
    """How often its restart policy has started it again."""
    stopped_by_hand: bool = False
    """Somebody stopped it, so that `unless-stopped` leaves it alone."""
    dropped_bytes: int = 0
    """Output that could not be kept."""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What a container is called and was asked to be."""

    id: str
    name: str
    image: str = ""
    """As people write it."""
    image_id: str = ""
    chain_id: str = ""
    """The snapshot below; "" for scratch."""
    created: str = ""
    """RFC 3339."""
    command: tuple[str, ...] = ()
    remove: bool = False
    """It is forgotten when it exits."""
    terminal: bool = False
    """Its program has a terminal, and no pipes."""
    build_step: bool = False
    """It is no container of the user's: its snapshot belongs to a build."""
    rung: str = ""
    """How it is shut in, as `runtime.rungs` calls it."""
    answers: str = ""
    """Which of its calls are answered for the kernel, as `runtime.answered_calls` has it."""
    runtime: str = ""
    """The program that makes its first process (`runtime.other_runtime`); "" is our own."""
    limited: bool = False
    """It has a control group of its own, with limits."""
    restart: str = ""
    """Its restart policy, as `restarts.Policy` reads it; "" is none."""
    health: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """How its health is checked, in docker's names, times in nanoseconds; nothing where it is not."""
    log: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What becomes of its output: `driver`, `max_bytes`, `files`; nothing where all of it is kept."""
    unusual: bool = False
    """Its first process cannot be one that was made beforehand: it has other namespaces, or mounts of the host's."""
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 10.0
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What `run` was told, for inspect."""
    mounts: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Volumes, directories and the like, in docker's names (`runtime.mounts.record`)."""

    @property
    def anonymous_volumes(self) -> list[str]:
        """The names of the volumes that were made for it and go with it."""
        return [str(each["Name"]) for each in self.mounts if each.get("Anonymous")]


class Bundle:
    """A container's directory. Equal handles may live in many processes."""

    def __init__(self, path: Path, info: ContainerInfo | None = None, lock_fd: int | None = None) -> None:
        """`info` is what its container.json says, where somebody knows that already."""
        self.path = path
        self.lock_fd = lock_fd
        """Held between writing the bundle and handing it to its supervisor."""
        self.is_plain = False
        """Its root was filled under that lock, and no device is in it: a first start need not look for one."""
        self._info = info

    # --- reading ---

    def reread(self) -> ContainerInfo:
        """What it is called and was asked to be by now."""
        self._info = None
        return self.info

    def is_whole(self) -> bool:
        """Whether its writer came to the end. What is not, and is not alive either, is rubbish."""
        try:
            # Empty: one that need not outlive a power cut, and did not.
            return (self.path / "container.json").stat().st_size > 0
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raises ContainerNotFound for one that somebody has removed."""
        if not self.is_whole():
            name = self.path.name[:12]
            raise ContainerNotFound(f"{name} is gone", why="it was removed", hint="%container ps -a lists all")

    def is_durable(self) -> bool:
        """Whether it is there after a power cut too."""
        try:
            return not (self.info.remove or self.info.build_step)
        except (OSError, ValueError, TypeError, AttributeError, StoreError):
            return True

    @property
    def info(self) -> ContainerInfo:
        if self._info is None:
            self._info = info_of(self._read("container.json"))
        return self._info

    @property
    def spec(self) -> Spec:
        return spec_codec.spec_from_text(self.spec_text())

    def spec_text(self) -> str:
        """Its config.json as it is now. Raises ContainerNotFound for one that somebody has removed."""
        try:
            return self._text("config.json")
        except FileNotFoundError:
            self.require()
            raise

    @property
    def rootfs(self) -> tuple[Mount, ...]:
        return spec_codec.mounts_from_json(self._read("rootfs.json"))

    def seccomp(self, spec: Spec) -> bytes:
        """The filter that was made of the spec's profile; b"" if it has none. One that is missing is an error."""
        return files.read(self.path / "seccomp.bpf", _LIMIT_BYTES) if spec.linux.seccomp else b""

    def answers(self) -> bytes:
        """The filter for the calls that are answered for the kernel, or pretended; b"" if there is none."""
        return files.read(self.path / "answers.bpf", _LIMIT_BYTES) if self.info.answers else b""

    def state(self) -> State:
        """As its supervisor last wrote it; `creating` before that."""
        try:
            said = self._read("state.json")
            state = State(**{name: said[name] for name in State.__slots__ if name in said})
            return state if state.status in _STATUSES else State()
        except (FileNotFoundError, TypeError, ValueError, RecursionError):
            # Never written, or not to the end before the power went: it did not outlive that either.
            return State()

    def is_paused(self) -> bool:
        """Whether its processes are stopped; a start ends that."""
        return os.path.exists(f"{self.path}/paused")

    def stubs(self) -> tuple[str, ...]:
        """The paths that had to be made as mount points: no changes of the container's."""
        try:
            return tuple(self._read("stubs.json"))
        except FileNotFoundError:
            return ()

    def journal(self) -> FileJournal:
        """What happened in it."""
        return FileJournal(self.path / "journal.jsonl", self.is_alive)

    @property
    def stdin(self) -> Path:
        """The pipe that its program reads where that is to stay open (-i) and nobody hands it anything."""
        return self.path / "stdin"

    def follow(self, **wanted: Any) -> Generator[Record]:
        """The same as `batches`, one record after the other."""
        return one_by_one(self.batches(**wanted))

    def batches(self, *, from_now: bool = False, **wanted: Any) -> Generator[list[Record]]:
        """Its journal from the first record, or from its end on, to the end of the run that is going on.

        What else is `wanted` is as `FileJournal.batches` has it.

        The files are opened now: what is followed is read to its end, also when --rm takes the names away.
        """
        task = self.path.name if from_now else ""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return self.journal().batches(from_now=task, **wanted)
        journal = FileJournal(self.path / "journal.jsonl", lambda: holds.is_held(lock))
        return journal.batches(lambda: os.close(lock), from_now=task, **wanted)

    @cached_property
    def active_directory(self) -> Path | None:
        """The directory of its writable snapshot, or None if it has none of its own."""
        for mount in self.rootfs:
            for option in mount.options:
                if option.startswith("upperdir="):
                    return Path(option.removeprefix("upperdir=").replace("\\:", ":")).parent
            if mount.type == "bind" and "ro" not in mount.options:
                return Path(mount.source).parent
        return None

    def remove(self, remove_tree: Callable[[Path], None]) -> None:
        """Take it away: its name is free at once, and durably if it was. Idempotent."""
        durable = self.is_durable()
        try:
            rubbish = set_aside(self.path, self.path.parent.parent / "tmp")
        except FileNotFoundError:
            return
        if durable:
            # Its layer goes next; a power cut must not bring back a container without one.
            files.sync_directory(self.path.parent)
        rubbish.remove(remove_tree)

    def _read(self, name: str) -> Any:
        return json.loads(self._text(name))

    def _text(self, name: str) -> str:
        # The path as text: a listing of many containers would spend its time on joining paths.
        return files.read(f"{self.path}/{name}", _LIMIT_BYTES).decode()

    # --- the lock ---

    def is_alive(self) -> bool:
        """Whether somebody holds the lock: a supervisor, or whoever is about to start one. Takes nothing."""
        return holds.is_held_at(f"{self.path}/lock")

    def lock(self) -> None:
        """Take the lock, in `lock_fd`. Raises ContainerError if the container is alive."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            holds.take(fd)
        except BlockingIOError:
            os.close(fd)
            raise ContainerError(f"container {self.path.name[:12]} is running already") from None
        except OSError:
            os.close(fd)
            raise
        self.lock_fd = fd

    def unlock(self) -> None:
        """Let the lock go; whoever it was handed to still holds it."""
        if self.lock_fd is not None:
            os.close(self.lock_fd)
            self.lock_fd = None
        self.is_plain = False

    def end_orphan(self) -> None:
        """Kill the first process of a container that is not alive any more, should it have outlived its supervisor.

        Its life hangs on the supervisor's, unless its program has undone that (PR_SET_PDEATHSIG, prctl(2)). Nobody
        would keep what it writes, and a second one must never be started in the same layer.
        """
        state = self.state()
        if state.status not in ("created", "running") or state.pid <= 0 or (self.lock_fd is None and self.is_alive()):
            return
        starts.kill(state.pid, state.pid_start, _ORPHAN_S)

    # --- writing: kernel ---

    def mark_paused(self, *, paused: bool) -> None:
        """Say so to everybody. Idempotent."""
        if not paused:
            files.unlink(self.path / "paused")
        elif not self.is_paused():
            files.write_new(self.path / "paused", b"")

    def write_resources(self, spec: Spec) -> None:
        """Other limits than it had; everything else is as it was."""
        files.replace(self.path / "config.json", spec_codec.spec_to_text(spec).encode())
        self.write_info(limited=True)

    def write_info(self, **changes: Any) -> None:
        """Change what it is called or asked to be, durably."""
        fields = self._read("container.json") | changes
        files.replace(self.path / "container.json", json.dumps(fields).encode(), durable=self.is_durable())
        self._info = None

    # --- writing: supervisor ---

    def write_state(self, state: State) -> None:
        """Make `state` what everybody sees, at once.

        Not synced, since after a power cut the container is gone anyway; unless it is to be started again then.
        """
        data = json.dumps(asdict(state)).encode()
        if self.info.restart:
            files.replace(self.path / "state.json", data)
        else:
            self.replace_quickly("state.json", data)

    def write_stubs(self, made: Sequence[str]) -> None:
        known = {*self.stubs(), *made}
        if made:
            self.replace_quickly("stubs.json", json.dumps(sorted(known)).encode())

    def replace_quickly(self, name: str, data: bytes) -> None:
        """Replace a file as a whole for every reader, without waiting for the disk."""
        temporary = self.path / f".{name}-{os.urandom(4).hex()}"
        files.write_new(temporary, data)
        files.move(temporary, self.path / name)


def info_of(document: object) -> ContainerInfo:
    """What a container.json says. Raises BadDocument."""
    fields = Fields(document, "container.json")
    known: dict[str, Any] = {name: fields.values[name] for name in ContainerInfo.__slots__ if name in fields.values}
    # What everything else relies on; the rest is only ever shown.
    known |= {name: fields.text(name) for name in ("id", "name", "image", "image_id", "created")}
    known |= {"command": fields.texts("command") or (), "labels": fields.texts_by_name("labels")}
    known |= {"mounts": tuple(each.values for each in fields.objects("mounts"))}
    return ContainerInfo(**known)


def info_to_json(info: ContainerInfo) -> dict[str, Any]:
    """As container.json has it."""
    plain = {name: getattr(info, name) for name in ContainerInfo.__slots__}
    mappings = {name: dict(plain[name]) for name in ("labels", "options", "health", "log")}
    return plain | mappings | {"mounts": [dict(each) for each in info.mounts]}
