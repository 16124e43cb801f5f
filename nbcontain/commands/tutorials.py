"""`tutorials`: the notebooks that teach, as copies to work in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.table import Column, Table
from nbcontain.lessons.notebooks import DIRECTORY, copy_to
from nbcontain.options import argument, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TutorialsWords:
    directory: str = argument(
        help=f"where to put them; ./{DIRECTORY} by default", nargs="?", default=DIRECTORY, metavar="DIRECTORY"
    )


@command("nbcontain", "tutorials", "copy the tutorial notebooks to a directory, to work in", TutorialsWords)
def tutorials(engine: Engine, words: TutorialsWords) -> Table:
    directory = Path(words.directory).expanduser()
    rows = tuple(
        (str(each.path), each.title, "copied" if each.is_new else "was there: left as it is")
        for each in copy_to(directory)
    )
    columns = (Column("NOTEBOOK", look="code"), Column("TITLE", look="wide"), "STATE")
    return Table(columns, rows, f"begin with {rows[0][0]}", "tutorial notebooks")
