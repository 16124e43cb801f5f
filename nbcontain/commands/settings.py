"""`config`: what is set, and where that is from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.table import Column, Table
from nbcontain.options import argument, with_defaults
from nbcontain.settings import Settings
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ConfigWords:
    settings: tuple[str, ...] = argument(help="what to set, for as long as this lasts; nothing after = takes it back",
                                         nargs="*", metavar="NAME=VALUE")  # fmt: skip


@command("nbcontain", "config", "what is set, where that is from, and setting it", ConfigWords)
def config(engine: Engine, words: ConfigWords) -> Table:
    settings = engine.environ if isinstance(engine.environ, Settings) else Settings(engine.environ)
    for each in words.settings:
        name, _, value = each.partition("=")
        settings.set(name.strip(), value.strip())
    columns = ("NAME", Column("VALUE", look="code"), Column("FROM", look="wide"), Column("WHAT", look="wide"))
    footer = "%config NbContain.NAME = …, a variable of the environment, or [tool.nbcontain] in pyproject.toml"
    return Table(columns, settings.rows(), footer, "settings")
