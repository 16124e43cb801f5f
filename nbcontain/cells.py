"""Cells in containers: the body of %%container run and %%container exec is the program, or what the program reads.

Without a command the body is a script: its first line (#!) says what runs it, or --interpreter does, or it is the first
shell that the container has. With a command the body is its standard input.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nbcontain.display.values import InProgress
from nbcontain.docker_words import KNOWN_FLAGS
from nbcontain.errors import CommandNotFound, ContainerError, ContainerFailed, Span, UsageError
from nbcontain.exchange import Exchange
from nbcontain.handles import Container
from nbcontain.options import option, parse, parser_of, with_defaults
from nbcontain.runtime.annotations import DEFAULT_PATH
from nbcontain.runtime.bundle_writer import write_spec
from nbcontain.runtime.generate import ExecOptions, RunOptions
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.variables import Variables

_SHELLS = ("sh", "bash", "ash", "dash", "python3", "python", "node", "Rscript", "ruby", "perl")
_SUFFIXES = {"python": ".py", "node": ".js", "Rscript": ".R", "ruby": ".rb", "perl": ".pl", "sh": ".sh", "bash": ".sh",
             "ash": ".sh", "dash": ".sh", "zsh": ".sh", "php": ".php", "lua": ".lua"}  # fmt: skip
_BESIDES = {"python": ("-u",)}
"""Flags without which it would keep to itself what it has to say, until the end."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CellRunOptions(RunOptions):
    """What %%container run can be told."""

    interpreter: str = option("--interpreter", help="what runs the cell: sh, python3, Rscript …", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CellExecOptions(ExecOptions):
    """What %%container exec can be told."""

    interpreter: str = option("--interpreter", help="what runs the cell: sh, python3, Rscript …", metavar="NAME")


CELL_OPTIONS: dict[str, type[CellRunOptions] | type[CellExecOptions]] = {
    "run": CellRunOptions, "exec": CellExecOptions,
}  # fmt: skip
_ABOUT = "run the script in this cell in a container; with a command, the cell is what that reads"


def help_text(verb: str) -> str:
    """What `%%container run --help` and `%%container exec --help` print."""
    return parser_of(CELL_OPTIONS[verb], f"%%container {verb}", _ABOUT).format_help()


@dataclass(frozen=True, slots=True)
class Script:
    """The body of a cell as a program. `interpreter` is empty where nobody said what runs it."""

    text: str
    interpreter: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: str, interpreter: str, arguments: Sequence[str]) -> Script:
        """What the cell says, or the flag. Raises UsageError."""
        first = body.partition("\n")[0]
        said = interpreter or (first[2:].strip() if first.startswith("#!") else "")
        try:
            return cls(body, tuple(shlex.split(said)), tuple(arguments))
        except ValueError as error:
            raise UsageError(f"cannot read what runs the cell: {said}", why=str(error)) from error

    def name(self, interpreter: Sequence[str]) -> str:
        """What its file is called, so that error messages read well."""
        return "cell" + _SUFFIXES.get(_program(interpreter), "")

    def command(self, interpreter: Sequence[str], path: str) -> tuple[str, ...]:
        """What is to be executed."""
        return (*interpreter, *_BESIDES.get(_program(interpreter), ()), path, *self.arguments)


def _program(interpreter: Sequence[str]) -> str:
    """Which program that is: "python" of /usr/bin/env python3.12."""
    words = [word for word in interpreter if not word.startswith("-") and "=" not in word]
    names = [posixpath.basename(word) for word in words]
    name = names[1] if names[:1] == ["env"] and len(names) > 1 else names[0] if names else ""
    return "python" if re.fullmatch(r"python[\d.]*", name) else name


class ScriptFailed(ContainerFailed):
    """A cell's script that ended otherwise than with 0, drawn at the line that it complained of."""

    def __init__(self, error: ContainerFailed, script: str, line: int) -> None:
        super().__init__(error.message, error.exit_code, why=error.why, hint=error.hint, result=error.result)
        self._script, self._line = script, line

    def excerpt(self) -> list[str]:
        from nbcontain.errors import draw_excerpt

        return draw_excerpt(self._script, Span(self._line, self._line))


