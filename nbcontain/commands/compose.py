"""The commands on compose projects: docker compose's words."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from nbcontain.commands.compose_rows import compose_table
from nbcontain.commands.containers import container_exec
from nbcontain.commands.table import command
from nbcontain.compose import model
from nbcontain.compose.sources import Source
from nbcontain.display.table import Table
from nbcontain.display.values import InProgress, Lines, Log
from nbcontain.errors import Cancelled, UsageError
from nbcontain.events import Emit, Output, Record, scope
from nbcontain.options import REST, argument, option, with_defaults
from nbcontain.runtime.generate import ExecOptions
from nbcontain.task import Task
from nbcontain.values import dataclass, fields, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container

_LONGEST_LINE = 1 << 20
"""Bytes: what has no end until then is shown as a line of its own."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeWords:
    """What every command on a project can be told; docker writes these before the command, and so can you."""

    files: tuple[str, ...] = option("--file", help="a compose file, and others that change it; without it compose.yaml "
                                    "here or above, and compose.override.yaml beside it", metavar="FILE")  # fmt: skip
    project: str = option("-p", "--project-name", help="the project's name", metavar="NAME")
    directory: str = option("--project-directory", help="what paths in the file are seen from", metavar="DIR")
    profiles: tuple[str, ...] = option("--profile", help="services of this profile too; * is all", metavar="NAME")
    env_files: tuple[str, ...] = option("--env-file", help="variables, in place of .env", metavar="FILE")
    text: str | None = None
    """The file itself, where it is a notebook's cell."""

    @property
    def source(self) -> Source:
        """Where the project is read from."""
        return Source(
            text=self.text, files=self.files, directory=self.directory, name=self.project, env_files=self.env_files
        )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ServiceWords(ComposeWords):
    services: tuple[str, ...] = argument(help="only these services", nargs="*", default=(), metavar="SERVICE")


def said(words: Any, options_type: type) -> dict[str, Any]:
    """What words say of those options that they share with others."""
    return {each.name: getattr(words, each.name) for each in fields(options_type)}


def profiles_of(engine: Engine, words: ComposeWords) -> tuple[str, ...]:
    """Those that a line or COMPOSE_PROFILES asks for."""
    return (*words.profiles, *filter(None, engine.environ.get("COMPOSE_PROFILES", "").split(",")))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CreateWords(ServiceWords):
    build: bool = option("--build", help="build images before, also those that are here")
    force_recreate: bool = option("--force-recreate", help="make containers anew, though nothing changed")
    no_recreate: bool = option("--no-recreate", help="leave those that are there, though something changed")
    remove_orphans: bool = option("--remove-orphans", help="remove what the file does not have any more")
    scale: tuple[str, ...] = option("--scale", help="so many containers of a service", metavar="SERVICE=NUMBER")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class UpWords(CreateWords):
    detach: bool = option("-d", "--detach", help="leave them running and return")
    no_start: bool = option("--no-start", help="only create them")
    wait: bool = option("--wait", help="until those with a health check are healthy; implies -d")


@command("compose", "up", "have a project's services run as its file says", UpWords)
def compose_up(engine: Engine, words: UpWords) -> InProgress[Any]:
    project, _ = engine.compose.read(words.source)
    project = project.scaled(_numbers(words.scale))
    services = project.chosen(words.services, profiles_of(engine, words))
    if words.force_recreate and words.no_recreate:
        raise UsageError("--force-recreate and --no-recreate are incompatible")

    is_over = threading.Event()

    def bring_up(emit: Emit) -> list[Container]:
        return engine.compose.up(
            project, services, emit, build=words.build, remove_orphans=words.remove_orphans, wait=words.wait,
            recreate="always" if words.force_recreate else "never" if words.no_recreate else "",
            start=not words.no_start, is_over=is_over,
        )  # fmt: skip

    def detached(emit: Emit) -> Table:
        return compose_table(engine, project.name, bring_up(emit))

    def attached(emit: Emit) -> Table:
        try:
            with closing(_followed(bring_up(emit), tail=None)) as records:
                for record in records:
                    emit(record.event)
        except Cancelled:
            engine.compose.each(project.name, (), engine.stop, last_first=True)
            raise
        return compose_table(engine, project.name, engine.compose.containers(project.name))

    leaves = words.detach or words.wait or words.no_start
    task = Task(f"up {project.name}", detached if leaves else attached)
    task.on_cancel(is_over.set)
    return InProgress(task, "up") if leaves else InProgress(task, "run", stops=f"the containers of {project.name}")


