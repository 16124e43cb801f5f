"""Go's templates, rendered for plain values: what `--format '{{.Name}} {{json .}}'` gives (read by `template_syntax`).

Values are what JSON has, or documents that know their types (`typed`). A field is the key of a mapping and nothing
else: no template gets at the attributes of a Python object, and none goes on for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbcontain.display.template_functions import FUNCTIONS, Bad, Method, is_true, shown
from nbcontain.display.template_syntax import Action, Block, Jump, Node, Operand, Pipeline, Text, failed, near, parse
from nbcontain.display.typed import ABSENT, Entries, Fields, Nothing
from nbcontain.errors import UsageError
from nbcontain.values import dataclass, field

OUTPUT_LIMIT = 16 << 20
"""Characters that one value may become."""
_COUNT_LIMIT = 100_000
STEP_LIMIT = 500_000
"""Nodes that are looked at for one value; loops in loops over large values end there."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was understood."""

    text: str
    nodes: tuple[Node, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read it. Raises UsageError, which points at the place."""
        return cls(text, parse(text))

    def render(self, value: object, functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> str:
        """The text for one value. Raises UsageError for what the value does not have."""
        return _Run(self.text, value, functions).text_of(self.nodes)

    def fields(self) -> frozenset[str]:
        """The first names of the fields that are asked of the value itself, as far as can be told."""
        return frozenset(re.findall(r"(?<![\w).])\.(\w+)", self.text))


class _Break(Exception):
    """{{break}}"""


class _Continue(Exception):
    """{{continue}}"""


@dataclass(slots=True)
class _Run:
    """One template at work on one value."""

    text: str
    root: object
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: FUNCTIONS)
    out: list[str] = field(default_factory=list)
    variables: list[list[Any]] = field(default_factory=list)
    """[name, value] pairs, the innermost last."""
    length: int = 0
    steps: int = 0

    def text_of(self, nodes: Sequence[Node]) -> str:
        self.variables.append(["$", self.root])
        self._nodes(nodes, self.root)
        return "".join(self.out)

    def _nodes(self, nodes: Sequence[Node], dot: object) -> None:
        for node in nodes:
            self._step()
            match node:
                case Text(text=text):
                    self._write(text)
                case Action(pipeline=pipeline):
                    value = self._pipeline(pipeline, dot)
                    if not pipeline.names:
                        self._write(self._guarded(pipeline.commands[-1][0], shown, value))
                case Jump(kind=kind):
                    raise _Break if kind == "break" else _Continue
                case Block():
                    known = len(self.variables)
                    try:
                        self._block(node, dot)
                    finally:
                        del self.variables[known:]

    def _block(self, node: Block, dot: object) -> None:
        if node.kind == "range":
            return self._range(node, dot)
        value = self._pipeline(node.pipeline, dot)
        if not is_true(value):
            return self._nodes(node.otherwise, dot)
        return self._nodes(node.body, value if node.kind == "with" else dot)

    def _range(self, node: Block, dot: object) -> None:
        pipeline = node.pipeline
        value = self._pipeline(Pipeline(pipeline.commands), dot)
        pairs: list[tuple[object, object]]
        match value:
            case None | Nothing():
                pairs = []
            case bool() | float() | str() | Method():
                raise self._failed(pipeline.commands[0][0], "range can only go over lists, mappings and counts")
            case int():
                # Go counts since 1.22.
                if value > _COUNT_LIMIT:
                    raise self._failed(pipeline.commands[0][0], f"range goes no further than {_COUNT_LIMIT}")
                pairs = [(number, number) for number in range(value)]
            case Mapping():
                pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
            case _:
                pairs = list(enumerate(value))  # type: ignore[arg-type,unused-ignore]
        if not pairs:
            return self._nodes(node.otherwise, dot)
        known = len(self.variables)
        for key, each in pairs:
            self._step()
            given = (key, each) if len(pipeline.names) == 2 else (each,)
            for name, one in zip(pipeline.names, given, strict=False):
                self._set(name, one, is_new=pipeline.is_new)
            try:
                self._nodes(node.body, each)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[known:]
        return None

    def _pipeline(self, pipeline: Pipeline, dot: object) -> object:
        given: tuple[object, ...] = ()
        for command in pipeline.commands:
            given = (self._command(command, dot, given),)
        [value] = given
        for name in pipeline.names:
            self._set(name, value, is_new=pipeline.is_new)
        return value

    def _command(self, command: Sequence[Operand], dot: object, given: tuple[object, ...]) -> object:
        first, *rest = command
        self._step()
        if first.kind == "function":
            if first.value in ("and", "or"):
                return self._chosen(first, rest, dot, given)
            arguments = [self._value(each, dot) for each in rest]
            return self._guarded(first, self.functions[first.value], *arguments, *given)
        value = self._value(first, dot)
        if isinstance(value, Method):
            arguments = [self._value(each, dot) for each in rest]
            return self._guarded(first, value.function, *arguments, *given)
        if rest or given:
            raise self._failed(first, "that is no function: nothing can be handed to it")
        return value

    def _chosen(self, first: Operand, rest: Sequence[Operand], dot: object, given: tuple[object, ...]) -> object:
        """and, or: the first that decides; what follows is not looked at."""
        if not rest and not given:
            raise self._failed(first, f"{first.value} of nothing")
        value: object = None
        for each in rest:
            value = self._value(each, dot)
            if is_true(value) == (first.value == "or"):
                return value
        return given[0] if given else value

    def _value(self, operand: Operand, dot: object) -> object:
        match operand.kind:
            case "dot":
                value = dot
            case "variable":
                value = next(pair[1] for pair in reversed(self.variables) if pair[0] == operand.value)
            case "literal":
                return operand.value
            case "pipeline":
                value = self._pipeline(operand.value, dot)
            case _:
                return self._command((operand,), dot, ())
        for name in operand.fields:
            value = self._field(operand, value, name)
        return value

    def _field(self, operand: Operand, value: object, name: str) -> object:
        if isinstance(value, Mapping):
            if name in value:
                return value[name]
            if isinstance(value, Entries):
                return ABSENT
            known = value.names() if isinstance(value, Fields) else [f"{key}" for key in value]
            hint = near(name, dict.fromkeys(known))
            names = [f".{key}" for key in sorted(known) if re.fullmatch(r"\w+", key)]
            there = f"there are {' '.join(names[:24])}{' …' if len(names) > 24 else ''}" if names else "it is empty"
            raise self._failed(operand, f"there is no .{name}", hint.replace("mean ", "mean .") or there)
        if isinstance(value, Nothing) and value.is_absent:
            return value
        if value is None or isinstance(value, Nothing):
            raise self._failed(operand, f"no .{name} of nothing", "{{with .Field}}…{{end}} looks whether it is there")
        raise self._failed(operand, f"no .{name} of a value that has no fields")

    def _guarded(self, operand: Operand, function: Callable[..., Any], *arguments: object) -> Any:
        """What a function gives; its complaint at its place."""
        try:
            return function(*arguments)
        except Bad as error:
            raise self._failed(operand, str(error)) from None
        except TypeError:
            # Whatever else it may be, for Python it is this when there are too few or too many arguments.
            name = operand.value if operand.kind == "function" else "the field"
            raise self._failed(operand, f"{name} was handed {len(arguments)} values, which do not suit it") from None

    def _set(self, name: str, value: object, *, is_new: bool) -> None:
        if is_new:
            self.variables.append([name, value])
            return
        pair = next(pair for pair in reversed(self.variables) if pair[0] == name)
        pair[1] = value

    def _write(self, text: str) -> None:
        self.length += len(text)
        if self.length > OUTPUT_LIMIT:
            raise UsageError("--format: the text is too long", why=f"more than {OUTPUT_LIMIT} characters")
        self.out.append(text)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > STEP_LIMIT:
            raise UsageError("--format: the template goes on and on", why=f"more than {STEP_LIMIT} steps")

    def _failed(self, operand: Operand, message: str, hint: str = "") -> UsageError:
        return failed(self.text, operand.at, message, hint)
