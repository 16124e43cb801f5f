"""A container's life as the specification has it (runtime.md#lifecycle): create, start, kill, delete.

Run by the command that is asked for it, which goes away afterwards: it stands where a supervisor stands otherwise, and
has the same stage and init make the container. Its interpreter is a sealed copy, as init's has to be.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from nbcontain.errors import ContainerError, NotRunning, SetupFailed
from nbcontain.linux import confine, device_rules, limits, more_limits, syscalls
from nbcontain.linux.cgroups import Group, Tree
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import start_time
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Spec
from nbcontain.oci.strict_json import Fields
from nbcontain.runtime import births, handover, hooks, init, namespaces, oci_init, oci_state, sources, stage
from nbcontain.runtime.filters import filter_of
from nbcontain.runtime.messages import Channel, Listener, connect
from nbcontain.runtime.oci_check import check, without_unknown
from nbcontain.runtime.oci_state import Known, Place
from nbcontain.values import dataclass, replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_END_S = 10.0
_PARENT = "nbcontain-runtime"
_CONNECT_TRIES = 200


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller says besides the bundle."""

    console_socket: str = ""
    """Where the terminal's master goes; "" leaves it to `run` and `exec` themselves."""
    pid_file: str = ""
    preserved: int = 0
    """How many descriptors from 3 on the program gets."""
    pivot: bool = True
    group: str = ""
    """Where in the container's control group the program is to be; for `exec`."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A process that has been made: its pid as the host counts, and its terminal's master, or -1."""

    pid: int
    master: int = -1


def handed_out(wishes: Wishes, pid: int, master: int) -> Begun:
    """A process whose terminal and pid are where they were wanted. Raises SetupFailed."""
    if wishes.console_socket and master >= 0:
        handover.send_console(wishes.console_socket, master)
        master = -1
    if wishes.pid_file:
        handover.write_pid(wishes.pid_file, pid)
    return Begun(pid, master)


# --- create -----------------------------------------------------------------------------------------


def create(place: Place, bundle: Path, wishes: Wishes, warn: Callable[[str], None]) -> Begun:
    """Make a container, all but its program. Raises BadDocument, ContainerError, SetupFailed: then nothing is left."""
    bundle = Path(os.path.realpath(bundle))
    config = oci_state.read_config(bundle)
    spec = spec_codec.spec_from_json(config)
    check(config, spec)
    process, unknown = without_unknown(spec.process)
    if unknown:
        warn(f"there are no capabilities {', '.join(unknown)} here")
        spec = replace(spec, process=process)
        config["process"] = spec_codec.process_to_json(process)
    if bool(wishes.console_socket) and not spec.process.terminal:
        raise ContainerError("--console-socket is given, and process.terminal is false")
    os.chdir(bundle)
    rootfs = os.path.join(bundle, spec.root)
    seccomp = _filter(config)
    known = Known(
        id=place.id, bundle=str(bundle), version=config["ociVersion"], created=_now(), owner=str(os.getuid()),
        rootfs=rootfs, annotations=spec.annotations,
    )  # fmt: skip
    place.make()
    making = _Making(place, spec, known)
    try:
        place.write_config(config, seccomp)
        return making.run(rootfs, config, seccomp, wishes)
    except BaseException:
        making.undo()
        raise