@command("compose", "create", "make a project's containers, and start none", CreateWords)
def compose_create(engine: Engine, words: CreateWords) -> object:
    return compose_up(engine, UpWords(**said(words, CreateWords), no_start=True))


def _numbers(words: Sequence[str]) -> dict[str, int]:
    """SERVICE=NUMBER. Raises UsageError."""
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        if not name or not number.isdecimal():
            raise UsageError(f"{word} says no number of containers", hint="SERVICE=NUMBER, as in web=3")
        found[name] = int(number)
    return found


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ScaleWords(ComposeWords):
    numbers: tuple[str, ...] = argument(help="so many containers of a service", nargs="+", metavar="SERVICE=NUMBER")


@command("compose", "scale", "have more or fewer containers of a service", ScaleWords)
def compose_scale(engine: Engine, words: ScaleWords) -> InProgress[Any]:
    numbers = _numbers(words.numbers)
    project, _ = engine.compose.read(words.source)
    project = project.scaled(numbers)
    services = [project.service(each) for each in numbers]
    is_over = threading.Event()

    def body(emit: Emit) -> Table:
        return compose_table(engine, project.name, engine.compose.up(
            project, services, emit, recreate="never", is_over=is_over
        ))  # fmt: skip

    task = Task(f"scale {project.name}", body)
    task.on_cancel(is_over.set)
    return InProgress(task, "up")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DownWords(ComposeWords):
    volumes: bool = option("-v", "--volumes", help="the project's volumes too, with all their files")
    timeout: int | None = option("-t", "--timeout", help="seconds to wait before SIGKILL", default=None)
    remove_orphans: bool = option("--remove-orphans", help="docker's; all that has the project's label goes anyway")
    rmi: str = option("--rmi", help="images too: all, or local for those that have no name of their own",
                      metavar="local|all")  # fmt: skip


