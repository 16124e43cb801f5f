"""What is carried through a stage, what an instruction can ask besides, and `apply`, which the instructions' modules
give a case each."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

from nbcontain.build.arguments import DEFAULT_PATH
from nbcontain.build.graph import Operation, Sandbox, Step, Vertex
from nbcontain.dockerfile import ast, words
from nbcontain.dockerfile.nearest import nearest
from nbcontain.dockerfile.rules import CHECKS, did_you_mean
from nbcontain.errors import DockerfileError, Span
from nbcontain.oci.image import History, ImageConfig
from nbcontain.values import dataclass, field, replace

_SHELL = ("/bin/sh", "-c")
_BLANKS = re.compile(r"[\t\n ]+")


@dataclass(frozen=True, slots=True)
class StageState:
    """What the fold carries through one stage."""

    vertex: Vertex
    config: ImageConfig
    """The image's, but for its environment, which is `env`, and what is new in its history, which is `history_steps`.
    """
    env: Mapping[str, str]
    variables: Mapping[str, str]
    """ENV and ARG as seen at this line; what came later counts."""
    arguments: tuple[str, ...] = ()
    """Names of the ARGs, those of the stages below included."""
    has_workdir: bool = False
    """A WORKDIR of this Dockerfile came before."""
    has_cmd: bool = False
    """This stage has a CMD of its own."""
    created_by: str = ""
    """What the last instruction writes into the history; "" for nothing."""
    history_steps: tuple[Step, ...] = ()

    def with_config(self, created_by: str, **changes: Any) -> StageState:
        """Other metadata, and nothing else."""
        return replace(self, config=replace(self.config, **changes), created_by=created_by)

    def then(self, created_by: str, operation: Operation, *others: Vertex, label: str, span: Span) -> StageState:
        """Another file system: this one, changed by `operation`."""
        vertex = Vertex(operation, (self.vertex, *others), label, span)
        return replace(self, vertex=vertex, created_by=created_by)

    @property
    def image_config(self) -> ImageConfig:
        """The image's config, were this the last line."""
        # Not kept up to date line by line: with thousands of ENVs that would take the square of their number.
        entries = (
            History(created_by=step.created_by, comment="nbcontain", empty_layer=step.vertex is None)
            for step in self.history_steps
        )
        env = tuple(f"{name}={value}" for name, value in self.env.items())
        return replace(self.config, env=env, history=(*self.config.history, *entries))

    @property
    def environment(self) -> tuple[str, ...]:
        """NAME=value for programs; there is always a PATH."""
        return tuple(f"{name}={value}" for name, value in ({"PATH": DEFAULT_PATH} | dict(self.variables)).items())

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"


