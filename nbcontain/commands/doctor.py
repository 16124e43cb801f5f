"""`doctor`: what this machine allows, why not, and what to try."""

from __future__ import annotations

from nbcontain.commands.table import Nothing, command
from nbcontain.diagnosis import diagnosed
from nbcontain.display.table import Column, Table
from nbcontain.engine import Engine


@command("nbcontain", "doctor", "what this machine allows, why not, and what to try", Nothing)
def doctor(engine: Engine, _: Nothing) -> Table:
    rows = tuple((each.state, each.what, each.why, each.attempt) for each in diagnosed(engine))
    columns = ("HERE", Column("WHAT", look="wide"), Column("WHY", look="wide"), Column("TRY", look="wide"))
    return Table(columns, rows, engine.profile.describe(engine.host))