@command("compose", "down", "remove a project's containers and networks", DownWords)
def compose_down(engine: Engine, words: DownWords) -> InProgress[Lines]:
    if words.rmi not in ("", "local", "all"):
        raise UsageError(f"compose down --rmi {words.rmi}: there is no such kind of images", hint="local or all")
    name = engine.compose.name(words.source)
    images = engine.compose.image_names(words.source, is_local=words.rmi == "local") if words.rmi else ()
    return InProgress(
        Task(f"down {name}", lambda emit: Lines(tuple(
            engine.compose.down(name, emit, volumes=words.volumes, timeout_s=words.timeout, images=images)
        ))), "work",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LogsWords(ServiceWords):
    follow: bool = option("-f", "--follow", help="and what comes from now on")
    tail: str = option("-n", "--tail", help="only so many lines of each", default="all", metavar="NUMBER")
    no_log_prefix: bool = option("--no-log-prefix", help="without the service's name before each line")


@command("compose", "logs", "what a project's services said", LogsWords)
def compose_logs(engine: Engine, words: LogsWords) -> Log:
    name = engine.compose.name(words.source)
    if not words.tail.isdecimal() and words.tail != "all":
        raise UsageError(f"--tail {words.tail}: that is no number of lines", hint="--tail 20, or --tail all")
    tail = int(words.tail) if words.tail.isdecimal() else None
    containers = engine.compose.containers(name, words.services)
    if words.follow:
        return Log(_followed(containers, tail=tail, prefix=not words.no_log_prefix))
    return Log(_merged(containers, tail=tail, prefix=not words.no_log_prefix))


def _merged(containers: Sequence[Container], *, tail: int | None, prefix: bool) -> Iterator[Record]:
    import heapq

    width = _width(containers)
    told = [_prefixed(each, width, each.output(tail=tail), prefix=prefix) for each in containers]
    return iter(heapq.merge(*told, key=lambda record: record.time))


def _followed(containers: Sequence[Container], *, tail: int | None, prefix: bool = True) -> Generator[Record]:
    """What they say until all have ended; each is listened to on a thread of its own.

    Closed before, it lets each thread go with the next that its container says.
    """
    told: queue.Queue[Record | None] = queue.Queue(maxsize=1000)
    width = _width(containers)
    is_over = threading.Event()

    def tell(record: Record | None) -> bool:
        while not is_over.is_set():
            with suppress(queue.Full):
                told.put(record, timeout=0.2)
                return True
        return False

    def listen(container: Container) -> None:
        try:
            for record in _prefixed(container, width, container.output(follow=True, tail=tail), prefix=prefix):
                if not tell(record):
                    return
        finally:
            tell(None)

    for each in containers:
        threading.Thread(target=listen, args=(each,), name=f"nbcontain logs {each.name}", daemon=True).start()
    left = len(containers)
    try:
        while left:
            try:
                record = told.get(timeout=0.2)
            except queue.Empty:
                # An event strikes where nobody wants any more.
                yield Record(0.0, Output("compose", "stdout", b""))
                continue
            if record is None:
                left -= 1
            else:
                yield record
    finally:
        is_over.set()


def _width(containers: Sequence[Container]) -> int:
    return max((len(_shown(each)) for each in containers), default=0)


def _shown(container: Container) -> str:
    labels = container.info.labels
    return f"{labels.get(model.SERVICE, container.name)}-{labels.get(model.NUMBER, '1')}"


def _prefixed(container: Container, width: int, records: Iterator[Record], *, prefix: bool) -> Iterator[Record]:
    """Each whole line with its service before it; one without an end is cut somewhere."""
    head = f"{_shown(container):<{width}}  | ".encode() if prefix else b""
    rest: dict[str, bytearray] = {}
    last = 0.0
    for record in records:
        event = record.event
        if not isinstance(event, Output):
            continue
        last = record.time
        begun = rest.setdefault(event.stream, bytearray())
        begun += event.data
        if b"\n" not in event.data and len(begun) < _LONGEST_LINE:
            continue
        *lines, end = begun.split(b"\n")
        begun[:] = end
        if len(end) >= _LONGEST_LINE:
            lines.append(bytearray(begun))
            begun.clear()
        data = b"".join(head + line + b"\n" for line in lines)
        yield replace(record, event=replace(event, data=data))
    for stream, end in rest.items():
        if end:
            yield Record(last, Output(container.id, "stderr" if stream == "stderr" else "stdout", head + end + b"\n"))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BuildWords(ServiceWords):
    no_cache: bool = option("--no-cache", help="run every step")


@command("compose", "build", "build the images of a project's services", BuildWords)
def compose_build(engine: Engine, words: BuildWords) -> InProgress[Lines]:
    project, _ = engine.compose.read(words.source)
    services = project.chosen(words.services, profiles_of(engine, words))

    def body(emit: Emit) -> Lines:
        with scope(emit, "compose", f"build {project.name}"):
            engine.compose.build(project, services, emit, no_cache=words.no_cache)
        return Lines(tuple(each.image for each in services if each.build is not None))

    return InProgress(Task(f"build {project.name}", body), "build")


@command("compose", "pull", "pull the images of a project's services", ServiceWords)
def compose_pull(engine: Engine, words: ServiceWords) -> InProgress[Lines]:
    project, _ = engine.compose.read(words.source)
    services = project.chosen(words.services, profiles_of(engine, words))

    def body(emit: Emit) -> Lines:
        engine.compose.pull(services, emit)
        return Lines(tuple(each.image for each in services if each.build is None))

    return InProgress(Task(f"pull {project.name}", body), "pull")


@command("compose", "push", "send the images that are built for a project's services to their registries", ServiceWords)
def compose_push(engine: Engine, words: ServiceWords) -> InProgress[Lines]:
    project, _ = engine.compose.read(words.source)
    services = [each for each in project.chosen(words.services, profiles_of(engine, words)) if each.build is not None]

    def body(emit: Emit) -> Lines:
        engine.compose.push(services, emit)
        return Lines(tuple(each.image for each in services))

    return InProgress(Task(f"push {project.name}", body), "push")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExecWords(ComposeWords):
    no_tty: bool = option("-T", "--no-tty", "--no-TTY", help="without a terminal")
    detach: bool = option("-d", "--detach", help="leave it running and return at once")
    environment: tuple[str, ...] = option("-e", "--env", help="NAME=value, or NAME to pass it on", metavar="NAME=VALUE")
    user: str = option("-u", "--user", help="user[:group], by name or number", metavar="USER")
    workdir: str = option("-w", "--workdir", help="the directory to run in", metavar="DIR")
    index: int = option("--index", help="which of the service's containers", default=1, metavar="NUMBER")
    service: str = argument(help="a service", metavar="SERVICE")
    command: tuple[str, ...] = argument(help="the program and its arguments", nargs=REST, metavar="COMMAND")


@command("compose", "exec", "run a further program in a service's container", ExecWords)
def compose_exec(engine: Engine, words: ExecWords) -> object:
    import sys

    container = engine.compose.container(engine.compose.name(words.source), words.service, words.index)
    has_terminal = not words.no_tty and not words.detach and sys.stdin is not None and sys.stdin.isatty()
    return container_exec(engine, ExecOptions(
        name=container.id, command=words.command, environment=words.environment, user=words.user, detach=words.detach,
        workdir=words.workdir, tty=has_terminal, interactive=has_terminal,
    ))  # fmt: skip
