"""`board`: all containers on one card that lives; on a terminal one look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.pictures import ContainerFacts, container_state
from nbcontain.display.table import Table
from nbcontain.display.values import Board
from nbcontain.display.words import memory
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
        found = [(each, *each.look()) for each in engine.containers()]
        running = [each for each, status, _ in found if status == "running"]
        used = {each.container: each for each in engine.resources.look(running)}
        rows = []
        for each, status, state in found:
            one = used.get(each)
            figures = (f"{one.cpu_percent:.0f} %", memory(one.after.memory)) if one else ("", "")
            facts = ContainerFacts(each.id, each.name, each.image, status, exit_code=state.exit_code,
                                   oom_killed=state.oom_killed)  # fmt: skip
            rows.append((each.name, container_state(facts, None)[1], *figures))
        footer = f"{len(running)} running, {len(found) - len(running)} stopped"
        return Table(("NAME", "STATE", "CPU", "MEMORY"), tuple(rows), footer, "containers")

    return Board(look)
