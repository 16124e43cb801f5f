"""`compose cp`: files in and out of a service's containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.compose import ComposeWords
from nbcontain.commands.copies import CpWords, container_cp, parted
from nbcontain.commands.table import command
from nbcontain.options import argument, option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeCpWords(ComposeWords):
    source_path: str = argument(help="SERVICE:PATH, or a path of this machine; - is a tar", metavar="SOURCE")
    dest: str = argument(help="the other of them", metavar="DEST")
    archive: bool = option("-a", "--archive", help="with the owners that they have")
    follow: bool = option("-L", "--follow-link", help="what a symlink leads to, in place of itself")
    index: int = option("--index", help="which of the service's containers", default=1, metavar="NUMBER")


@command("compose", "cp", "copy files between a service's container and this machine", ComposeCpWords)
def compose_cp(engine: Engine, words: ComposeCpWords) -> object:
    def of_container(text: str) -> str:
        service, path = parted(text)
        if not service:
            return text
        return f"{engine.compose.container(engine.compose.name(words.source), service, words.index).id}:{path}"

    return container_cp(engine, CpWords(
        source=of_container(words.source_path), dest=of_container(words.dest), archive=words.archive,
        follow=words.follow,
    ))  # fmt: skip