@dataclass(frozen=True, slots=True)
class Scene:
    """What an instruction can ask beside the state: the same for all instructions of a stage."""

    escape: str
    build_args: Mapping[str, str]
    global_args: Mapping[str, str]
    """ARGs before the first FROM, and those of the platforms."""
    network: str
    sandbox: Sandbox | None
    added_hosts: tuple[str, ...]
    source: Callable[[str, Span], Vertex]
    """The file system that --from names. Raises DockerfileError."""
    directory: Callable[[str], str | None]
    """The context of files that a name given to --from means; None for a stage or an image."""
    aside: Callable[[Vertex], None]
    """Notes a file system that no instruction's own is."""
    is_ignored: Callable[[str], bool] = lambda path: False
    """Whether .dockerignore leaves out a path of the context."""
    is_trigger: bool = False
    """The instruction comes from the base image, as its ONBUILD."""
    allowed: tuple[str, ...] = ()
    """What --allow grants."""
    automounts: tuple[ast.RunMount, ...] = ()
    """Of every RUN, before its own."""
    declared: set[str] = field(default_factory=set)
    """Every ARG met so far."""
    remarks: list[ast.Remark] = field(default_factory=list)
    room: words.Room = field(default_factory=words.Room)
    """For the words of all stages."""

    def remark(self, message: str, span: Span | None, hint: str = "") -> None:
        self.remarks.append(ast.Remark(message, span, hint))

    def check(self, rule: str, span: Span | None, *values: str, hint: str = "") -> None:
        """Note what one of BuildKit's checks found."""
        self.remarks.append(CHECKS[rule].found(span, *values, hint=hint))

    def expand(self, word: str, state: StageState, span: Span) -> str:
        """The word with its variables filled in; one without a value is remarked on, unless it is a known ARG."""
        return self.filled(word, state.variables, span, state.arguments)

    def filled(self, word: str, variables: Mapping[str, str], span: Span, known: tuple[str, ...] = ()) -> str:
        """Like `expand`, where there is no stage yet."""
        missing: set[str] = set()
        value = words.expand(word, variables, self.escape, missing, self.room)
        if missing:
            self._missing(missing - {*known}, variables, span)
        return value

    def document(self, text: str, state: StageState, span: Span) -> str:
        """A heredoc that becomes a file, its variables filled in; its quotes and backslashes are its own."""
        missing: set[str] = set()
        value = self.room.taken(words.expand_document(text, state.variables, missing))
        self._missing(missing - set(state.arguments), state.variables, span)
        return value

    def split(self, word: str, state: StageState, span: Span) -> list[str]:
        """Like `expand`, split at unquoted spaces."""
        missing: set[str] = set()
        found = [self.room.taken(each) for each in words.split(word, state.variables, self.escape, missing)]
        self._missing(missing - set(state.arguments), state.variables, span)
        return found

    def pairs(self, pairs: ast.Pairs, state: StageState, span: Span) -> dict[str, str]:
        """Names and values expanded, all with the variables from before the instruction."""
        expanded = {self.expand(name, state, span): self.expand(value, state, span) for name, value in pairs}
        if "" in expanded:
            raise DockerfileError("a name that is empty", span, why="the variables in it have no value")
        if any("=" in name or "\0" in name + value for name, value in expanded.items()):
            raise DockerfileError("a name with = in it", span)
        return expanded

    def _missing(self, missing: set[str], variables: Mapping[str, str], span: Span) -> None:
        for name in sorted(missing):
            near = nearest(name, variables)
            hint = "" if near else f"Give it a value before: ARG {name}=…, or ENV."
            self.check("UndefinedVar", span, name, did_you_mean(near, "$"), hint=hint)


@singledispatch
def apply(instruction: ast.Instruction, state: StageState, scene: Scene) -> StageState:
    """The state after this instruction. Raises DockerfileError."""
    raise TypeError(f"no meaning for {instruction!r}")


def shown(instruction: ast.Instruction) -> str:
    """An instruction for display; of a RUN's heredoc, its first line, which the text of a document has already."""
    text = one_line(instruction.text)
    if not isinstance(instruction, ast.Run) or not instruction.heredocs or instruction.is_document:
        return text
    first, *more = instruction.heredocs[0].content.strip().split("\n")
    return f"{text} ({first}{'…' if more else ''})"


def shell_of(state: StageState) -> tuple[str, ...]:
    """What SHELL says, here or in the base image."""
    return state.config.shell or _SHELL


def argv_of(command: ast.CommandForm, state: StageState) -> tuple[str, ...]:
    """The command line of RUN, CMD and ENTRYPOINT: SHELL stands before the shell form."""
    match command:
        case ast.ShellForm(text):
            return (*shell_of(state), text)
        case ast.ExecForm(argv):
            return argv


def absolute(working_dir: str, path: str) -> str:
    """A path as seen from the working directory, without . and .. in it."""
    # POSIX lets two slashes in front mean something else, and so normpath keeps them.
    return "/" + posixpath.normpath(posixpath.join(working_dir, path)).lstrip("/")


def one_line(text: str) -> str:
    """An instruction for display: its keyword in capitals, its continuations' indentation gone."""
    keyword, _, rest = _BLANKS.sub(" ", text).partition(" ")
    return f"{keyword.upper()} {rest}".strip()
