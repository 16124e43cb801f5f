"""The commands on the engine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain import __version__
from nbcontain.commands.table import Names, Nothing, command
from nbcontain.display.table import Table
from nbcontain.display.values import Document, InProgress, Lines
from nbcontain.display.words import size
from nbcontain.inspection import container_document, facts, image_document
from nbcontain.options import with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@command("nbcontain", "info", "where things are kept, how many, and what is isolated here", Nothing)
def info(engine: Engine, _: Nothing) -> Table:
    return Table(("", ""), tuple(facts(engine).items()), f"nbcontain {__version__}")


@command("nbcontain", "doctor", "what this machine allows, why not, and what still works", Nothing)
def doctor(engine: Engine, _: Nothing) -> Table:
    host = engine.fresh_host()
    rows = tuple(("yes" if probe.ok else "no", ability.value, probe.why) for ability, probe in host.abilities.items())
    return Table(("HERE", "WHAT", "WHY"), rows, engine.profile.describe(host))


@command("nbcontain", "prune", "remove images without a name, unused layers and old build steps", Nothing)
def prune(engine: Engine, _: Nothing) -> InProgress[Lines]:
    def body(emit: Any) -> Lines:
        return Lines((f"freed {size(engine.prune())}",))

    return InProgress(Task("prune", body), "work")


@command("nbcontain", "version", "this program's version", Nothing)
def version(engine: Engine, _: Nothing) -> Lines:
    return Lines((f"nbcontain {__version__}",))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords(Names):
    pass


@command("nbcontain", "inspect", "a container or an image, as JSON", InspectWords)
def inspect(engine: Engine, words: InspectWords) -> Document:
    values = []
    for name in words.names:
        if any(name == each.name or each.id.startswith(name) for each in engine.containers()):
            values.append(container_document(engine, engine.container(name)))
        else:
            values.append(image_document(engine, name))
    return Document(values)
