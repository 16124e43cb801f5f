"""`terminal`: a shell in a running container, in a cell or on one's own terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain import detach_keys as keys
from nbcontain.commands.table import command
from nbcontain.display.values import Interactive
from nbcontain.options import REST, argument, option, with_defaults
from nbcontain.runtime.generate import ExecOptions
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine

SHELL = ("sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")
"""bash where there is one."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TerminalWords:
    """What `terminal` can be told."""

    name: str = argument(help="a running container", metavar="CONTAINER")
    command: tuple[str, ...] = argument(help="a program in place of the shell", nargs=REST, metavar="COMMAND")
    user: str = option("-u", "--user", help="user[:group], by name or number", metavar="USER")
    workdir: str = option("-w", "--workdir", help="the directory to run in", metavar="DIR")


@command("container", "terminal", "a shell in a running container: exec -it, with bash where there is one",
         TerminalWords)  # fmt: skip
def container_terminal(engine: Engine, words: TerminalWords) -> Interactive:
    engine.running(words.name)
    options = ExecOptions(
        name=words.name, command=words.command or SHELL, user=words.user, workdir=words.workdir, interactive=True,
        tty=True,
    )  # fmt: skip
    return Interactive(lambda size, _: engine.consoles.exec(options, size), keys.DEFAULT, types=True, is_raw=True)
