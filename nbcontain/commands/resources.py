"""Commands about what containers use of the machine: stats, top, update, pause and unpause."""

from __future__ import annotations

import os
from typing import Any

from nbcontain.commands.containers import on_each
from nbcontain.commands.table import FORMAT_HELP, Names, command
from nbcontain.display.formats import Columns, Format, size_shown
from nbcontain.display.table import Table
from nbcontain.display.values import InProgress, Lines, Live
from nbcontain.display.words import BINARY, scaled
from nbcontain.engine import Engine
from nbcontain.options import REST, argument, option, with_defaults
from nbcontain.processes import columns
from nbcontain.resources import Look
from nbcontain.runtime.container import Container
from nbcontain.runtime.resources import LimitOptions, limits_of
from nbcontain.runtime.restarts import Policy
from nbcontain.task import Task
from nbcontain.values import dataclass


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StatsWords:
    """What `stats` can be told."""

    names: tuple[str, ...] = argument(help="containers; all that run unless named", nargs="*", metavar="CONTAINER")
    all: bool = option("-a", "--all", help="those that do not run, too")
    format: str = option("--format", help=FORMAT_HELP, metavar="table {{.Name}}…|json|TEMPLATE")
    no_stream: bool = option("--no-stream", help="one look, and no more")
    no_trunc: bool = option("--no-trunc", help="ids in full")


STATS_TITLES = {
    "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip


@command("container", "stats", "what containers use of the machine, again and again", StatsWords, top=("stats",))
def container_stats(engine: Engine, words: StatsWords) -> InProgress[Any] | Live:
    wanted = Format.parse(words.format)
    for name in words.names:
        # What is not there is said at once.
        engine.container(name)

    def look() -> Table | Lines | Columns:
        found = [engine.container(name) for name in words.names] or engine.containers()
        looks = {each.container: each for each in engine.resources.look([one for one in found if _runs(one)])}
        shown = [each for each in found if each in looks or words.all or words.names]
        said = dict(zip([each.id for each in found], words.names, strict=False))
        rows = [_record(each, looks.get(each), said.get(each.id, ""), full=words.no_trunc) for each in shown]
        if wanted.template is not None:
            return wanted.of(rows, STATS_TITLES, "stats")
        columns = tuple(title for name, title in STATS_TITLES.items() if name != "Container")
        drawn = tuple(tuple(str(row[name]) for name in STATS_TITLES if name != "Container") for row in rows)
        return Table(columns, drawn, f"{len(looks)} running; CPU is of one processor", "stats")

    if not words.no_stream:
        return Live(look)
    return InProgress(Task("stats", lambda emit: look()), "work")


def _runs(container: Container) -> bool:
    return container.status == "running"


def _record(container: Container, look: Look | None, said: str, *, full: bool) -> dict[str, object]:
    """docker's fields, in docker's units. `said` is what it was called by whoever asks for it."""
    shown_id = container.id if full else container.id[:12]
    names = {"Container": said or shown_id, "Name": container.name, "ID": shown_id}
    if look is None:
        return {**names, "CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--", "NetIO": "--", "BlockIO": "--",
                "PIDs": "--"}  # fmt: skip
    now = look.after
    limit = now.memory_limit if now.memory_limit is not None else engine_memory()
    return {
        **names,
        "CPUPerc": f"{look.cpu_percent:.2f}%",
        "MemUsage": f"{binary_size(now.memory)} / {binary_size(limit)}",
        "MemPerc": f"{100 * now.memory / limit:.2f}%",
        "NetIO": f"{size_shown(now.received or 0)} / {size_shown(now.sent or 0)}",
        "BlockIO": f"{size_shown(now.read or 0)} / {size_shown(now.written or 0)}",
        "PIDs": str(now.pids),
    }


def engine_memory() -> int:
    """All memory of this machine, in bytes: the limit of what has none."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def binary_size(size_bytes: int) -> str:
    """go-units' BytesSize: "1.5MiB"."""
    value, unit = scaled(size_bytes, BINARY, 1024, 1024)
    return f"{value:.4g}{unit}"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TopWords:
    """What `top` can be told."""

    name: str = argument(help="a running container", metavar="CONTAINER")
    columns: tuple[str, ...] = argument(help="options of ps (-ef, aux, -o pid,args), or columns (user pid args)",
                                        nargs=REST, metavar="COLUMN")  # fmt: skip


@command("container", "top", "the processes of a container, as this machine sees them", TopWords, top=("top",))
def container_top(engine: Engine, words: TopWords) -> Table:
    chosen = columns(words.columns)
    found = engine.processes.of(engine.container(words.name))
    rows = tuple(tuple(value(each) for _, value in chosen) for each in found)
    return Table(tuple(title for title, _ in chosen), rows, "", "processes")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class UpdateWords(LimitOptions):
    """What `update` can be told."""

    restart: str = option("--restart", help="another restart policy", metavar="POLICY")
    names: tuple[str, ...] = argument(help="containers", nargs="+", metavar="CONTAINER")


@command(
    "container", "update", "change what containers may use, now and at their next start", UpdateWords, top=("update",)
)
def container_update(engine: Engine, words: UpdateWords) -> InProgress[Lines | None]:
    if words.restart:
        Policy.parse(words.restart)

    def update(container: Container) -> None:
        if limits_of(words) or not words.restart:
            engine.resources.update(container, words)
        if words.restart:
            engine.life.change_restart(container, words.restart)
        engine.events.container(container, "update")

    return on_each(engine, words.names, "update", update)


@command("container", "pause", "stop all processes of containers where they are", Names, top=("pause",))
def container_pause(engine: Engine, words: Names) -> InProgress[Lines | None]:
    return on_each(engine, words.names, "pause", engine.resources.pause)


@command("container", "unpause", "let paused containers go on", Names, top=("unpause",))
def container_unpause(engine: Engine, words: Names) -> InProgress[Lines | None]:
    return on_each(engine, words.names, "unpause", engine.resources.unpause)
