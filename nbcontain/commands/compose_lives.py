"""The commands on what a project's containers do: started, stopped, made to stand still, removed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from nbcontain.commands.compose import ServiceWords
from nbcontain.commands.containers import number_of
from nbcontain.commands.table import command
from nbcontain.compose import waiting
from nbcontain.display.values import InProgress, Lines, Verdict
from nbcontain.display.words import count
from nbcontain.errors import UsageError
from nbcontain.events import Emit, scope
from nbcontain.options import option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container


def _on_each(
    engine: Engine, words: ServiceWords, verb: str, act: Callable[[Container], object], *, last_first: bool = False
) -> InProgress[Lines]:
    name = engine.compose.name(words.source)

    def body(emit: Emit) -> Lines:
        with scope(emit, verb, f"{verb} {name}"):
            return Lines(tuple(engine.compose.each(name, words.services, act, last_first=last_first)))

    return InProgress(Task(f"{verb} {name}", body), "work")


def _if_it_runs(act: Callable[[Container], object]) -> Callable[[Container], object]:
    """As docker compose does: what has ended is passed over."""
    return lambda container: act(container) if container.is_active else None


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StopWords(ServiceWords):
    timeout: int | None = option("-t", "--timeout", help="seconds to wait before SIGKILL", default=None)


@command("compose", "start", "start a project's containers that are there", ServiceWords)
def compose_start(engine: Engine, words: ServiceWords) -> InProgress[Lines]:
    return _on_each(engine, words, "start", engine.start)


@command("compose", "stop", "stop a project's containers, and leave them there", StopWords)
def compose_stop(engine: Engine, words: StopWords) -> InProgress[Lines]:
    return _on_each(engine, words, "stop", lambda each: engine.stop(each, words.timeout), last_first=True)


@command("compose", "restart", "stop a project's containers and start them again", StopWords)
def compose_restart(engine: Engine, words: StopWords) -> InProgress[Lines]:
    return _on_each(engine, words, "restart", lambda each: engine.restart(each, words.timeout))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class KillWords(ServiceWords):
    signal: str = option("-s", "--signal", help="which signal", default="KILL", metavar="SIGNAL")


@command("compose", "kill", "send a project's containers a signal, SIGKILL unless told", KillWords)
def compose_kill(engine: Engine, words: KillWords) -> InProgress[Lines]:
    number = number_of(words.signal)
    return _on_each(engine, words, "kill", _if_it_runs(lambda each: engine.kill(each, number)), last_first=True)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class WaitWords(ServiceWords):
    down: bool = option("--down-project", help="take the project down when the first of them has ended")


@command("compose", "wait", "wait until a project's containers end, and end as they did", WaitWords)
def compose_wait(engine: Engine, words: WaitWords) -> InProgress[Verdict]:
    name = engine.compose.name(words.source)
    found = [each for each in engine.compose.containers(name, words.services) if each.is_active]
    if not found:
        raise UsageError(f"nothing of the project {name} runs", hint="%compose up -d")

    is_over = threading.Event()

    def body(emit: Emit) -> Verdict:
        with scope(emit, "wait", f"wait for {count(len(found), 'container')}"):
            ended = list(islice(waiting.endings(found, is_over), 1 if words.down else None))
        if words.down:
            engine.compose.down(name, emit)
        lines = tuple(f'container "{each.id}" exited with status code {code}' for each, code in ended)
        return Verdict(Lines(lines), next((code for _, code in reversed(ended) if code), 0))

    task = Task(f"wait {name}", body)
    task.on_cancel(is_over.set)
    return InProgress(task, "wait")


@command("compose", "pause", "stop all processes of a project's containers where they are", ServiceWords)
def compose_pause(engine: Engine, words: ServiceWords) -> InProgress[Lines]:
    return _on_each(engine, words, "pause", _if_it_runs(engine.resources.pause), last_first=True)


@command("compose", "unpause", "let a project's paused containers go on", ServiceWords)
def compose_unpause(engine: Engine, words: ServiceWords) -> InProgress[Lines]:
    return _on_each(engine, words, "unpause", _if_it_runs(engine.resources.unpause))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RemoveWords(ServiceWords):
    force: bool = option("-f", "--force", help="docker's; nothing is asked here")
    stop: bool = option("-s", "--stop", help="running ones too: they are stopped before")
    volumes: bool = option("-v", "--volumes", help="with their anonymous volumes")


@command("compose", "rm", "remove a project's stopped containers", RemoveWords)
def compose_rm(engine: Engine, words: RemoveWords) -> InProgress[Lines | None]:
    name = engine.compose.name(words.source)

    def body(emit: Emit) -> Lines | None:
        gone = engine.compose.remove(name, words.services, stop=words.stop, volumes=words.volumes)
        return Lines(tuple(gone)) if gone else None

    return InProgress(Task(f"rm {name}", body), "work")
