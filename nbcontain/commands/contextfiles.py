"""%%contextfile: files of a build context that are written in a notebook and never on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from nbcontain.build.named import remote_of, variable
from nbcontain.build.sources import MemoryFile, Source, checked
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Lines
from nbcontain.display.words import count, size
from nbcontain.errors import UsageError
from nbcontain.oci.image import Image
from nbcontain.options import argument, option, parse, parser_of, with_defaults
from nbcontain.values import dataclass

_NOTHING: dict[str, str] = {}
_ABOUT = "write this cell into the notebook's own build context, which %%dockerfile cells take files from"
_ABOUT_LINE = "list what %%contextfile cells wrote"


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ContextFileWords:
    path: str = argument(help="where in the context", metavar="PATH")
    chmod: str = option("--chmod", help="its mode in octal, as in 755", default="644", metavar="MODE")
    context: str = option("--context", help="one of several contexts, chosen by %%dockerfile --context", metavar="NAME")
    append: bool = option("-a", "--append", help="add to what is there")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ContextFilesWords:
    context: str = argument(help="one context", nargs="?", default="", metavar="NAME")
    clear: bool = option("--clear", help="forget its files, or without NAME everybody's")


def help_text() -> str:
    """The text behind `%%contextfile?`."""
    return parser_of(ContextFileWords, "%%contextfile", _ABOUT).format_help()


def line_help_text() -> str:
    """What `%contextfile --help` prints."""
    return parser_of(ContextFilesWords, "%contextfile", _ABOUT_LINE).format_help()


class ContextFiles:
    """The in-memory contexts of one kernel, by name; "" is the one that %%dockerfile takes by itself."""

    def __init__(self) -> None:
        self._contexts: dict[str, dict[str, MemoryFile]] = {}

    def named(self) -> dict[str, Source]:
        """All that have a name."""
        return {name: dict(held) for name, held in self._contexts.items() if name}

    def source(self, asked: str, variables: Mapping[str, object] | None = None) -> Source:
        """What --context means: one of these by its name, a variable, a URL, or a directory. Raises UsageError."""
        if asked in self._contexts:
            return dict(self._contexts[asked])
        if asked.startswith("var:"):
            found = variable(f"--context {asked}", asked[4:], variables)
            if isinstance(found, Image):
                raise UsageError(f"--context {asked}: it is an image", hint="--build-context NAME=var:… takes one")
            return cast(Source, found)
        if remote := remote_of(asked):
            return remote
        directory = Path(asked or ".").expanduser()
        if os.path.isdir(directory):
            return directory
        known = [name for name in self._contexts if name]
        raise UsageError(
            f"--context {asked}: there is no such directory",
            why=f"looked for {directory.absolute()}",
            hint=f"In memory there are {', '.join(known)}."
            if known
            else "%%contextfile PATH --context NAME makes one.",
        )

    def write(self, words: Sequence[str], body: str) -> Lines:
        """A cell becomes a file."""
        options = parse(ContextFileWords, "%%contextfile", _ABOUT, words, _NOTHING)
        path = checked(options.path)
        if len(options.chmod) > 4 or not all(digit in "01234567" for digit in options.chmod):
            raise UsageError(f"--chmod {options.chmod} is no mode", hint="--chmod 755")
        files = self._contexts.setdefault(options.context, {})
        if any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in files):
            raise UsageError(f"{path}: one file cannot be in another", hint="%contextfile lists what is there")
        old = files[path].data if options.append and path in files else b""
        files[path] = MemoryFile(old + body.encode(), int(options.chmod, 8))
        where = f" of {options.context}" if options.context else ""
        return Lines((f"{path}{where}: {size(len(files[path].data)) or '0 B'}",))

    def look(self, words: Sequence[str]) -> Table | Lines:
        """List them, or with --clear forget them."""
        options = parse(ContextFilesWords, "%contextfile", _ABOUT_LINE, words, _NOTHING)
        wanted = [name for name in self._contexts if not options.context or name == options.context]
        if options.context and not wanted:
            raise UsageError(f"there is no context {options.context} in memory", hint="%contextfile lists all")
        if options.clear:
            gone = sum(len(self._contexts.pop(name)) for name in wanted)
            return Lines((f"forgot {count(gone, 'file')}",))
        rows = [
            (name or "(default)", path, f"{each.mode:o}", len(each.data))
            for name in wanted
            for path, each in sorted(self._contexts[name].items())
        ]
        columns = (Column("CONTEXT"), Column("FILE", look="code"), Column("MODE"), Column("SIZE", size, "num"))
        return Table(columns, rows, count(len(rows), "file"), "files in memory")
