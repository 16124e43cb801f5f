"""`cp`: files in and out of containers."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import InProgress
from nbcontain.errors import UsageError
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CpWords:
    """What `cp` can be told."""

    source: str = argument(help="CONTAINER:PATH, a path of this machine, or - for a tar", metavar="SOURCE")
    dest: str = argument(help="the other of them", metavar="DEST")
    archive: bool = option("-a", "--archive", help="with the owners that they have")
    follow: bool = option("-L", "--follow-link", help="what a symlink leads to, in place of itself")
    quiet: bool = option("-q", "--quiet", help="say nothing")


@command("container", "cp", "copy files between a container and this machine; - is a tar", CpWords, top=("cp",))
def container_cp(engine: Engine, words: CpWords) -> InProgress[None]:
    (source_name, source), (dest_name, dest) = parted(words.source), parted(words.dest)
    if source_name and dest_name:
        raise UsageError("cp: copying between containers is not supported", hint="cp a:/x - | … cp - b:/")
    if not source_name and not dest_name:
        raise UsageError("cp: one of both has to be in a container", hint="cp CONTAINER:/path .")
    if source_name:
        container = engine.container(source_name)
        if dest == "-" and sys.stdout.isatty():
            raise UsageError("cp: a tar is nothing for a terminal", hint="| tar tv, or > FILE")
        task = engine.transfers.out(container, source, dest, archive=words.archive, follow=words.follow)
    else:
        container = engine.container(dest_name)
        task = engine.transfers.into(source, container, dest, archive=words.archive, follow=words.follow)
    return InProgress(task, "work", quiet=words.quiet)


def parted(text: str) -> tuple[str, str]:
    """docker's: CONTAINER:PATH, unless it begins like a path: ./a:b is a file."""
    if text.startswith(("/", ".")) or text == "-":
        return "", text
    name, colon, path = text.partition(":")
    return (name, path) if colon and re.fullmatch(r"[\w.-]+", name) else ("", text)
