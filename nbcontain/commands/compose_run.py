"""`compose run`: a container of its own, made as a service's are, beside those that `up` has."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from nbcontain import detach_keys as keys
from nbcontain.commands.compose import ComposeWords
from nbcontain.commands.table import command
from nbcontain.compose.model import Service
from nbcontain.display.values import InProgress, Interactive
from nbcontain.errors import Cancelled
from nbcontain.events import Emit, Event, Notice, Started
from nbcontain.options import REST, argument, option, with_defaults
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import Task
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RunWords(ComposeWords):
    project: str = option("--project-name", help="the project's name; -p before `run`", metavar="NAME")
    detach: bool = option("-d", "--detach", help="leave it running and return at once")
    remove: bool = option("--rm", help="forget it when it exits")
    name: str = option("--name", help="what to call it", metavar="NAME")
    no_deps: bool = option("--no-deps", help="without the services that it depends on")
    service_ports: bool = option("-P", "--service-ports", help="with the service's published ports")
    publish: tuple[str, ...] = option("-p", "--publish", help="[address:][port:]port", metavar="PORTS")
    environment: tuple[str, ...] = option("-e", "--env", help="NAME=value, or NAME to pass it on", metavar="NAME=VALUE")
    volumes: tuple[str, ...] = option("-v", "--volume", help="a volume or directory, as run has it", metavar="FROM:TO")
    labels: tuple[str, ...] = option("-l", "--label", help="NAME=value, for people and programs", metavar="NAME=VALUE")
    user: str = option("-u", "--user", help="user[:group], by name or number", metavar="USER")
    workdir: str = option("-w", "--workdir", help="the directory to run in", metavar="DIR")
    entrypoint: str | None = option("--entrypoint", help="in place of the service's", default=None)
    no_tty: bool = option("-T", "--no-tty", "--no-TTY", help="without a terminal")
    service: str = argument(help="a service", metavar="SERVICE")
    command: tuple[str, ...] = argument(help="in place of the service's command", nargs=REST, metavar="COMMAND")

    def over(self, options: RunOptions, service: Service) -> RunOptions:
        """What is said here, over what the file says of the service."""
        command = (*service.after_entrypoint, *self.command) if self.command else options.command
        if self.entrypoint is not None:
            options, command = replace(options, entrypoint=self.entrypoint), self.command
        ports = options.publish if self.service_ports else ()
        return replace(
            options, command=command, detach=self.detach, remove=self.remove, restart="",
            name=self.name or options.name, user=self.user or options.user, workdir=self.workdir or options.workdir,
            environment=(*options.environment, *self.environment), volumes=(*options.volumes, *self.volumes),
            labels=(*options.labels, *self.labels), publish=(*ports, *self.publish),
        )  # fmt: skip


@command("compose", "run", "run a container of its own, made as a service's are", RunWords)
def compose_run(engine: Engine, words: RunWords) -> InProgress[Any] | Interactive:
    project, _ = engine.compose.read(words.source)
    service = project.service(words.service)
    is_over = threading.Event()

    def options(emit: Emit) -> RunOptions:
        return words.over(engine.compose.one_off(project, service, emit, is_over, needs=not words.no_deps), service)

    @contextmanager
    def given(container: Container) -> Iterator[None]:
        for each in service.given:
            container.put(each.text.encode(), each.path)
        yield

    runs: list[Task[Any]] = []

    def body(emit: Emit) -> Any:
        # What was remarked on the way is told on the program's card, which takes the place of all others.
        held: list[Notice] = []

        def on_the_way(event: Event) -> None:
            if isinstance(event, Notice) and event.kind == "warning" and not words.detach:
                held.append(event)
            else:
                emit(event)

        run = engine.run(options(on_the_way), around=given if service.given else nullcontext)
        runs.append(run)
        try:
            for record in run.journal.follow() if not words.detach else ():
                emit(record.event)
                while held and isinstance(record.event, Started):
                    emit(replace(held.pop(0), task=record.event.task, kind=""))
        except Cancelled:
            run.cancel()
            run.wait()
            raise
        return run.result()

    def end() -> None:
        is_over.set()
        for each in runs:
            each.cancel()

    if not words.no_tty and not words.detach and sys.stdin is not None and sys.stdin.isatty() and not service.given:
        return Interactive(
            lambda size, emit: engine.consoles.run(replace(options(emit), tty=True, interactive=True), size, emit),
            keys.DEFAULT, types=True, is_raw=True,
        )  # fmt: skip
    task = Task(f"run {service.name}", body)
    task.on_cancel(end)
    if words.detach:
        return InProgress(task, "up", becomes="container", begins=(service.name, service.image))
    return InProgress(task, "run", begins=(f"run {service.name}", ""))
