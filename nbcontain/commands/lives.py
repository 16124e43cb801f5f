"""Commands on the life of containers that docker's first years did not have: rename, wait, healthcheck, boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import Names, Nothing, OneName, command
from nbcontain.display.values import InProgress, Lines, Verdict
from nbcontain.events import Emit
from nbcontain.life import CONDITIONS
from nbcontain.options import argument, option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RenameWords(OneName):
    """What `rename` is told."""

    new: str = argument(help="what to call it from now on", metavar="NEW_NAME")


@command("container", "rename", "give a container another name", RenameWords, top=("rename",))
def container_rename(engine: Engine, words: RenameWords) -> None:
    engine.life.rename(engine.container(words.name), words.new)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class WaitWords(Names):
    """What `wait` can be told."""

    condition: str = option("--condition", help=f"for what: {', '.join(CONDITIONS)}", default="not-running")
    ignore: bool = option("-i", "--ignore", help="-1 for those that are not there, and no error")


@command("container", "wait", "wait until containers end, and give their exit codes", WaitWords, top=("wait",))
def container_wait(engine: Engine, words: WaitWords) -> InProgress[Lines]:
    return InProgress(engine.life.wait(words.names, words.condition, Lines, ignore=words.ignore), "wait")


@command("healthcheck", "run", "check a container's health now; exit status 1 where it is not well", OneName)
def healthcheck_run(engine: Engine, words: OneName) -> InProgress[Verdict]:
    def body(emit: Emit) -> Verdict:
        result = engine.running(words.name).check()
        is_well = result["ExitCode"] == 0
        # podman's words.
        return Verdict(None if is_well else Lines(("starting" if result["Status"] == "starting" else "unhealthy",)),
                       0 if is_well else 1)  # fmt: skip

    return InProgress(Task("healthcheck", body), "work")


@command("system", "boot", "after the machine's start: what restart policies want to run is started", Nothing)
def system_boot(engine: Engine, _: Nothing) -> InProgress[Lines]:
    def body(emit: Emit) -> Lines:
        return Lines(tuple(each.name for each in engine.life.boot()))

    return InProgress(Task("boot", body), "work")