class _Making:
    """One container while it is made, and what has to be undone if that fails."""

    def __init__(self, place: Place, spec: Spec, known: Known) -> None:
        self.place, self.spec, self.known = place, spec, known
        self.group: Group | None = None

    def run(self, rootfs: str, config: Mapping[str, Any], seccomp: bytes, wishes: Wishes) -> Begun:
        spec = self.spec
        given = spec.linux.uid_mappings or spec.linux.gid_mappings
        ids = IdMap(spec.linux.uid_mappings, spec.linux.gid_mappings) if given else IdMap.identity()
        birth = namespaces.birth(spec.linux, ids)
        self._make_group()
        listener = Listener()
        listener.open(self.place.path)
        opened: dict[int, int] = {oci_init.LISTENER: listener.fileno()}
        try:
            rooted = self._open_root(rootfs, opened)
            kept = range(3, 3 + wishes.preserved)
            body = partial(_be_first, kept=kept)
            inside = births.form(birth, body, prepared=self._prepare, kept=kept)
            self.known = replace(self.known, pid=inside.pid, pid_start=start_time(inside.pid))
            self.place.write(self.known)
            opened |= self._open_sources(inside.pid, is_root=rooted)
            inside.channel.send(
                {
                    "do": "program", "config": config, "seccomp": seccomp.hex(), "opened": [*opened], "rooted": rooted,
                    "preserved": wishes.preserved, "pivot": wishes.pivot,
                    "state": oci_state.document(self.place, self.known, "creating"),
                },
                [*opened.values()],
            )  # fmt: skip
        finally:
            birth.close()
            for fd in opened.values():
                if fd != listener.fileno():
                    os.close(fd)
            listener.close()
        return self._furnish(inside, wishes)

    def _furnish(self, inside: stage.Inside, wishes: Wishes) -> Begun:
        answer, _ = inside.channel.receive()
        stage.raise_for(answer)
        state = oci_state.document(self.place, self.known, "creating")
        for name in ("prestart", "createRuntime"):
            hooks.run(name, self.spec.hooks.get(name, ()), state)
        inside.channel.send({"go": True})
        answer, console = inside.channel.receive()
        stage.raise_for(answer)
        inside.channel.close()
        master = console[0] if console else -1
        for fd in console[1:]:
            os.close(fd)
        return handed_out(wishes, inside.pid, master)

    def _open_root(self, rootfs: str, opened: dict[int, int]) -> bool:
        """The tree that is to be its root; the directory alone, and False, where only init may make one of it."""
        try:
            directory = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupFailed(
                f"cannot use {rootfs} as its root", errno=error.errno, path=rootfs, why=error.strerror or ""
            ) from error
        opened[oci_init.ROOT] = directory
        if "mount" not in self.spec.linux.namespaces or "mount" in self.spec.linux.paths:
            return False
        try:
            tree = syscalls.open_tree(directory, recursive=True)
        except PermissionError:
            return False
        opened[oci_init.ROOT] = tree
        os.close(directory)
        word = self.spec.linux.rootfs_propagation.removeprefix("r")
        # Mounts of the host's may come in, if that is wanted; while it is made nothing goes out.
        propagation = syscalls.MS_SLAVE if word in ("shared", "slave") else syscalls.MS_PRIVATE
        syscalls.mount_setattr(tree, 0, propagation=propagation, recursive=True)
        return True

    def _open_sources(self, pid: int, *, is_root: bool) -> dict[int, int]:
        own = f"/proc/{pid}/ns/user" if "user" in self.spec.linux.namespaces else ""
        return sources.opened(self.spec, births.user_namespace, own_map=own, every=is_root)

    # --- its control group ---

    def _make_group(self) -> None:
        parent, name = _group_names(self.spec.linux.cgroups_path, self.place.id)
        tree = Tree.here(is_root=True)
        resources: Mapping[str, object] = self.spec.linux.resources
        if not tree.first and tree.second is None:
            if resources:
                raise SetupFailed("its resources cannot be limited", why="no control groups are mounted here")
            return
        group = Group(tree, name, parent)
        existed = bool(group)
        try:
            group.hold()
            fields = Fields(resources, "resources")
            rules = device_rules.within(device_rules.from_json(fields.objects("devices")))
            group.limit(limits.from_json(resources), rules, more_limits.more_limits(resources).settings)
        except (SetupFailed, PermissionError):
            if not existed:
                group.remove()
            # An ordinary user has none to give; what is not asked for need not be there.
            if os.getuid() == 0 or any(resources.get(key) for key in resources if key != "devices"):
                raise
            return
        self.group = group
        self.known = replace(self.known, group=(parent, name))

    def _prepare(self, pid: int) -> None:
        """The stage waits: what it is given now, everything that it forks has."""
        if self.group is not None:
            self.group.enter(pid)
        process = self.spec.process
        if process.oom_score_adj is not None:
            confine.set_oom_score(process.oom_score_adj, pid)
        if "user" in self.spec.linux.namespaces:
            # Only somebody of the host may raise a hard limit.
            handover.limit(pid, process.rlimits)

    def undo(self) -> None:
        """Leave nothing of it."""
        with suppress(NotRunning):
            oci_state.send(self.known, signal.SIGKILL)
        _await_end(self.known)
        if self.group is not None:
            _empty(self.group)
            self.group.remove()
        if self.known.pid:
            hooks.run_all(
                "poststop", self.spec.hooks.get("poststop", ()), oci_state.document(self.place, self.known, "stopped")
            )
        self.place.remove()


def _be_first(channel: Channel, kept: Sequence[int]) -> None:
    """Init."""
    init.hide_words()
    init.main(channel, oci_init.be_container, kept=kept)


