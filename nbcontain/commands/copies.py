"""`cp`: files in and out of containers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import InProgress
from nbcontain.errors import UsageError
from nbcontain.events import scope
from nbcontain.exchange import FILES, FileNames
from nbcontain.options import argument, option, with_defaults
from nbcontain.task import Task
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.events import Emit


_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CpWords:
    """What `cp` can be told."""

    source: str = argument(
        help="CONTAINER:PATH, a path of this machine, or - for a tar; in a notebook {NAME} for a variable",
        metavar="SOURCE",
    )  # fmt: skip
    dest: str = argument(help="the other of them", metavar="DEST")
    archive: bool = option("-a", "--archive", help="with the owners that they have")
    follow: bool = option("-L", "--follow-link", help="what a symlink leads to, in place of itself")
    quiet: bool = option("-q", "--quiet", help="say nothing")
    names: FileNames = FILES
    """What {NAME} stands for; a terminal has no variables."""

    def variable(self, text: str) -> str:
        """The name in {NAME}; "" where that is a path like others."""
        match = _VARIABLE.fullmatch(text)
        return "" if match is None or self.names is FILES else match[1]


@command("container", "cp", "copy files between a container and this machine; - is a tar", CpWords, top=("cp",))
def container_cp(engine: Engine, words: CpWords) -> InProgress[None]:
    (source_name, source), (dest_name, dest) = parted(words.source), parted(words.dest)
    if source_name and dest_name:
        raise UsageError("cp: copying between containers is not supported", hint="cp a:/x - | … cp - b:/")
    if not source_name and not dest_name:
        raise UsageError("cp: one of both has to be in a container", hint="cp CONTAINER:/path .")
    if source_name and (variable := words.variable(dest)):
        container = engine.container(source_name)
        words.names.require(variable, source)
        task = _task(words, lambda: words.names.give(variable, source, engine.transfers.read(container, source)))
    elif dest_name and (variable := words.variable(words.source)):
        from nbcontain import objects

        container, value = engine.container(dest_name), words.names.named(variable)
        data = objects.content(dest, value)
        task = _task(words, lambda: engine.transfers.write(container, dest, data))
    elif source_name:
        container = engine.container(source_name)
        if dest == "-" and sys.stdout.isatty():
            raise UsageError("cp: a tar is nothing for a terminal", hint="| tar tv, or > FILE")
        task = engine.transfers.out(container, source, dest, archive=words.archive, follow=words.follow)
    else:
        container = engine.container(dest_name)
        task = engine.transfers.into(source, container, dest, archive=words.archive, follow=words.follow)
    return InProgress(task, "work", quiet=words.quiet)


def _task(words: CpWords, body: Callable[[], None]) -> Task[None]:
    def told(emit: Emit) -> None:
        with scope(emit, "cp", f"cp {words.source} {words.dest}"):
            body()

    return Task("cp", told)


def parted(text: str) -> tuple[str, str]:
    """docker's: CONTAINER:PATH, unless it begins like a path: ./a:b is a file."""
    if text.startswith(("/", ".")) or text == "-":
        return "", text
    name, colon, path = text.partition(":")
    return (name, path) if colon and re.fullmatch(r"[\w.-]+", name) else ("", text)
