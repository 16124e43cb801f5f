"""The life of containers from their making to their removal: starting, stopping, naming, forgetting. `engine.life`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nbcontain.errors import (
    Cancelled,
    ContainerError,
    ContainerNotFound,
    InUse,
    NbcontainError,
    NotRunning,
    SetupFailed,
    UsageError,
)
from nbcontain.events import Emit, Finished, Notice, Output, Progress, Record, Started
from nbcontain.options import labels_of
from nbcontain.outcomes import RunResult, Tail, result_of
from nbcontain.runtime.container import Container
from nbcontain.runtime.restarts import Policy
from nbcontain.runtime.signals import stop_number
from nbcontain.store import files
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions
    from nbcontain.runtime.leash import Leash
    from nbcontain.runtime.sharing import Donor

T = TypeVar("T")
C = TypeVar("C", bound=Container)
CONDITIONS = ("not-running", "next-exit", "removed", "created", "running", "paused", "exited", "stopped", "healthy",
              "unhealthy")  # fmt: skip
_LOOK_S = 0.05


class Life:
    """What can be done with an engine's containers as wholes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def donors(self, options: RunOptions) -> dict[str, Donor]:
        """The containers whose namespaces these options ask for, by "pid", "ipc" and "user".

        Raises NotRunning, UsageError.
        """
        from nbcontain.id_ranges import ids_of
        from nbcontain.runtime.sharing import Donor, donor

        found: dict[str, Donor] = {}
        for kind, mode in (("pid", options.pid), ("ipc", options.ipc), ("user", options.userns)):
            if name := donor(mode):
                container = self._engine.running(name)
                if kind == "ipc" and container.info.options.get("ipc") not in ("shareable", "host"):
                    raise UsageError(
                        f"--ipc {mode}: non-shareable IPC", why=f"{name} keeps its memory to itself",
                        hint=f"run {name} with --ipc shareable",
                    )  # fmt: skip
                ids = ids_of(container.bundle.spec)
                if kind != "user" or not ids.is_identity:
                    found[kind] = Donor(container.id, str(container.bundle.path), container.pid or 0, ids)
        return found

    def made(self, container: Container, options: RunOptions) -> None:
        """It was just made: tell everybody, and write --cidfile. Raises UsageError; then it is gone again."""
        self._engine.events.container(container, "create")
        if options.cidfile:
            try:
                files.write_new(Path(options.cidfile).absolute(), container.id.encode(), 0o644)
            except OSError as error:
                container.bundle.unlock()
                self.remove(container, force=True, volumes=True)
                raise UsageError(f"cannot write --cidfile {options.cidfile}", why=error.strerror or "") from error

    # --- running ---

    @contextmanager
    def entered(self, around: Callable[[C], AbstractContextManager[object]], container: C) -> Iterator[None]:
        """Enter what is to be around a container that was made; one for which that cannot be is forgotten."""
        with ExitStack() as stack:
            try:
                stack.enter_context(around(container))
            except BaseException:
                self.remove(container, force=True, volumes=True)
                raise
            yield

    def launch(self, container: Container, leash: Leash | None, stdin: int | None, emit: Emit) -> None:
        """Run a container for the first time; one that cannot be started is forgotten, as is what it may have left."""
        try:
            self._engine.networks.launch(container, leash=leash, stdin=stdin, emit=emit)
        except BaseException as error:
            self.remove(container, force=True, volumes=True)
            if isinstance(error, SetupFailed):
                from nbcontain.runtime.emulation import explained

                raise explained(error, str(container.info.options.get("platform", ""))) from error
            raise

    def attend(
        self, container: Container, records: Iterable[Record], emit: Emit, *, check: bool = True,
        seen: Set[str] = frozenset({"stdout", "stderr"}),
    ) -> RunResult:  # fmt: skip
        """Pass on what a container writes until it ends, which a cancellation brings about. `check` as `result_of`.

        Of its output only the streams that are to be `seen`.
        """
        output = Tail()
        code: int | None = None
        told = Notice("", "")
        try:
            for record in records:
                if isinstance(record.event, Output) and record.event.stream not in seen:
                    continue
                emit(record.event)
                match record.event:
                    case Output():
                        output.add(record.event)
                    case Notice() as told:
                        pass
                    case Finished(exit_code=exit_code):
                        code = exit_code
        except Cancelled:
            container.settle()
            raise
        return result_of(container.info.id, container.info.name, code, output, told, check=check)

    def start(self, container: Container, *, stdin: int | None = None) -> None:
        """Run a stopped container again, in its own layer as it was left. Nothing if it runs."""
        container.require()
        if container.is_active:
            return
        self._engine.profile.require(self._engine.host, "start")
        # As it was made: by then this engine, or this machine, may be another.
        other = self._engine.of(container)
        self._engine.networks.launch(container, leash=None, stdin=stdin, launcher=other.launcher)

    def change_restart(self, container: Container, text: str) -> None:
        """Give a container another restart policy, now and for its next starts. Raises UsageError."""
        from nbcontain.runtime.lifetimes import restart_of

        container.bundle.write_info(restart=restart_of(text, remove=container.info.remove))
        container.reread()

    def rename(self, container: Container, name: str) -> None:
        """Call it otherwise. Raises NameTaken, UsageError."""
        from nbcontain.names import checked

        container.require()
        old = container.name
        if checked(name.removeprefix("/")) == old:
            raise UsageError(f"{old} is its name already", why="renaming a container with the same name as its own")
        self._engine._containers.rename(container, name.removeprefix("/"))
        container.reread()
        self._engine.events.container(container, "rename", oldName=f"/{old}")

    def boot(self) -> Sequence[Container]:
        """Start what its restart policy wants to run after the machine's start; gives those that run now.

        Containers that were to be forgotten (--rm) and did not live to see that are removed.
        """
        started = []
        for container in reversed(self._engine.containers()):
            if container.bundle.is_alive():
                continue
            state, info = container.state(), container.info
            if info.remove and state.status != "creating":
                self.remove(container, force=True)
            elif info.restart and state.started_at and Policy.parse(info.restart).boots(by_hand=state.stopped_by_hand):
                with suppress(NbcontainError):
                    # One that cannot be started keeps no other from it; its state says why.
                    self.start(container)
                    started.append(container)
        return started

    # --- ending ---

    def stop(self, container: Container, timeout_s: float | None = None, number: int | None = None) -> None:
        """Send the stop signal, or that `number`, and SIGKILL after `timeout_s`; the container's own unless given.

        A negative time waits for ever. Nothing if it does not run.
        """
        if not container.is_active:
            return
        self._engine.resources.thaw(container)
        number = stop_number(container.info.stop_signal) if number is None else number
        self._told_kill(container, number)
        timeout_s = container.info.stop_timeout_s if timeout_s is None else timeout_s
        with suppress(NotRunning, ContainerNotFound):
            container.send_signal(number, final=True)
            if container.wait(timeout_s if timeout_s >= 0 else None) is None:
                container.send_signal(signal.SIGKILL)
                container.wait(10.0)
        with suppress(ContainerError):
            self._engine.events.container(container, "stop")

    def restart(self, container: Container, timeout_s: float | None = None, number: int | None = None) -> None:
        """Stop a container, if it runs, and run it again."""
        self.stop(container, timeout_s, number)
        self.start(container)
        self._engine.events.container(container, "restart")

    def kill(self, container: Container, number: int = signal.SIGKILL) -> None:
        """Send the container's first process a signal. Raises NotRunning."""
        self._engine.resources.thaw(container, number)
        container.send_signal(number)
        self._told_kill(container, number)

    def _told_kill(self, container: Container, number: int) -> None:
        self._engine.events.container(container, "kill", signal=str(number))

    def wait(
        self, names: Sequence[str], condition: str, wrap: Callable[[tuple[str, ...]], T], *, ignore: bool = False
    ) -> Task[T]:
        """Wait until each of them is as `condition` says; the task gives their exit codes, wrapped.

        docker's conditions not-running, next-exit and removed, and podman's states and healths. With `ignore`, -1
        stands for one that is not there. Raises UsageError, ContainerNotFound.
        """
        if condition not in CONDITIONS:
            raise UsageError(f"wait --condition {condition}: there is no such condition", hint=", ".join(CONDITIONS))
        meant: list[tuple[Container, float] | None] = []
        for name in names:
            try:
                container = self._engine.container(name)
                meant.append((container, container.state().finished_at))
            except ContainerNotFound:
                if not ignore:
                    raise
                meant.append(None)

        def body(emit: Emit) -> T:
            return wrap(tuple(_code(each, condition, emit) for each in meant))

        return Task("wait", body)

    def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and its layer. Raises InUse for a running one unless forced: then it is killed.

        With `volumes`, and always with --rm, its anonymous volumes go too, unless other containers have them.
        """
        engine = self._engine
        if container.status in ("running", "restarting", "created") and container.bundle.is_alive():
            if not force:
                raise InUse(
                    f"{container.name} is running",
                    hint=f"%container stop {container.name} first, or rm -f, which kills it",
                )
            engine.resources.thaw(container)
            with suppress(ContainerError):
                # It may end, and with --rm be forgotten, while we ask.
                container.send_signal(signal.SIGKILL)
                container.wait(5)
        container.bundle.end_orphan()
        engine.resources.group(container).remove(timeout_s=0.2)
        with suppress(OSError, ValueError):
            # Read before it goes.
            _ = container.info
        was_there = container.bundle.is_whole()
        with engine.store.shared():
            container.bundle.remove(engine.store.overlays.remove_tree)
            engine.store.snapshots_of(container.id).discard(container.id)
        if was_there:
            if (volumes or container.info.remove) and container.info.anonymous_volumes:
                engine.volumes.release(container)
            engine.events.container(container, "destroy")


def _code(meant: tuple[Container, float] | None, condition: str, emit: Emit) -> str:
    """Wait for one; -1 stands for one that has no exit code."""
    if meant is None:
        return "-1"
    container, ended_at = meant
    code = container.state().exit_code
    emit(Started(container.id, f"wait {container.name}{_wished(condition)}"))
    while True:
        if condition in ("not-running", "exited", "stopped") and (found := container.wait(0.2)) is not None:
            return str(found)
        try:
            is_there = container.bundle.is_whole()
            known = container.state().exit_code if is_there else None
            code = known if known is not None else code
            if condition == "removed":
                is_so = not is_there
            elif not is_there:
                raise ContainerNotFound(f"{container.name} is gone", why="it was removed meanwhile")
            elif condition == "next-exit":
                is_so = container.state().finished_at > ended_at
            elif condition in ("healthy", "unhealthy"):
                is_so = (container.health() or {}).get("Status") == condition
            else:
                status = container.status
                is_so = condition == ("paused" if status == "running" and container.is_paused else status)
        except FileNotFoundError:
            is_so = condition == "removed"
        if is_so:
            return str(-1 if code is None else code)
        emit(Progress(container.id, 0))  # strikes when nobody waits any more
        if condition not in ("not-running", "exited", "stopped"):
            time.sleep(_LOOK_S)


def _wished(condition: str) -> str:
    """What is waited for, where that is not a container's end."""
    if condition in ("not-running", "exited", "stopped"):
        return ""
    return "'s next end" if condition == "next-exit" else f" to be {condition}"


def with_files(options: RunOptions) -> RunOptions:
    """The options with what the files say that they name. Raises UsageError, also for a --cidfile that is there."""
    if options.cidfile and os.path.exists(options.cidfile):
        raise UsageError(
            f"--cidfile {options.cidfile} is there already", why="another container may have written it",
            hint=f"make sure that it does not run any more, and delete {options.cidfile}",
        )  # fmt: skip
    told: list[str] = []
    for name in options.label_file:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read --label-file {name}", why=str(error)) from error
        lines = (line.lstrip() for line in text.splitlines())
        told += [line for line in lines if line and not line.startswith("#")]
    # Those on the command line win.
    every = (*told, *options.labels)
    labels_of(every)
    return replace(options, labels=every)
