"""%%dockerfile, %image, %container, %volume and %nbcontain: the commands, at home in a notebook.

A top-level magic that takes a while is rewritten to an `await`, so that the kernel's loop is free
while it waits: then a click on Stop is served during the cell. Where that is not possible (in a
function, a loop, a script) the same command waits on the cell's thread.

`%load_ext` only registers names; what is behind them is imported on a thread, or by whoever needs it first.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nbcontain import __version__, warming
from nbcontain.errors import NbcontainError
from nbcontain.magic_names import CELL_MAGICS, LESSON_MAGICS, LINE_MAGICS

if TYPE_CHECKING:
    from nbcontain.session import Session

_LOAD_S = 0.08
"""How long %load_ext waits for the first look at the host before it says less."""

_HURRY_S = 1.0
"""For no longer than this a command keeps others from being made ready for."""

_SEEN_S = 0.1
"""So long after a command began its first picture is let out, by the thread that sends it and by the server."""

_CALL = re.compile(
    r"(?P<target>(?:[A-Za-z_][\w.\[\]'\", ]*\s*=\s*)?)get_ipython\(\)\.run_(?P<kind>line|cell)_magic\("
    rf"(?P<rest>'(?:{'|'.join((*LINE_MAGICS, 'docker', 'dockerfile'))})',.*\)\s*)",
    re.DOTALL,
)
_SILENCED = re.compile(r";\s*(['\"]\))\s*$")
_WORTH_ASKING = re.compile(r"""\[["']/|%""")
_HELP_ASKED = re.compile(
    rf"(?P<before>\?{{1,2}}\s*)?(?P<line>%(?:{'|'.join((*LINE_MAGICS, 'docker'))})(?: +[a-z][a-z-]*){{1,2}})"
    r"(?P<behind>\s*\?{1,2})?"
)
_DOCKERFILE_CELL = re.compile(r"\s*%%dockerfile(?:\s|$)")


class _Silence(list[Any]):
    """No completions, and none of others': IPython lets a matcher keep the others out only if it has some itself."""

    def __len__(self) -> int:
        return 1


class Extension:
    """What an IPython shell holds of us, as its attribute `nbcontain`. The rewritten cells call it by that name."""

    def __init__(self, ipython: Any) -> None:
        self.ipython = ipython
        self.is_warm = threading.Event()
        """All that is done beforehand has been done."""
        self._lock = threading.Lock()
        self._calm = threading.Event()
        """Nobody waits for a command's first picture."""
        self._calm.set()
        self._magics: dict[str, Callable[..., object]] = {}

    @property
    def session(self) -> Session:
        """The session, made when it is first asked for; by whichever thread."""
        with self._lock:
            return self._session

    @cached_property
    def _session(self) -> Session:
        from nbcontain.session import Session

        return Session(self.ipython)

    @property
    def owned(self) -> frozenset[str]:
        """The magics that are ours."""
        return frozenset(self._magics)

    async def await_line_magic(self, magic: str, line: str) -> Any:
        self._hurry()
        return await self.session.await_line_magic(magic, line)

    async def show_line_magic(self, magic: str, line: str) -> Any:
        self._hurry()
        return await self.session.await_line_magic(magic, line, is_shown=True)

    async def await_cell_magic(self, magic: str, line: str, body: str) -> Any:
        self._hurry()
        return await self.session.await_cell_magic(magic, line, body)

    def _hurry(self) -> None:
        """Have nothing done beforehand until what this command shows first is on its way to the page."""
        self._calm.clear()
        asyncio.get_running_loop().call_later(_SEEN_S, self._calm.set)

    def complete(self, shell: Any, event: Any) -> list[str]:
        """For the Tab key. IPython has no way to take a completer back: unloaded, it says nothing."""
        return self.session.complete(shell, event) if self.ipython.nbcontain is self else []

    def complete_cell(self, context: Any) -> Any:
        """For the Tab key in a %%dockerfile cell, behind our magics, and where a line names what is in containers:
        IPython's matcher. Where it has a say nobody else has."""
        from IPython.core.completer import SimpleCompletion

        nothing: dict[str, Any] = {"completions": []}
        if self.ipython.nbcontain is not self:
            return nothing
        lines = context.full_text.split("\n")
        line = lines[context.cursor_line][: context.cursor_position]
        try:
            if _DOCKERFILE_CELL.match(context.full_text) is not None:
                answer = self.session.complete_cell("\n".join([*lines[: context.cursor_line], line]))
            elif _WORTH_ASKING.search(line) is not None:
                answer = self.session.complete_line(line, self.owned)
            else:
                return nothing
        except (NbcontainError, OSError):
            return nothing
        if answer is None:
            return nothing
        fragment, found = answer
        return {
            "completions": [SimpleCompletion(text=each, type="dockerfile") for each in found] or _Silence(),
            "matched_fragment": fragment,
            "suppress": True,  # what Python would offer is not in this language
        }

    def register(self, name: str) -> None:
        """Register a line magic, and what completes behind it."""
        from IPython.core import magic as decorators

        def magic(line: str, local_ns: Mapping[str, Any] | None = None) -> object:
            return self.session.run_line_magic(name, line.rstrip().removesuffix(";"), local_ns)

        magic.__name__ = name
        self._own(name, magic)
        # IPython would rewrite {x} and $x before we see them, and docker's --format '{{.Names}}' with them.
        marked = decorators.no_var_expand(decorators.needs_local_scope(magic))
        # Not in IPython 7, which Colab and Kaggle have: there a ; silences no line of ours.
        marked = getattr(decorators, "output_can_be_silenced", lambda function: function)(marked)
        self.ipython.register_magic_function(marked, "line", name)
        self.ipython.set_hook("complete_command", self.complete, str_key=f"%{name}")

    def register_lessons(self) -> None:
        """Register %check, %hint, %solution and %quiz, where nobody else has the name."""
        from IPython.core.magic import needs_local_scope, no_var_expand

        def lesson(name: str) -> Callable[..., object]:
            def magic(line: str, local_ns: Mapping[str, Any] | None = None) -> object:
                return self.session.lesson(name, line, local_ns)

            return magic

        for name in LESSON_MAGICS:
            if name not in self.ipython.magics_manager.magics["line"]:
                magic = self._own(name, lesson(name))
                self.ipython.register_magic_function(no_var_expand(needs_local_scope(magic)), "line", name)

    def register_cell(self, name: str) -> None:
        """Register a cell magic whose cell is shown while it does something."""
        from IPython.core.magic import needs_local_scope, no_var_expand

        def magic(line: str, cell: str, local_ns: Mapping[str, Any] | None = None) -> object:
            return self.session.run_cell_magic(name, line, cell, local_ns)

        magic.__name__ = name
        self._own(name, magic)
        self.ipython.register_magic_function(no_var_expand(needs_local_scope(magic)), "cell", name)

    def register_context_file(self) -> None:
        """Register %%contextfile, and %contextfile, which lists and clears."""
        from IPython.core.magic import needs_local_scope, no_var_expand

        def contextfile(line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> object:
            return self.session.context_file(line, cell, local_ns)

        magic = no_var_expand(needs_local_scope(self._own("contextfile", contextfile)))
        for kind in ("line", "cell"):
            self.ipython.register_magic_function(magic, kind, "contextfile")

    def _own(self, name: str, magic: Callable[..., object]) -> Callable[..., object]:
        """This one is ours. Its help is written when `?` asks for it, as that takes all commands' modules."""

        def documented() -> str:
            from nbcontain.magic_help import documentation

            return documentation(name)

        magic.getdoc = documented  # type: ignore[attr-defined]
        self._magics[name] = magic
        return magic

    def warm(self, ready: threading.Event) -> None:
        """Import, look at the host, start a zygote. A thread of its own; whatever is wrong is told when it matters."""
        try:
            engine = self.session.engine
            _ = engine.profile  # found by trying, and remembered
            ready.set()
            engine.warm()
            warming.warm(has_cards=self.session.mode == "card", give_way=lambda: self._calm.wait(_HURRY_S))
        except (NbcontainError, OSError):
            pass
        finally:
            ready.set()
            self.is_warm.set()

    def greeting(self, *, is_known: bool) -> str:
        """One line for %load_ext: what is real here, if that is known by now."""
        parts = [f"nbcontain {__version__}"]
        if is_known:
            try:
                engine = self.session.engine
                parts.append(engine.profile.describe())
                parts += filter(None, [engine.place.notice])
            except (NbcontainError, OSError) as error:
                parts.append(f"not ready: {error}")
        return " · ".join([*parts, "%nbcontain doctor"])


def load(ipython: Any) -> None:
    """Register everything, say one line, and warm up in the background."""
    if getattr(ipython, "nbcontain", None) is not None:
        return
    extension = ipython.nbcontain = Extension(ipython)
    for name in LINE_MAGICS:
        extension.register(name)
    for name in CELL_MAGICS:
        extension.register_cell(name)
    extension.register_context_file()
    extension.register_lessons()
    _complete_cells(ipython, extension)
    ipython.input_transformers_cleanup.append(_helping)
    if getattr(ipython, "kernel", None) is not None:
        ipython.input_transformers_post.append(_awaiting)
    ready = threading.Event()
    threading.Thread(target=extension.warm, args=(ready,), name="nbcontain warm", daemon=True).start()
    ready.wait(_LOAD_S)
    print(extension.greeting(is_known=ready.is_set()))


def _complete_cells(ipython: Any, extension: Extension) -> None:
    """Put a matcher for whole cells in front of IPython's own; before IPython 8.6 there are none."""
    from IPython.core import completer

    if not hasattr(completer, "context_matcher"):
        return

    def matcher(context: Any) -> Any:
        return extension.complete_cell(context)

    marked = completer.context_matcher(identifier="nbcontain")(matcher)
    ipython.Completer.custom_matchers.insert(0, marked)


def unload(ipython: Any) -> None:
    """Take everything back. Detached containers go on."""
    extension = getattr(ipython, "nbcontain", None)
    if extension is None:
        return
    lines = (*LINE_MAGICS, "docker", "contextfile", *(each for each in LESSON_MAGICS if each in extension.owned))
    for kind, names in (("line", lines), ("cell", (*CELL_MAGICS, "docker", "contextfile"))):
        for name in names:
            ipython.magics_manager.magics[kind].pop(name, None)
    matchers = getattr(ipython.Completer, "custom_matchers", [])
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != "nbcontain"]
    for transform, among in (
        (_awaiting, ipython.input_transformers_post), (_helping, ipython.input_transformers_cleanup),
    ):  # fmt: skip
        if transform in among:
            among.remove(transform)
    extension.session.close()
    ipython.nbcontain = None


def _helping(lines: list[str]) -> list[str]:
    """`%container run?` as `%container run --help`: IPython would tell of the last word alone, its own %run here."""
    match = _HELP_ASKED.fullmatch("".join(lines).strip())
    if match is None or (match["before"] is None) == (match["behind"] is None):
        return lines
    return [f"{match['line']} --help\n"]


def _awaiting(lines: list[str]) -> list[str]:
    """Rewrite a cell's top-level magics of ours to awaits; whatever else stands there stays as it is."""
    if lines and "run_cell_magic(" in lines[0]:
        return [_rewritten("".join(lines))]
    said = [number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    return [_rewritten(line, is_last=said[-1:] == [number]) for number, line in enumerate(lines)]


def _rewritten(line: str, *, is_last: bool = False) -> str:
    """A call of a magic of ours as an await, which says of the cell's last line that its value is going to be shown."""
    match = _CALL.fullmatch(line)
    if match is None:
        return line
    arguments, silence = match["rest"], ""
    if match["kind"] == "line" and (ending := _SILENCED.search(arguments)):
        # What is at the end of a line for IPython is at the end of a text by now.
        arguments, silence = arguments[: ending.start()] + ending[1], ";\n"
    verb = "show" if is_last and match["kind"] == "line" and not match["target"] and not silence else "await"
    return f"{match['target']}await get_ipython().nbcontain.{verb}_{match['kind']}_magic({arguments}{silence}"
