"""`board`: all containers on one card that lives; on a terminal one look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.table import Table
from nbcontain.display.values import Board
from nbcontain.display.words import size
from nbcontain.options import with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class BoardWords:
    """`board` takes nothing."""


@command("container", "board", "all containers on one card: state, CPU, memory, last line", BoardWords)
def container_board(engine: Engine, words: BoardWords) -> Board:
    def look() -> Table:
        found = [(each, each.status) for each in engine.containers()]
        running = [each for each, status in found if status == "running"]
        used = {each.container: each for each in engine.resources.look(running)}
        rows = []
        for each, status in found:
            one = used.get(each)
            figures = (f"{one.cpu_percent:.0f} %", size(one.after.memory)) if one else ("", "")
            rows.append((each.name, status, *figures))
        footer = f"{len(running)} running, {len(found) - len(running)} stopped"
        return Table(("NAME", "STATE", "CPU", "MEMORY"), tuple(rows), footer, "containers")

    return Board(look)
