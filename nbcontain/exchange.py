"""What goes into a container before its program begins, what it reads, and what is taken out at the end.

    --put NAME:/path   --get NAME=/path   --stdin NAME

A name is a variable of the notebook where it can be one, and else a file of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import ContainerError, UsageError
from nbcontain.runtime.generate import ExecOptions, RunOptions
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container
    from nbcontain.outcomes import RunResult
    from nbcontain.task import Task

_PUT = re.compile(r"(?P<name>.+?):(?P<path>/.*)", re.DOTALL)
_GET = re.compile(r"(?P<name>.+?)=(?P<path>/.*)", re.DOTALL)


class FileNames:
    """What names in --put, --get and --stdin stand for: files of this machine."""

    def named(self, name: str) -> Any:
        """What there is by this name. Raises UsageError."""
        path = Path(name)
        if not os.path.exists(path):
            raise UsageError(f"there is no file {name}", hint="a path, as in ./data.csv")
        return path

    def require(self, name: str, path: str) -> None:
        """Raises Unavailable where `give` could not make anything of a file called `path`: asked before the work."""

    def give(self, name: str, path: str, data: bytes) -> None:
        """Make the name stand for what a file of a container held, `path` inside. Raises UsageError, Unavailable."""
        try:
            from nbcontain.store import destinations

            destinations.write(name, data)
        except OSError as error:
            raise UsageError(f"cannot write {name}", why=error.strerror or "") from error


FILES = FileNames()
Give = Callable[[str, str, bytes], None]
"""`FileNames.give`, or what else takes what came out."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a run or exec takes in and gives out. Nothing has happened yet."""

    puts: tuple[tuple[str, Any], ...] = ()
    """Paths inside, and what is to be there: a Path, or a file's content."""
    gets: tuple[tuple[str, str], ...] = ()
    """Names, and the paths inside whose content they are to have."""
    stdin: Any = None
    give: Give = field(default=FILES.give, compare=False)
    prepare: Callable[[Container], None] | None = field(default=None, compare=False)
    """What is to be done besides, when everything has been put in."""

    @classmethod
    def of(cls, options: RunOptions | ExecOptions, names: FileNames = FILES) -> Exchange:
        """What these options ask for. What cannot be written as a file, or made of one, is told here.

        Raises UsageError, Unavailable.
        """
        from nbcontain import objects

        puts, gets = [], []
        for text in options.put:
            name, path = _parts(_PUT, "--put", text, "--put df:/data/in.csv")
            value = names.named(name)
            puts.append((path, value if isinstance(value, Path) else objects.content(path, value)))
        for text in options.get:
            name, path = _parts(_GET, "--get", text, "--get df=/data/out.csv")
            names.require(name, path)
            gets.append((name, path))
        if gets and options.detach:
            raise UsageError(
                "--get takes something out when the program has ended, and -d does not wait for that",
                hint="leave -d out, or take it later:  %container cp",
            )  # fmt: skip
        stdin = _readable(names.named(options.stdin)) if options.stdin else None
        return cls(tuple(puts), tuple(gets), stdin, names.give)

    def refuse(self, where: str, *, puts: bool = False) -> None:
        """Raises UsageError for what cannot be done there; with `puts`, something can be put."""
        reads = self.stdin is not None
        for flag, asked in (("--put", self.puts and not puts), ("--get", self.gets), ("--stdin", reads)):
            if asked:
                raise UsageError(f"{flag} is not for {where}", hint="%container cp copies files at any time")

    @contextmanager
    def around(self, container: Container) -> Iterator[None]:
        """Put everything in; at the end, unless that is an error, take everything out."""
        self.fill(container)
        yield
        missing = []
        for name, path in self.gets:
            try:
                data = container.engine.transfers.read(container, path)
            except ContainerError as error:
                missing.append(error)
                continue
            self.give(name, path, data)
        if missing:
            raise missing[0]

    @property
    def fills(self) -> bool:
        """Whether anything is put into a container before it begins."""
        return bool(self.puts) or self.prepare is not None

    def fill(self, container: Container) -> None:
        """Put everything in."""
        for path, value in self.puts:
            if isinstance(value, Path):
                container.put(value, path)
            else:
                container.engine.transfers.write(container, path, value)
        if self.prepare is not None:
            self.prepare(container)

    def run(
        self, engine: Engine, options: RunOptions,
        also: Callable[[Container], AbstractContextManager[object]] = nullcontext,
    ) -> Task[RunResult | Container]:  # fmt: skip
        """Run a container with all that. One that is to be forgotten (--rm) is, when everything has been taken out.

        `also` is entered with it, and puts nothing into it.
        """

        @contextmanager
        def around(container: Container) -> Iterator[None]:
            with also(container), self.around(container):
                yield

        if not (options.remove and self.gets):
            return engine.run(options, stdin=self.stdin, around=around, fills=self.fills)

        @contextmanager
        def forgetting(container: Container) -> Iterator[None]:
            try:
                with around(container):
                    yield
            finally:
                container.remove(force=True, v=True)

        return engine.run(replace(options, remove=False), stdin=self.stdin, around=forgetting, fills=self.fills)


def _parts(pattern: re.Pattern[str], flag: str, text: str, hint: str) -> tuple[str, str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise UsageError(f"{flag} {text}: a name and a path inside", hint=hint)
    return match["name"], match["path"]


def _readable(value: Any) -> Any:
    """What a program can read: text, bytes, a file; a table as CSV, other values as JSON. Raises UsageError."""
    from nbcontain import objects

    if isinstance(value, os.PathLike):
        return value
    suffix = "json" if isinstance(value, dict | list | tuple) else "csv"
    return objects.content(f"standard input.{suffix}", value)
