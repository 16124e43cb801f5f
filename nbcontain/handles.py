"""A container of an engine, in Python's hands: what can be asked of it, and what can be done with it.

The names are docker-py's where it has them. Everything is read from the disk when it is asked for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from nbcontain.errors import ContainerError, ContainerFailed, ContainerNotFound, NetworkError, NotRunning, UsageError
from nbcontain.network.model import bracketed
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.container import Container as Handle
from nbcontain.runtime.signals import is_heeded, signal_number, stop_number
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.images import Image
    from nbcontain.logbook import Logs
    from nbcontain.network.model import PortMapping
    from nbcontain.outcomes import RunResult
    from nbcontain.places import Place
    from nbcontain.processes import Process
    from nbcontain.resources import Look
    from nbcontain.task import Task

_LOOK_S = 0.05
_LISTENING = "0A"
"""TCP_LISTEN in /proc/PID/net/tcp (proc(5))."""


class Container(Handle):
    """A container. `container["/etc/hosts"].text`, `container.exec("id").stdout`, `container.logs(grep="error")`.

    In a `with` statement it is stopped and removed at the end.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        super().__init__(bundle)
        self.engine = engine

    @property
    def short_id(self) -> str:
        """The first twelve digits of its id."""
        return self.id[:12]

    @property
    def exit_code(self) -> int | None:
        """Of its last run; None while it runs, and where it never did."""
        status, state = self.look()
        return state.exit_code if status in ("exited", "restarting") else None

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.info.labels)

    def to_dict(self) -> dict[str, Any]:
        """All that is known of it, in docker's names."""
        from nbcontain.inspection import container_document

        self.require()
        return container_document(self.engine, self)

    @property
    def attrs(self) -> dict[str, Any]:
        """docker-py's word for the same."""
        return self.to_dict()

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ContainerNotFound, FileNotFoundError):
            heeds = is_heeded(self.pid or 0, stop_number(self.info.stop_signal))
            self.stop(None if heeds else 0)
            self.remove(force=True, v=True)

    # --- its life ---

    def start(self) -> None:
        """Run it again, in its own layer as it was left. Nothing if it runs."""
        self.engine.start(self)

    def stop(self, timeout: float | None = None) -> None:
        """Ask it to end, and kill it after `timeout` seconds, which is its own unless given."""
        self.engine.stop(self, timeout)

    def restart(self, timeout: float | None = None) -> None:
        """Stop it, if it runs, and run it again."""
        self.engine.restart(self, timeout)

    def kill(self, signal: int | str = signal.SIGKILL) -> None:
        """Send its first process a signal, by number or name. Raises NotRunning, UsageError."""
        try:
            number = signal_number(str(int(signal) if isinstance(signal, int) else signal))
        except ValueError as error:
            raise UsageError(str(error), hint="TERM, KILL, INT, HUP, USR1 … or a number") from None
        self.engine.kill(self, number)

    def pause(self) -> None:
        """Stop all its processes where they are. Raises NotRunning, SetupFailed."""
        self.engine.resources.pause(self)

    def unpause(self) -> None:
        """Let them go on."""
        self.engine.resources.unpause(self)

    def rename(self, name: str) -> None:
        """Call it otherwise. Raises NameTaken, UsageError."""
        self.engine.life.rename(self, name)

    def remove(self, *, force: bool = False, v: bool = False) -> None:
        """Remove it and what it wrote, with `v` also its anonymous volumes. Raises InUse for one that runs, unless
        forced."""
        self.engine.remove_container(self, force=force, volumes=v)

    def wait_ready(self, port: int | None = None, *, health: bool = False, timeout: float = 30) -> Container:
        """Wait until it can be talked to, and give it: until something in it listens on `port`, or it is healthy.

        Without either, until its health check says so, or its first published port is listened on. Raises
        ContainerFailed if it ends meanwhile, ContainerError after `timeout` seconds.
        """
        if port is None and not health:
            health = bool(self.info.health)
            published = self._published()
            port = None if health else published[0].container_port if published else None
            if port is None and not health:
                raise UsageError("wait_ready: for which port?", hint="wait_ready(port=8000)")
        until = time.monotonic() + timeout
        what = "its health check" if port is None else f"port {port}"
        while not (self._is_healthy() if port is None else self._listens(port)):
            if not self.is_active:
                said = str(self.logs(tail=5)).rstrip()
                raise ContainerFailed(
                    f"{self.name} ended before {what} was ready", self.wait() or 0, why=said, hint=self._log_hint()
                )
            if time.monotonic() > until:
                raise ContainerError(f"{self.name}: {what} is not ready after {timeout:g} s", hint=self._log_hint())
            time.sleep(_LOOK_S)
        return self

    def _log_hint(self) -> str:
        return f"%container logs {self.name}"

    def _is_healthy(self) -> bool:
        return (self.health() or {}).get("Status") == "healthy"

    def _listens(self, port: int) -> bool:
        """Whether somebody on its network listens there, told by the kernel: nobody is disturbed by a connection."""
        for name in ("tcp", "tcp6"):
            with suppress(OSError):
                for line in Path(f"/proc/{self.pid}/net/{name}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                        return True
        return False

    # --- programs in it ---

    def exec(self, command: Any, *, input: Any = None, check: bool = True, **options: Any) -> RunResult:
        """Run a further program in it and wait for it: `exec("id")`, `exec(["sh", "-c", "…"], user="app")`.

        A text is split by the shell's rules. `input` is what it reads: text, bytes or a Path. `options` are the flags
        of %container exec. Raises NotRunning, CommandNotFound, and with `check` ContainerFailed unless it ends with 0.
        """
        from nbcontain.outcomes import waited

        return waited(self.exec_task(command, input=input, check=check, **options))

    def exec_task(self, command: Any, *, input: Any = None, check: bool = True, **options: Any) -> Task[RunResult]:
        """The same without waiting: a task, which can be awaited."""
        from nbcontain import keywords
        from nbcontain.runtime.generate import ExecOptions

        words = {"name": self.id, "command": keywords.command_of(command), "no_raise": not check}
        return self.engine.exec(keywords.options_of(ExecOptions, "container exec", {**options, **words}), stdin=input)

    def top(self) -> list[Process]:
        """Its processes, as this machine sees them."""
        return self.engine.processes.of(self)

    # --- what it says and what it uses ---

    def logs(
        self, *, grep: str = "", follow: bool = False, tail: int | None = None, since: Any = None, until: Any = None,
        stdout: bool = True, stderr: bool = True,
    ) -> Logs:  # fmt: skip
        """The lines that it wrote, or those in which the regular expression `grep` is found.

        With `follow`, iterating waits for more until it ends. Times are seconds since the epoch, datetimes, or texts
        like "10m", which is ten minutes ago. Raises UsageError.
        """
        from nbcontain.logbook import Logs

        streams = tuple(name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted)
        records = self.output(follow=follow, tail=tail, since=_instant(since), until=_instant(until))
        return Logs(records, grep, streams, follow=follow)

    @property
    def stats(self) -> Look:
        """What it uses of the machine, over a quarter of a second. Raises NotRunning."""
        for look in self.engine.resources.look([self]):
            return look
        raise NotRunning(f"{self.name} is not running", hint=f"%container start {self.name}")

    def diff(self) -> list[tuple[str, str]]:
        """What it changed in its own layer: (A, C or D, path)."""
        return self.engine.diff(self)

    def commit(
        self, name: str = "", tag: str | None = None, *, repository: str = "", changes: str | Sequence[str] = (),
        message: str = "", author: str = "", pause: bool = False,
    ) -> Image:  # fmt: skip
        """An image of what it is now, called that: "team/app:1", or "team/app" and "1".

        `repository` is docker-py's word for the name. `changes` are a Dockerfile's instructions for its config.
        """
        from nbcontain.images import Image, named

        self.require()
        lines = changes.splitlines() if isinstance(changes, str) else changes
        task = self.engine.archives.commit(
            self, named(name or repository, tag), changes=lines, message=message, author=author, pause=pause
        )
        return Image.held(self.engine.waits(task, "work"), self.engine)

    @overload
    def export(self, path: None = None, *, chunk_size: int = ...) -> Iterator[bytes]: ...
    @overload
    def export(self, path: str | PathLike[str], *, chunk_size: int = ...) -> Path: ...
    def export(
        self, path: str | PathLike[str] | None = None, *, chunk_size: int = 2 << 20
    ) -> Iterator[bytes] | Path:  # fmt: skip
        """Its file system as one tar: written to `path`, or without one its bytes in pieces."""
        self.require()
        archives = self.engine.archives
        if path is None:
            from nbcontain.store.pipes import pieces

            return pieces(lambda sink: archives.export(self, sink), chunk_size)
        target = Path(path).absolute()
        self.engine.waits(archives.export(self, str(target)), "work")
        return target

    # --- how to reach it ---

    @property
    def ports(self) -> dict[str, list[dict[str, str]] | None]:
        """Its ports and where they are published, as docker-py has it."""
        found: dict[str, list[dict[str, str]] | None] = self.engine.networks.settings(self).get("Ports") or {}
        return found

    def _published(self) -> tuple[PortMapping, ...]:
        return tuple(each for each in self.engine.networks.ports(self) if each.protocol == "tcp")

    @property
    def url(self) -> str:
        """Where this machine reaches its first published port, or the first that it exposes. Raises NetworkError."""
        return self.url_of()

    def url_of(self, port: int | None = None) -> str:
        """Where this machine reaches that port of it. Raises NotRunning, NetworkError."""
        self.engine.running(self.id)
        if published := self.engine.pages.address(self, port):
            return published
        settings = self.engine.networks.settings(self)
        ports = [int(each.partition("/")[0]) for each in settings.get("Ports") or {} if each.endswith("/tcp")]
        wanted = port if port is not None else ports[0] if ports else None
        addresses = [each.get("IPAddress") for each in (settings.get("Networks") or {}).values()]
        if self.info.options.get("network") == "host":
            addresses = ["127.0.0.1"]
        if wanted is not None and (address := next(filter(None, addresses), "")):
            return f"http://{bracketed(address)}:{wanted}"
        raise NetworkError(
            f"{self.name} publishes no port" if port is None else f"{self.name} does not publish port {port}",
            why="and this machine cannot reach it otherwise", hint="run it with ports={8000: None}, or -p 8000",
        )  # fmt: skip

    # --- its files ---

    def __getitem__(self, path: str) -> Place:
        """A path in it, runs it or not: .text, .bytes, .df(), .value, .write(…)."""
        from nbcontain.places import Place

        return Place(_Files(self), path)

    def __setitem__(self, path: str, value: Any) -> None:
        self.put(value, path)

    def _ipython_key_completions_(self) -> list[str]:
        from nbcontain.places import Place

        return [f"/{name}" for name in Place(_Files(self), "/")._ipython_key_completions_()]

    def put(self, value: Any, path: str) -> None:
        """Put a Python object there, as the path's suffix says; a Path is a file or directory of this machine.

        Directories above it are made. Raises UsageError for what no file can be made of.
        """
        if isinstance(value, Path) and value.is_dir():
            from nbcontain.outcomes import waited

            waited(self.engine.transfers.into(str(value), self, path))
            return
        from nbcontain import objects

        data = value.read_bytes() if isinstance(value, Path) else objects.content(path, value)
        self.engine.transfers.write(self, path, data)

    def get(self, path: str) -> Any:
        """The file as the object that its suffix says: `container[path].value`."""
        return self[path].value


@dataclass(frozen=True, slots=True)
class _Files:
    """A container's files, as `places` asks for them."""

    container: Container

    @property
    def name(self) -> str:
        return self.container.name

    def read(self, path: str) -> bytes:
        return self.container.engine.transfers.read(self.container, path)

    def names(self, path: str) -> list[tuple[str, str]]:
        return self.container.engine.transfers.names(self.container, path)

    def kind(self, path: str) -> str:
        return self.container.engine.transfers.kind(self.container, path)

    def write(self, path: str, value: Any) -> None:
        self.container.put(value, path)


def _instant(given: Any) -> float | None:
    """Seconds since the epoch. Raises UsageError."""
    if given is None or isinstance(given, int | float):
        return given
    if hasattr(given, "timestamp"):
        return float(given.timestamp())
    from nbcontain.filters import instant

    return instant(str(given), word="time")
