"""%%compose: a compose file in a cell. The last one is what `%compose ps` and its like speak of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain.cells import Cell
from nbcontain.commands.compose import ComposeWords
from nbcontain.commands.table import parse_words
from nbcontain.display.values import InProgress, Log
from nbcontain.events import Emit
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_GLOBALS = ("-p", "--project-name", "--project-directory", "--profile", "--env-file")


class ComposeCells:
    """One session's."""

    def __init__(self) -> None:
        self._last: ComposeWords | None = None

    def seen(self, options: ComposeWords) -> ComposeWords:
        """The options of a line, which mean the last cell's project unless they name a file or another project."""
        last = self._last
        if last is None or options.files or options.project not in ("", last.project):
            return options
        return replace(
            options, text=last.text, project=last.project, directory=options.directory or last.directory,
            env_files=options.env_files or last.env_files, profiles=options.profiles or last.profiles,
        )  # fmt: skip

    def cell(self, engine: Engine, words: list[str], body: str) -> Cell:
        """What such a cell begins; without a command it is `up -d`. Raises UsageError, HelpAsked."""
        command, options = parse_words("compose", words if _has_verb(words) else [*words, "up", "-d"])
        options = replace(options, text=body)
        # What it says is remembered even if it fails: to take down what there is.
        self._last = options
        value = command.function(engine, options)
        if isinstance(value, InProgress):
            return Cell(value)

        def give(emit: Emit) -> Any:
            if isinstance(value, Log):
                for record in value.records:
                    emit(record.event)
                return None
            return value

        return Cell(InProgress(Task(f"compose {command.name}", give), "exec" if isinstance(value, Log) else "work"))


def _has_verb(words: list[str]) -> bool:
    at = 0
    while at < len(words):
        if words[at] in _GLOBALS:
            at += 2
        elif words[at].startswith("-") and words[at] not in ("--help", "-h"):
            at += 1
        else:
            return True
    return False
