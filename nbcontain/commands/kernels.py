"""The commands on Jupyter kernels that run inside of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.commands.table import ListWords, Names, command, of_each
from nbcontain.display.table import Column, Table
from nbcontain.display.values import InProgress, Lines
from nbcontain.display.words import count
from nbcontain.errors import UsageError
from nbcontain.events import Emit
from nbcontain.kernels import KernelEntry, KernelOptions
from nbcontain.options import argument, option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass, fields

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class KernelAddWords(KernelOptions):
    """What `kernel add` can be told: the kernel's name, and how its container is run."""

    image: str = argument(help="an image with a kernel in it")
    more: tuple[str, ...] = argument(help="nothing: what is run is the image's kernel", nargs="*", metavar="")
    name: str = option("--name", help="what to call the kernel", metavar="NAME")
    display_name: str = option("--display-name", help="what launchers call it", metavar="TEXT")
    sys_prefix: bool = option("--sys-prefix", help="for this Python's own Jupyter, not for all of this user's")


@command("kernel", "add", "make Jupyter know the kernel of an image, to be run in a container", KernelAddWords)
def kernel_add(engine: Engine, words: KernelAddWords) -> InProgress[KernelEntry]:
    if words.more:
        raise UsageError(
            f"kernel add: {words.more[0]!r} comes behind the image", why="it is the image's kernel that is run",
            hint="options stand before or behind the image, and begin with -",
        )  # fmt: skip
    options = KernelOptions(**{each.name: getattr(words, each.name) for each in fields(KernelOptions)})
    directory = None
    if words.sys_prefix:
        import sys

        directory = Path(sys.prefix) / "share/jupyter/kernels"

    def body(emit: Emit) -> KernelEntry:
        return engine.kernels.add(
            words.image, options, emit, name=words.name, display_name=words.display_name, directory=directory
        )

    return InProgress(Task("kernel add", body), "pull")


@command("kernel", "ls", "list the kernels of images that Jupyter knows", ListWords, aliases=("list",))
def kernel_ls(engine: Engine, words: ListWords) -> Table | Lines:
    found = engine.kernels.all()
    if words.quiet:
        return Lines(tuple(each.name for each in found))
    running = engine.kernels.running()
    rows = tuple(
        (each.name, each.display_name, each.image, " ".join(each.options), running.get(each.name, 0)) for each in found
    )
    columns = (
        Column("NAME", look="code"), "IN THE LAUNCHER", "IMAGE", Column("RUN WITH", look="code"),
        Column("RUNNING", look="num"),
    )  # fmt: skip
    return Table(columns, rows, f"{count(len(rows), 'kernel')} in images", "kernels")


@command("kernel", "rm", "make Jupyter forget kernels of images; images stay", Names, aliases=("remove",))
def kernel_rm(engine: Engine, words: Names) -> Lines:
    def remove(name: str) -> list[str]:
        engine.kernels.remove(name)
        return [name]

    return Lines(of_each(words.names, remove))
