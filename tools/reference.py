"""The reference, made of what the code says: commands and their options, the Python API, errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbcontain.commands.table import Command


def write(folder: Path) -> None:
    """All its pages, as Markdown."""
    folder.mkdir()
    pages = {"nbcontain": _top(), **dict(_groups()), "cells": _cells(), "python": _python(), "errors": _errors()}
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text)
    order = "\n".join(pages)
    (folder / "index.md").write_text(
        "# Reference\n\nMade of the code: what a command says with `--help`, and what docstrings say.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{order}\n/configuration\n/glossary\n```\n"
    )


def _top() -> str:
    from nbcontain.commands import commands
    from nbcontain.commands.table import GROUPS

    nouns = "\n".join(f"| `{name}` | {_plain(text)} |" for name, text in GROUPS.items())
    shorts = " ".join(f"`{word}`" for word in sorted({word for each in commands() for word in each.top}))
    own = "\n\n".join(_command(each) for each in _of("nbcontain"))
    return (
        "# nbcontain\n\nA container engine without a daemon: `nbcontain COMMAND [OPTIONS]` on a terminal, "
        "`%nbcontain COMMAND` in a cell.\n\n"
        f"| noun | |\n|---|---|\n{nouns}\n\nDocker's short words work too: {shorts}.\n\n"
        "A command ends with 0; with the exit code of a container that it ran; or, as docker's, with 125 (the engine "
        "failed), 126 (the program cannot be executed), 127 (there is no such program), 130 (interrupted).\n\n"
        f"{own}\n"
    )


def _groups() -> Iterator[tuple[str, str]]:
    from nbcontain.commands.table import GROUPS

    for name, text in GROUPS.items():
        body = "\n\n".join(_command(each) for each in _of(name))
        yield name, f"# nbcontain {name}\n\n{_plain(text)}\n\n{body}\n"


def _of(group: str) -> list[Command]:
    from nbcontain.commands import commands

    return sorted((each for each in commands() if each.group == group), key=lambda each: each.name)


def written(command: Command) -> tuple[str, ...]:
    """How it is written: on a terminal, in a cell, and in short."""
    from nbcontain.magic_names import LINE_MAGICS

    name = command.name if command.group == "nbcontain" else f"{command.group} {command.name}"
    magic = f"%{name}" if command.group in LINE_MAGICS and command.group != "nbcontain" else f"%nbcontain {name}"
    shorts = [f"nbcontain {word}" for word in command.top]
    aliases = [f"{magic.rpartition(' ')[0]} {word}" for word in command.aliases]
    return (f"nbcontain {name}", magic, *shorts, *aliases)


def _command(command: Command) -> str:
    from nbcontain.options import parser_of

    name, *others = written(command)
    parser = parser_of(command.options, name, command.help)
    said = ", ".join(f"`{each}`" for each in others)
    return (
        f"## {name.removeprefix('nbcontain ')}\n\n{_plain(command.help)}. In a cell and in short: {said}.\n\n"
        f"```text\n{parser.format_help().rstrip()}\n```"
    )


def _cells() -> str:
    from nbcontain import cells
    from nbcontain.commands import contextfiles
    from nbcontain.commands.builds import DockerfileWords
    from nbcontain.commands.compose import UpWords
    from nbcontain.lessons import teacher
    from nbcontain.options import parser_of

    def helped(options: type, name: str, about: str) -> str:
        return parser_of(options, name, about).format_help()

    compose = "the compose file in this cell; without a COMMAND it is: up -d"
    parts = {
        "%%dockerfile": ("The cell is a Dockerfile.", helped(
            DockerfileWords, "%%dockerfile", "make an image from the Dockerfile in this cell")),
        "%%contextfile": ("The cell is a file for a build to copy.", contextfiles.help_text()),
        "%contextfile": ("What such cells wrote.", contextfiles.line_help_text()),
        "%%container run": ("The cell is a script, or what a command reads.", cells.help_text("run")),
        "%%container exec": ("The same in a container that runs.", cells.help_text("exec")),
        "%%compose": (
            "The cell is a compose file. `%%compose COMMAND` does with it what `%compose COMMAND` does with a file on "
            "the disk, and takes [its options](compose.md); these are those of `up`. What comes before the command "
            "says which project: `--project-name`, `--project-directory`, `--profile`, `--env-file`.",
            helped(UpWords, "%%compose [COMMAND]", compose)),
    }  # fmt: skip
    blocks = [f"## {name}\n\n{said}\n\n```text\n{text.rstrip()}\n```" for name, (said, text) in parts.items()]
    lessons = [f"## %{name}\n\n```text\n{teacher.documentation(name).rstrip()}\n```" for name in teacher.MAGICS]
    return (
        "# Cells and lessons\n\n`%load_ext nbcontain` gives a magic for each group of commands that has one, and "
        "`%nbcontain` for all else; these are the others. `%nbcontain alias docker` adds `%docker` and `%%docker`: "
        "docker's words, and cells like `%%container`'s. `%nbcontain shim docker` puts a program `docker` before "
        "others for `!docker` and for cells of a shell; `--off` takes it away.\n\n"
        + "\n\n".join([*blocks, *lessons]) + "\n"
    )


def _python() -> str:
    import nbcontain

    names = [name for name in nbcontain.__all__ if not name.startswith("_") and "ipython" not in name]
    parts = [_described(name, getattr(nbcontain, name)) for name in names]
    return "# Python\n\n`import nbcontain as nb`\n\n" + "\n\n".join(parts) + "\n"


def _described(name: str, value: object) -> str:
    head = f"## {name}\n\n" + _signature(f"nb.{name}", value) + _doc(value)
    # Of `nb.images` and the like, what its type has.
    kind = value if inspect.isclass(value) else type(value)
    if not kind.__module__.startswith("nbcontain"):
        return head
    members = []
    for each, member in sorted(inspect.getmembers(kind)):
        if each.startswith("_") or not _doc(member):
            continue
        if inspect.isfunction(member):
            members.append(f"**{each}**\n\n" + _signature(f".{each}", member) + _doc(member))
        elif isinstance(member, property):
            members.append(f"**{each}**\n\n" + _doc(member))
    return "\n\n".join([head, *members])


def _signature(name: str, value: object) -> str:
    if not callable(value):
        return ""
    try:
        text = str(inspect.signature(value))
    except (ValueError, TypeError):
        return ""
    return f"```python\n{name}{text}\n```\n\n"


def _doc(value: object) -> str:
    text = inspect.getdoc(value) or ""
    return "\n\n".join(_plain(" ".join(part.split())) for part in text.split("\n\n"))


def _errors() -> str:
    from nbcontain import errors

    rows = []
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.NbcontainError):
            doc = _plain(" ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()))
            hint = _plain(value.hint) if isinstance(value.hint, str) else ""
            rows.append(f"| `{name}` | {doc} | {hint} | {value.exit_status} |")
    return (
        "# Errors\n\nEach is an `nbcontain.NbcontainError` with `message`, `why` and `hint`, and is shown as these "
        "three lines. The last column is what a terminal's command ends with.\n\n"
        "| error | is | what to try | exit |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _plain(text: str) -> str:
    """Other people's punctuation: nothing of it is Markdown, but code is."""
    pieces = re.split(r"(`+[^`]+`+)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_\[\]<>|{}$#@])", r"\\\1", piece) for piece in pieces
    )
