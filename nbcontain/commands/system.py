"""The commands on the engine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain import __version__
from nbcontain.commands.containers import ContainerInspectWords
from nbcontain.commands.images import Described, inspected
from nbcontain.commands.table import Nothing, command
from nbcontain.display.table import Column, Table
from nbcontain.display.template import Template
from nbcontain.display.values import Document, InProgress, Lines
from nbcontain.display.words import size
from nbcontain.errors import ContainerNotFound, UsageError
from nbcontain.inspection import container_document, facts, image_document, info_document, version_document
from nbcontain.options import option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class FormatWords:
    format: str = option("-f", "--format", help="json, or a template over docker's names", metavar="json|TEMPLATE")


@command("system", "info", "where things are kept, how many, and what is isolated here", FormatWords)
@command("nbcontain", "info", "where things are kept, how many, and what is isolated here", FormatWords)
def info(engine: Engine, words: FormatWords) -> Table | Lines:
    if words.format:
        return _formatted(info_document(engine), words.format)
    columns = ("WHAT", Column("HERE", look="wide"))
    return Table(columns, tuple(facts(engine).items()), f"nbcontain {__version__}", "nbcontain on this machine")


@command("nbcontain", "prune", "remove images without a name, unused layers and old build steps", Nothing)
def prune(engine: Engine, _: Nothing) -> InProgress[Lines]:
    def body(emit: Any) -> Lines:
        return Lines((f"freed {size(engine.prune())}",))

    return InProgress(Task("prune", body), "work")


@command("nbcontain", "version", "this program's version", FormatWords)
def version(engine: Engine, words: FormatWords) -> Lines:
    return _formatted(version_document(), words.format) if words.format else Lines((f"nbcontain {__version__}",))


def _formatted(document: dict[str, Any], format: str) -> Lines:
    """One document as a template, or as JSON in one line."""
    return Lines((Template.parse("{{json .}}" if format == "json" else format).render(document),))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class InspectWords(ContainerInspectWords):
    type: str = option("--type", help="container or image, where both have the name", metavar="TYPE")


@command("nbcontain", "inspect", "a container or an image, as JSON", InspectWords)
def inspect(engine: Engine, words: InspectWords) -> Document | Lines:
    if words.type not in ("", "container", "image"):
        raise UsageError(f"inspect --type {words.type}: there is no such thing here", hint="container or image")

    def describe(name: str) -> Described:
        try:
            if words.type == "image":
                raise ContainerNotFound(name)
            return "container", container_document(engine, engine.container(name), size=words.size)
        except ContainerNotFound:
            if words.type == "container":
                raise
            return "image", image_document(engine, name)

    return inspected(words.names, describe, words.format)
