"""`container explain`, the same process from both sides, and `container open`, its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.opened import Opened
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


@dataclass(frozen=True, kw_only=True)
@with_defaults
class OpenWords:
    name: str = argument(help="a container that runs, and its port", metavar="NAME[:PORT]")
    path: str = argument(help="where on it", nargs="?", default="/", metavar="PATH")
    height: int = option("--height", help="of the frame, in pixels (420)", default=420)
    external: bool = option("--external", help="only say where this machine's browsers find it")


@command("container", "open", "a container's page, here in the notebook; its port need not be published", OpenWords)
def container_open(engine: Engine, words: OpenWords) -> Opened:
    name, _, port = words.name.partition(":")
    container = engine.running(name)
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"container open {words.name}: that is no port", hint=f"%container open {name}:8000")
    number = int(port) if port else engine.pages.guess(container)
    address = engine.pages.address(container, number)
    if words.external and not address:
        raise UsageError(f"port {number} of {name} is not published", hint=f"run it with -p {number}, or open it here")
    path = words.path if words.path.startswith("/") else f"/{words.path}"
    return Opened(engine.pages.visit(container, number), path, address, max(100, words.height), words.external,
                  engine.pages.elsewhere(container, number))  # fmt: skip
