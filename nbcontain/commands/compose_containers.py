"""What compose does with one container of a service: `cp`, `attach`, `commit`, `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.commands.archives import Committing, CommitWords, ExportWords, container_commit, container_export
from nbcontain.commands.compose import ComposeWords, said
from nbcontain.commands.containers import Attaching, AttachWords, container_attach
from nbcontain.commands.copies import CpWords, container_cp, parted
from nbcontain.commands.table import command
from nbcontain.display.values import InProgress
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
    index: int = option("--index", help="which of the service's containers (into all of them, out of the first)",
                        default=0, metavar="NUMBER")  # fmt: skip


@command("compose", "cp", "copy files between a service's containers and this machine", ComposeCpWords)
def compose_cp(engine: Engine, words: ComposeCpWords) -> object:
    project = engine.compose.name(words.source)
    (of_source, _), (service, path) = parted(words.source_path), parted(words.dest)
    if service and not of_source and not words.index:
        containers = engine.compose.containers(project, (service,))
        task = engine.transfers.into_all(
            words.source_path, containers, path, archive=words.archive, follow=words.follow
        )
        return InProgress(task, "work")

    def of_container(text: str) -> str:
        service, path = parted(text)
        return f"{engine.compose.container(project, service, words.index or 1).id}:{path}" if service else text

    return container_cp(engine, CpWords(
        source=of_container(words.source_path), dest=of_container(words.dest), archive=words.archive,
        follow=words.follow,
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class OneWords(ComposeWords):
    """Which container is meant."""

    service: str = argument(help="a service", metavar="SERVICE")
    index: int = option("--index", help="which of the service's containers", default=1, metavar="NUMBER")

    def of(self, engine: Engine) -> str:
        """Its id. Raises UsageError."""
        return engine.compose.container(engine.compose.name(self.source), self.service, self.index).id


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeAttachWords(OneWords, Attaching):
    """What `compose attach` can be told."""


@command("compose", "attach", "a service's container's card; on a terminal: what it says, and what you type",
         ComposeAttachWords)  # fmt: skip
def compose_attach(engine: Engine, words: ComposeAttachWords) -> object:
    return container_attach(engine, AttachWords(name=words.of(engine), **said(words, Attaching)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeCommitWords(OneWords, Committing):
    image: str = argument(help="what to call the image", nargs="?", default="", metavar="NAME")
    # -p is the project's name here.
    pause: bool = option("--pause", help="let it stand still while its files are read")


@command("compose", "commit", "make an image of a service's container and what it changed", ComposeCommitWords)
def compose_commit(engine: Engine, words: ComposeCommitWords) -> object:
    return container_commit(engine, CommitWords(
        container=words.of(engine), name=words.image, pause=words.pause, **said(words, Committing)
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ComposeExportWords(OneWords):
    output: str = option("-o", "--output", help="the file to write (standard output unless said)", default="-")


@command("compose", "export", "write the file system of a service's container as a tar", ComposeExportWords)
def compose_export(engine: Engine, words: ComposeExportWords) -> object:
    return container_export(engine, ExportWords(name=words.of(engine), output=words.output))
