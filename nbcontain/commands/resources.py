"""Commands about what containers use of the machine: stats, update, pause and unpause."""

from __future__ import annotations

from nbcontain.commands.containers import on_each
from nbcontain.commands.table import Names, command
from nbcontain.display.table import Table
from nbcontain.display.values import InProgress, Lines
from nbcontain.display.words import size
from nbcontain.engine import Engine
from nbcontain.events import Emit
from nbcontain.options import argument, option, with_defaults
from nbcontain.resources import Look
from nbcontain.runtime.resources import LimitOptions
from nbcontain.task import Task
from nbcontain.values import dataclass


@dataclass(frozen=True, kw_only=True)
@with_defaults
class StatsWords:
    """What `stats` can be told."""

    names: tuple[str, ...] = argument(help="containers; all that run unless named", nargs="*", metavar="CONTAINER")
    no_stream: bool = option("--no-stream", help="one look, which is what there is")
    no_trunc: bool = option("--no-trunc", help="ids in full")


@command("container", "stats", "what running containers use of the machine, at one look", StatsWords, top=("stats",))
def container_stats(engine: Engine, words: StatsWords) -> InProgress[Table]:
    def body(emit: Emit) -> Table:
        found = [engine.container(name) for name in words.names] or engine.containers()
        looks = engine.resources.look([each for each in found if each.status == "running"])
        rows = tuple(_row(each, full=words.no_trunc) for each in looks)
        columns = ("ID", "NAME", "CPU", "MEMORY", "LIMIT", "DISK IN / OUT", "PROCESSES")
        return Table(columns, rows, f"{len(rows)} running; CPU is of one processor", "stats")

    return InProgress(Task("stats", body), "work")


def _row(look: Look, *, full: bool) -> tuple[str, ...]:
    now = look.after
    disk = "–" if now.read is None or now.written is None else f"{size(now.read)} / {size(now.written)}"
    return (
        look.container.id if full else look.container.id[:12],
        look.container.name,
        f"{look.cpu_percent:.1f} %",
        size(now.memory),
        size(now.memory_limit) if now.memory_limit is not None else "none",
        disk,
        str(now.pids),
    )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class UpdateWords(LimitOptions):
    """What `update` can be told."""

    names: tuple[str, ...] = argument(help="containers", nargs="+", metavar="CONTAINER")


@command(
    "container", "update", "change what containers may use, now and at their next start", UpdateWords, top=("update",)
)
def container_update(engine: Engine, words: UpdateWords) -> InProgress[Lines]:
    return on_each(engine, words.names, "update", lambda container: engine.resources.update(container, words))


@command("container", "pause", "stop all processes of containers where they are", Names, top=("pause",))
def container_pause(engine: Engine, words: Names) -> InProgress[Lines]:
    return on_each(engine, words.names, "pause", engine.resources.pause)


@command("container", "unpause", "let paused containers go on", Names, top=("unpause",))
def container_unpause(engine: Engine, words: Names) -> InProgress[Lines]:
    return on_each(engine, words.names, "unpause", engine.resources.unpause)