def _group_names(path: str, container_id: str) -> tuple[str, str]:
    parts = [part for part in (path or f"{_PARENT}/{container_id}").split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise SetupFailed(f"linux.cgroupsPath {path!r} is no control group", why="it leads out of those there are")
    return "/".join(parts[:-1]), parts[-1]


def _filter(config: Mapping[str, Any]) -> bytes:
    return filter_of((config.get("linux") or {}).get("seccomp") or {})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"


# --- start ------------------------------------------------------------------------------------------


def start(place: Place, warn: Callable[[str], None]) -> None:
    """Let a created container become its program. Raises what hinders it."""
    with place.alone():
        known = place.known()
        how = oci_state.status(place, known)
        if how != "created":
            raise ContainerError(f"cannot start container {place.id}: it is {how}", why="only a created one can be")
        spec = place.spec()
        channel = _connected(place)
        pidfd = oci_state.open_process(known)
        try:
            channel.send({"start": True})
            await_program(channel, pidfd, place.config(), partial(process_state, place, known))
        finally:
            os.close(pidfd)
            channel.close()
        handover.forget(place.path / "control.sock")
        state = oci_state.document(place, known, "running")
    _run_hooks("poststart", spec, state, warn)


def _connected(place: Place) -> Channel:
    try:
        return connect(place.path)
    except OSError as error:
        raise NotRunning(f"container {place.id} cannot be started", why=error.strerror or "") from error


def await_program(
    channel: Channel, pidfd: int, config: Mapping[str, Any], state: Callable[[], Mapping[str, object]]
) -> int:
    """Wait until it has become its program; gives its terminal's master, or -1. Raises what hinders it."""
    master = -1
    while True:
        answer, fds = channel.receive()
        if answer is None:
            return master
        if "listener" in answer:
            handover.send_listener(config, pidfd, int(answer["listener"]), state(), taken=fds[0])
        elif fds:
            master = fds[0]
            for fd in fds[1:]:
                os.close(fd)
        else:
            stage.raise_for(answer)


def process_state(place: Place, known: Known, pid: int = 0) -> dict[str, object]:
    """What the listener of a filter is told (config-linux.md#containerprocessstate)."""
    return {
        "ociVersion": known.version,
        "fds": ["seccompFd"],
        "pid": pid or known.pid,
        "state": oci_state.document(place, known),
    }


# --- kill and delete --------------------------------------------------------------------------------


def kill(place: Place, number: int, *, every: bool = False) -> None:
    """Signal its first process, or all of its processes. Raises NotRunning for one that has ended."""
    known = place.known()
    group = oci_state.group_of(known)
    if every and group is not None:
        for pid in group.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return
    if oci_state.status(place, known) == "stopped":
        raise NotRunning(f"cannot kill container {place.id}: it is not running")
    oci_state.send(known, number)
    if group is not None and number == signal.SIGKILL and group.is_frozen():
        group.freeze(frozen=False)


def delete(place: Place, warn: Callable[[str], None], *, force: bool = False) -> None:
    """Undo what `create` did. Raises ContainerError for one that has not ended, unless `force`."""
    if force and not (place.path / "state.json").exists():
        # What a create that was killed has left.
        place.remove()
        return
    with place.alone():
        known = place.known()
        how = oci_state.status(place, known)
        if how not in ("stopped", "creating") and not force:
            raise ContainerError(
                f"cannot delete container {place.id} that is not stopped: it is {how}",
                hint="kill it first, or --force",
            )
        spec = place.spec()
        group = oci_state.group_of(known)
        if how != "stopped" and known.pid:
            if group is not None and group.is_frozen():
                group.freeze(frozen=False)
            with suppress(NotRunning):
                oci_state.send(known, signal.SIGKILL)
            _await_end(known)
        if group is not None:
            _empty(group)
            group.remove()
        state = oci_state.document(place, known, "stopped")
        place.remove()
    _run_hooks("poststop", spec, state, warn)


def _run_hooks(name: str, spec: Spec, state: Mapping[str, object], warn: Callable[[str], None]) -> None:
    """Those that cannot hinder anything any more: what goes wrong is told."""
    for error in hooks.run_all(name, spec.hooks.get(name, ()), state):
        warn(f"{error.message}{f': {error.why}' if error.why else ''}")


def _await_end(known: Known) -> None:
    if not known.pid:
        return
    deadline = time.monotonic() + _END_S
    try:
        pidfd = os.pidfd_open(known.pid)
    except OSError:
        return
    try:
        while oci_state.is_alive(known) and time.monotonic() < deadline:
            select.select([pidfd], [], [], 0.5)
    finally:
        os.close(pidfd)


def _empty(group: Group) -> None:
    """End what is left in it: processes of a container that shares its pid namespace outlive the first one."""
    deadline = time.monotonic() + _END_S
    while (pids := group.processes()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