@dataclass(slots=True)
class Cell:
    """A cell on its way into a container."""

    progress: InProgress[Any]
    script: Script | None = None
    place: list[str] = field(default_factory=list)
    """Where the script is inside, once it is."""

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Errors of the script are raised with the line of it that its last message names."""
        try:
            yield
        except ContainerFailed as error:
            line = self._line(error)
            if line is None or self.script is None:
                raise
            raise ScriptFailed(error, self.script.text, line) from None

    def _line(self, error: ContainerFailed) -> int | None:
        if not self.place or error.result is None:
            return None
        said = error.result.stderr or error.result.stdout
        lines = re.findall(rf'{re.escape(self.place[0])}(?:", line |: line |:\s?| line )(\d+)', said)
        return int(lines[-1]) if lines else None


def cell_of(engine: Engine, line: str, body: str, variables: Variables) -> Cell:
    """What a %%container cell asks for, begun. Raises UsageError, and HelpAsked for --help."""
    words = variables.words(line)
    verb = words[0] if words else ""
    if verb not in CELL_OPTIONS:
        raise UsageError(
            f"%%container {verb}: a cell can be run, or executed in a container", hint="%%container run IMAGE, or "
            "%%container exec NAME; on one line it is %container",
        )  # fmt: skip
    options: Any = parse(
        CELL_OPTIONS[verb], f"%%container {verb}", _ABOUT, words[1:], KNOWN_FLAGS.get(f"container {verb}", {})
    )
    command = options.command[1:] if options.command[:1] == ("--",) else options.command
    if options.tty or options.interactive:
        raise UsageError(f"%%container {verb}: a cell is no terminal", hint=f"%container {verb} -it")
    exchange = Exchange.of(options, variables)
    script = Script.of(body, options.interpreter, command) if options.interpreter or not command else None
    if script is None:
        if options.stdin:
            raise UsageError("the cell is what the command reads, and so is --stdin", hint="say one of them")
        exchange = replace(exchange, stdin=body)
        options = replace(options, command=command)
    start = _run if verb == "run" else _exec
    return start(engine, options, exchange, script)


def _run(engine: Engine, options: CellRunOptions, exchange: Exchange, script: Script | None) -> Cell:
    facts = (("network", " ".join(options.network) or engine.networks.default()),)
    log = "" if options.remove else "%container logs shows all of it"
    place: list[str] = []
    if script is not None:
        # What runs it is known when the container's files are there.
        options = replace(options, entrypoint="", command=script.command(script.interpreter or ("sh",), "/cell"))
        exchange = replace(exchange, prepare=lambda container: _set_program(container, script, place))
    task = exchange.run(engine.isolated(options.isolation), options)
    progress = InProgress(task, "run", facts=facts, whole_log=log, becomes="container" if options.detach else "")
    return Cell(progress, script, place)


def _set_program(container: Container, script: Script, place: list[str]) -> None:
    """Have a container that was made run the script."""
    spec = container.bundle.spec
    interpreter = script.interpreter or _found(container, spec.process.env)
    path = f"/{script.name(interpreter)}"
    container.engine.transfers.write(container, path, script.text.encode(), 0o755)
    args = script.command(interpreter, path)
    write_spec(container.bundle, replace(spec, process=replace(spec.process, args=args)))
    container.bundle.write_info(command=args)
    place.append(path)


def _exec(engine: Engine, options: CellExecOptions, exchange: Exchange, script: Script | None) -> Cell:
    if options.detach:
        raise UsageError("%%container exec -d: nobody would see what the cell says", hint="%container exec -d NAME CMD")
    container = engine.running(options.name)
    place: list[str] = []
    around: Callable[[Container], Any] = exchange.around
    interpreter: Sequence[str] = ()
    if script is not None:
        interpreter = script.interpreter or _found(container, container.bundle.spec.process.env)
        # Memory of the container's own, and no part of its layer.
        directory = "/dev/shm" if engine.transfers.kind(container, "/dev/shm") == "directory" else "/tmp"  # noqa: S108
        path = f"{directory}/{os.urandom(3).hex()}-{script.name(interpreter)}"
        options = replace(options, command=script.command(interpreter, path))
        around = _with_script(exchange, script.text, path)
        place.append(path)
    task = engine.exec(options, stdin=exchange.stdin, around=around)
    # Its command line tells of a file that is the cell.
    title = f"{_program(interpreter)} in {options.name}" if script is not None else ""
    return Cell(InProgress(task, "exec", title=title), script, place)


def _with_script(exchange: Exchange, text: str, path: str) -> Callable[[Container], Any]:
    @contextmanager
    def around(container: Container) -> Iterator[None]:
        container.engine.transfers.write(container, path, text.encode(), 0o755)
        try:
            with exchange.around(container):
                yield
        finally:
            # The script may have ended its container too; what is told is how the script went.
            with suppress(ContainerError, FileNotFoundError):
                container.engine.transfers.remove(container, path)

    return around


def _found(container: Container, env: Sequence[str]) -> tuple[str]:
    """The first shell or interpreter that a container has. Raises CommandNotFound."""
    path = dict(each.partition("=")[::2] for each in env).get("PATH", DEFAULT_PATH)
    places = [f"{directory}/{name}" for name in _SHELLS for directory in path.split(":") if directory]
    found = container.engine.transfers.first_there(container, places)
    if not found:
        raise CommandNotFound(
            f"{container.image} has nothing that runs a script", why=f"none of {', '.join(_SHELLS)} is in {path}",
            hint="--interpreter names one",
        )  # fmt: skip
    return (found,)
