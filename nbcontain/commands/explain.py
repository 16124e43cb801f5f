"""`container explain`: the same process from both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import Document
from nbcontain.display.xrayed import SECTIONS, Xrayed
from nbcontain.errors import UsageError
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExplainWords:
    name: str = argument(help="a container that runs")
    only: str = option("--only", help=f"some of {', '.join(SECTIONS)}", metavar="SECTION,…")
    format: str = option("--format", help="json: all of it as a document", metavar="json")


@command("container", "explain", "the same process from this machine's side and from the container's", ExplainWords)
def container_explain(engine: Engine, words: ExplainWords) -> object:
    sections = tuple(words.only.split(",")) if words.only else SECTIONS
    for each in sections:
        if each not in SECTIONS:
            raise UsageError(f"container explain --only {each}: there is no such section", hint=", ".join(SECTIONS))
    if words.format not in ("", "json"):
        raise UsageError(f"container explain --format {words.format}: json, or nothing")
    value = Xrayed(engine.sides.of(engine.container(words.name)), engine.sides, sections)
    return Document(value.to_dict()) if words.format else value
