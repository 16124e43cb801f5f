"""What the magics do, in one kernel: an engine, how things are shown, and the last objects.

A kernel's first card waits for all that is imported here: what only some magics need, they import.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nbcontain import configurable
from nbcontain.commands import parse_words, told
from nbcontain.display import formatters, live, looking
from nbcontain.display.present import BRIEF, beginning, is_attended, mode, present, present_async, shown
from nbcontain.display.surface import Place, settle
from nbcontain.display.values import Begun, Board, InProgress, Interactive, Lines, Live, Log, Verdict
from nbcontain.docker_words import KNOWN_FLAGS
from nbcontain.errors import UsageError
from nbcontain.exchange import Exchange
from nbcontain.magic_names import GROUP_MAGICS
from nbcontain.options import HelpAsked, parse
from nbcontain.runtime.generate import ExecOptions, RunOptions
from nbcontain.settings import Settings
from nbcontain.task import Task
from nbcontain.values import replace
from nbcontain.variables import Variables

if TYPE_CHECKING:
    from nbcontain.cells import Cell
    from nbcontain.commands.builds import DockerfileWords
    from nbcontain.commands.cards import Cards
    from nbcontain.commands.contextfiles import ContextFiles
    from nbcontain.compose_cells import ComposeCells
    from nbcontain.display.following import Following
    from nbcontain.display.live import Surroundings
    from nbcontain.display.table import Watched
    from nbcontain.engine import Engine
    from nbcontain.events import Emit
    from nbcontain.lessons.teacher import Teacher
    from nbcontain.oci.image import Image
    from nbcontain.runtime.container import Container


class Session:
    """One kernel's engine and magics."""

    def __init__(self, ipython: Any) -> None:
        self.ipython = ipython
        self.environ = Settings(os.environ)
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        configurable.register(ipython, self.environ, self._configured)
        self._alias: str | None = None
        self._last_drawn: object = None
        ipython.events.register("post_run_cell", settle)
        self._configured()

    @property
    def engine(self) -> Engine:
        """The kernel's one, made when it is first asked for; by whichever thread."""
        with self._lock:
            if self._engine is None:
                from nbcontain.engine import Engine

                self._engine = Engine(environ=self.environ)
                self._engine.waits = lambda task, kind: shown(task, kind, self.mode)
            return self._engine

    def close(self) -> None:
        """It is asked no more."""
        with suppress(ValueError):
            self.ipython.events.unregister("post_run_cell", settle)
        self.engine.close()

    def _configured(self) -> None:
        """Show things as is set by now."""
        self.mode = mode(self.environ, self.ipython)
        formatters.register(self.ipython, self.mode, self.around, self.was_drawn, self._follow)

    # --- what the magics do ---

    def run_line_magic(self, magic: str, line: str, names: Mapping[str, Any] | None = None) -> object:
        """A line magic on the cell's own thread."""
        return self._shown(self._value(magic, line, names))

    async def await_line_magic(self, magic: str, line: str, *, is_shown: bool = False) -> object:
        """The same with the loop left free. `is_shown` says that its value is the cell's."""
        place = Place() if is_shown and self.mode == "card" else None
        value = self._value(magic, line, None, place)
        if isinstance(value, InProgress):
            value = await self._presented(value, is_shown=is_shown, place=place)
        if isinstance(value, Live):
            await self._live_async(value)
            return None
        # No lines are nothing to be seen; who keeps them in a variable has them.
        return None if is_shown and value == Lines(()) else self._kept(value)

    def run_cell_magic(self, magic: str, line: str, body: str, names: Mapping[str, Any] | None = None) -> object:
        """A cell magic on the cell's own thread."""
        if (begun := self._cell(magic, line, body, names)) is None:
            return None
        cell, done = begun
        with cell.pointing():
            value = present(cell.progress.task, cell.progress.kind, **self._look(cell.progress))
        return done(value)

    async def await_cell_magic(self, magic: str, line: str, body: str) -> object:
        """The same with the loop left free."""
        if (begun := self._cell(magic, line, body, None)) is None:
            return None
        cell, done = begun
        with cell.pointing():
            value = await self._presented(cell.progress, is_shown=True)
        return done(value)

    async def _presented(self, progress: InProgress[Any], *, is_shown: bool, place: Place | None = None) -> Any:
        """What came of it. Where there are cards one stands there at once, and becomes that of what goes on."""
        look = self._look(progress)
        has_own = is_shown and progress.becomes != ""
        is_placed = has_own or not (progress.becomes or progress.kind in BRIEF)
        if look["mode"] != "card" or not is_placed:
            return await present_async(progress.task, progress.kind, **look)
        place = place or Place()
        place.prepare = {"container": live.prepared, "layers": looking.prepared}.get(progress.becomes, lambda: None)
        place.name, place.about = progress.begins
        try:
            value = await present_async(progress.task, progress.kind, place=place, **look)
            if has_own:
                self._last_drawn = value
                if progress.becomes == "container":
                    live.show_container(value, self.around(value), mode="card", place=place)
                else:
                    looking.show_explored(value, "card", place)
        finally:
            place.leave()
        return value

    # --- in parts ---

    def _value(self, magic: str, line: str, names: Mapping[str, Any] | None, place: Place | None = None) -> Any:
        variables = self._variables(names)
        words = variables.words(line)
        if magic == "nbcontain" and words[:1] == ["alias"]:
            return self._make_alias(words[1:])
        if magic == "nbcontain" and words[:1] == ["shim"]:
            from nbcontain import shim

            print(shim.install(self.engine, words[1:]))
            return None
        group = magic if magic in GROUP_MAGICS else "nbcontain"
        try:
            if not words:
                raise HelpAsked(told("" if group == "nbcontain" else group, f"%{group}"))
            command, options = parse_words(group, words)
        except HelpAsked as asked:
            print(asked, end="")
            return None
        if isinstance(options, RunOptions | ExecOptions):
            options = replace(options, exchange=Exchange.of(options, variables))
        if command.name == "cp" and group != "compose":
            options = replace(options, names=variables)
        if group == "compose":
            options = self._compose.seen(options)
        with beginning(place, command.begins(options)):
            value = command.function(self.engine, options)
        if command.name == "config":
            self._configured()
        match value:
            case Log():
                return InProgress(value.task(), "exec", title=value.name)
            case Interactive(elsewhere=None, is_raw=True) if self._has_terminals():
                return InProgress(Task(words[0], lambda emit: _begun(value, words, emit)), "work")
            case Interactive(elsewhere=None):
                raise UsageError(
                    f"{words[0]} asks for a terminal, and a cell is none",
                    why="a program could not go on reading what is typed",
                    hint="in a terminal (JupyterLab: File, New, Terminal):  "
                    + _on_a_terminal(group, words, self.environ),
                )
            case Interactive(elsewhere=elsewhere) if elsewhere is not None:
                return elsewhere()
        return value

    def _has_terminals(self) -> bool:
        """Whether a cell can have one: where nobody looks now, somebody may when the notebook is run again."""
        return (self.mode == "card" or self.mode == "html" and not is_attended(self.ipython)) and _has_widgets()

    def _cell(
        self, magic: str, line: str, body: str, names: Mapping[str, Any] | None
    ) -> tuple[Cell, Callable[[Any], object]] | None:
        """What a cell begins, and what is to be done with what comes of it; None where it only asked for help."""
        try:
            if magic == "compose":
                return self._compose.cell(self.engine, self._variables(names).words(line), body), self._kept
            if magic in ("container", "docker"):
                from nbcontain.cells import cell_of

                return cell_of(self.engine, line, body, self._variables(names)), self._kept
            progress, words = self._build(line, body, names)
        except HelpAsked as asked:
            print(asked, end="")
            return None
        from nbcontain.cells import Cell

        self.ipython.user_ns["_build"] = progress.task
        return Cell(progress), lambda image: self._built(image, words)

    def _build(
        self, line: str, body: str, names: Mapping[str, Any] | None
    ) -> tuple[InProgress[Any], DockerfileWords]:
        from nbcontain.commands.builds import DockerfileWords
        from nbcontain.commands.inputs import BuildInputs

        words = parse(
            DockerfileWords, "%%dockerfile", "make an image from the Dockerfile in this cell",
            self._variables(names).words(line), KNOWN_FLAGS["image build"],
        )  # fmt: skip
        context = self.context_files.source(words.context, self.ipython.user_ns)
        _ = words.checked_display
        given = BuildInputs(body, context)
        return words.started(self.engine, given, self.ipython.user_ns, self.context_files.named()), words

    def context_file(self, line: str, body: str | None, names: Mapping[str, Any] | None = None) -> object:
        """%%contextfile and %contextfile."""
        words = self._variables(names).words(line)
        try:
            return self.context_files.write(words, body) if body is not None else self.context_files.look(words)
        except HelpAsked as asked:
            print(asked, end="")
            return None

    def lesson(self, magic: str, line: str, names: Mapping[str, Any] | None = None) -> object:
        """%check, %hint, %solution and %quiz."""
        words = self._variables(names).words(line)
        try:
            return self.teacher.magic(magic, words, {**self.ipython.user_ns, **(names or {})})
        except HelpAsked as asked:
            print(asked, end="")
            return None

    @cached_property
    def context_files(self) -> ContextFiles:
        """What %%contextfile cells wrote."""
        from nbcontain.commands.contextfiles import ContextFiles

        return ContextFiles()

    @cached_property
    def _compose(self) -> ComposeCells:
        from nbcontain.compose_cells import ComposeCells

        return ComposeCells()

    @cached_property
    def teacher(self) -> Teacher:
        """What the tutorials' exercises are judged by."""
        from nbcontain.lessons.teacher import Teacher

        return Teacher(self.engine)

    def _built(self, image: Image | Verdict, words: DockerfileWords) -> None:
        if isinstance(image, Verdict):
            from IPython.display import display

            display(image)  # type: ignore[no-untyped-call]
            return
        self.ipython.user_ns["_image"] = image = self._held(image)
        if words.into:
            self.ipython.user_ns[words.into] = image
        if words.quiet or words.display == "quiet":
            print(image.id)

    def _shown(self, value: Any) -> object:
        if isinstance(value, InProgress):
            value = present(value.task, value.kind, **self._look(value))
        if isinstance(value, Live):
            with suppress(KeyboardInterrupt):
                for _ in _drawn(value):
                    time.sleep(value.every_s)
            return None
        return self._kept(value)

    async def _live_async(self, live: Live) -> None:
        """With the loop left free; an interrupt is how one has seen enough, and cancels the cell."""
        import asyncio

        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            for _ in _drawn(live):
                for _ in range(round(live.every_s / 0.1)):
                    await asyncio.sleep(0.1)

    def _kept(self, value: object) -> object:
        """Remember the last objects as _image, _container and _run; what was just drawn is not drawn again."""
        from nbcontain.oci.image import Image
        from nbcontain.outcomes import RunResult
        from nbcontain.runtime.container import Container

        match value:
            case Image():
                value = self._held(value)
                self.ipython.user_ns["_image"] = self._last_drawn = value
            case RunResult():
                self.ipython.user_ns["_run"] = self._last_drawn = value
            case Container():
                self.ipython.user_ns["_container"] = value
            case Board() if self.mode == "plain":
                return value.look()
            case Board():
                from nbcontain.display.board import show_board

                show_board(self.engine.containers, self.cards.around, mode=self.mode)
                return None
            case Begun():
                from nbcontain.display.terminals import Terminal

                Terminal(value.session, value.title, value.detach_keys).show()
                return None
        return value

    def _held(self, image: Image) -> Image:
        """An image that can be asked what is in it."""
        from nbcontain.images import Image as HeldImage

        return HeldImage.held(image, self.engine)

    def complete(self, _: Any, event: Any) -> list[str]:
        """For the Tab key, behind one of our magics: `event.line` is what stands before the cursor."""
        from nbcontain.completion import candidates

        magic, *words = event.line.lstrip().lstrip("%").split()
        if not words or event.line[-1:].isspace():
            words.append("")
        return candidates(magic if magic in GROUP_MAGICS else "", words, self.engine)

    def complete_line(self, line: str, magics: Collection[str]) -> tuple[str, list[str]] | None:
        """What the end of a line could become, behind one of these magics and in Python's words, and what this
        replaces; None where others may say it."""
        from nbcontain.completion import in_code, magic_of

        magic = magic_of(line)
        return in_code(line, self.engine, self.ipython.user_ns) if not magic or magic in magics else None

    def complete_cell(self, text: str) -> tuple[str, list[str]]:
        """What the end of a %%dockerfile cell's text could become, and the part of it that this would replace."""
        from nbcontain.completion import in_dockerfile_cell

        return in_dockerfile_cell(
            text, self.engine, lambda name: self.context_files.source(name, self.ipython.user_ns)
        )

    def was_drawn(self, value: object) -> bool:
        """Whether this was just shown as the outcome of a command; the next time it is asked for, it is drawn."""
        was = value is self._last_drawn
        self._last_drawn = None
        return was

    def _follow(self, table: Watched) -> None:
        self._following.show(table)

    @cached_property
    def _following(self) -> Following:
        """The tables that follow what happens, until the next cell."""
        from nbcontain.display.following import Following

        following = Following(lambda: self.engine.events.between())
        self.ipython.events.register("pre_run_cell", following.rest)
        return following

    def around(self, container: Container) -> Surroundings:
        """What a container's card knows and can do."""
        return self.cards.around(container)

    @cached_property
    def cards(self) -> Cards:
        """What this kernel's cards are made of."""
        from nbcontain.commands.cards import Cards

        return Cards(self.engine)

    def _look(self, progress: InProgress[Any]) -> dict[str, Any]:
        """How to show something in progress. In a cell, the events themselves are nothing to look at."""
        shown = "plain" if progress.display == "rawjson" else progress.display or self.mode
        return {"mode": shown, "title": progress.title, "facts": progress.facts, "whole_log": progress.whole_log}

    def _variables(self, names: Mapping[str, Any] | None) -> Variables:
        """The notebook's variables, and those of the function that a magic stands in."""
        return Variables(self.ipython.user_ns, names)

    def _make_alias(self, words: list[str]) -> None:
        """%nbcontain alias docker: docker's own words as a magic, if nobody else has the name."""
        if words not in (["docker"], ["docker", "--force"]):
            raise UsageError("alias: what there is to be had is docker", hint="%nbcontain alias docker")
        if "docker" in self.ipython.magics_manager.magics["line"] and "--force" not in words and self._alias is None:
            raise UsageError(
                "another extension has a %docker magic", hint="%nbcontain alias docker --force puts it out of the way"
            )
        self._alias = "docker"
        self.ipython.nbcontain.register("docker")
        self.ipython.nbcontain.register_cell("docker")
        print("%docker build|run|ps|images|… now means nbcontain's commands")


_CELL_SIZE = (18, 80)
"""Of a cell's terminal, until the page says how much room there is."""


def _begun(wanted: Interactive, words: Sequence[str], emit: Emit) -> Begun:
    """Begin what wants a terminal, for the one that a cell has."""
    return Begun(wanted.begin(_CELL_SIZE, emit), shlex.join(words), wanted.detach_keys)


def _has_widgets() -> bool:
    from importlib.util import find_spec

    return find_spec("anywidget") is not None


def _on_a_terminal(group: str, words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The same command as one types it at a terminal, which may not know where this kernel's store is."""
    root = environ.get("NBCONTAIN_ROOT", "")
    prefix = [f"NBCONTAIN_ROOT={shlex.quote(root)}"] if root else []
    return " ".join([*prefix, "nbcontain", *([] if group == "nbcontain" else [group]), shlex.join(words)])


def _drawn(live: Live) -> Iterator[None]:
    """Look again and again, and draw it in one place of the cell's output, which keeps the last."""
    from IPython.display import display

    handle: Any = None
    while True:
        shown = live.look()
        if handle is None:
            handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(shown)
        yield
