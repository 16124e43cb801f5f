"""Go's templates over plain values: what `--format '{{.Name}} {{json .}}'` means (pkg.go.dev/text/template).

    text      = { characters | "{{" ["- "] action [" -"] "}}" }
    action    = pipeline | "if" pipeline | "else" ["if" pipeline | "with" pipeline] | "range" [x [, y] :=] pipeline
              | "with" [x :=] pipeline | "break" | "continue" | "end" | x := pipeline | x = pipeline | /* comment */
    pipeline  = command { "|" command }
    command   = operand { operand }                 the first may be a function
    operand   = "." | .field{.field} | $x{.field} | literal | "nil" | function | "(" pipeline ")"{.field}

Values are what JSON has, mappings and sequences included. A field is the key of a mapping and nothing else: there
is no way from a template to a Python object's attributes. `define`, `template` and `call` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nbcontain.display.template_functions import FUNCTIONS
from nbcontain.errors import UsageError, did_you_mean
from nbcontain.values import dataclass

DEPTH_LIMIT = 60
"""How deep parentheses and blocks may lie in each other."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.[0-9a-fA-F]*)')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+(?![0-9.eE])|0[bB][01_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<variable>\$\w*)
    |(?P<dot>\.)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>:=|=|\||\(|\)|,)
    """,
    re.VERBOSE,
)
_REFUSED = {
    "define": "templates inside of templates",
    "template": "templates inside of templates",
    "block": "templates inside of templates",
    "call": "functions of the values",
}
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
}  # fmt: skip
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)


# --- what a template is ---


@dataclass(frozen=True, slots=True)
class Operand:
    """One word of a command. `kind` is dot, field, variable, literal, function or pipeline; `fields` follow it."""

    kind: str
    value: Any
    fields: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each of which gets what the one before gave; and the variables that the last result goes to."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """Characters that stand for themselves."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose result is written, unless it goes to a variable."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Block:
    """if, with or range: a pipeline, what depends on it, and what else."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """break or continue."""

    kind: str


Node = Text | Action | Block | Jump


def parse(text: str) -> tuple[Node, ...]:
    """Read a template. Raises UsageError, which points at the place."""
    return _Parser(text).template()


def failed(text: str, at: int, message: str, hint: str = "") -> UsageError:
    """The error, with the place in the template marked."""
    start = max(0, text.rfind("\n", 0, at) + 1, at - 50)
    end = text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)][:100]
    hint = hint or "{{.Field}}, {{json .}}, {{if …}}…{{end}}: Go's templates, as docker's --format has them"
    return UsageError(f"--format: {message}", why=f"{line}\n{' ' * (at - start)}^", hint=hint)


# --- reading ---


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """One template's text, from its first character to its last."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tokens: list[_Token] = []
        self._depth = 0
        self._loops = 0
        self._trims = False
        """Whether the action before ended with " -}}"."""
        self._known: list[str] = ["$"]

    def template(self) -> tuple[Node, ...]:
        nodes, end = self._nodes()
        if end is not None:
            raise self._failed(f"{{{{{end.text}}}}} has nothing that it could belong to", end.at)
        return nodes

    def _nodes(self) -> tuple[tuple[Node, ...], _Token | None]:
        """Up to the {{else}} or {{end}} that belongs to whoever called, or the end of the text."""
        nodes: list[Node] = []
        while True:
            start = self._text.find("{{", self._at)
            text = self._text[self._at : start if start >= 0 else len(self._text)]
            if self._trims:
                text = text.lstrip(" \t\r\n")
            self._trims = False
            if start < 0:
                self._at = len(self._text)
                return (*nodes, *([Text(text)] if text else [])), None
            self._at = start + 2
            if re.match(r"-[ \t\r\n]", self._text[self._at : self._at + 2]):
                text = text.rstrip(" \t\r\n")
                self._at += 1
            if text:
                nodes.append(Text(text))
            if self._comment():
                continue
            self._tokens = list(self._lexed())
            first = self._peek()
            if first is not None and first.kind == "word" and first.text in ("end", "else"):
                self._take()
                return tuple(nodes), first
            nodes.append(self._action(start))

    def _comment(self) -> bool:
        match = re.compile(r"[ \t\r\n]*/\*.*?\*/([ \t\r\n]+-)?[ \t\r\n]*\}\}", re.DOTALL).match(self._text, self._at)
        if match is None:
            return False
        self._trims = bool(match[1])
        self._at = match.end()
        return True

    def _lexed(self) -> Iterator[_Token]:
        begun = self._at - 2
        while True:
            end = re.compile(r"([ \t\r\n]+-)?\}\}").match(self._text, self._at)
            if end is not None:
                self._trims = bool(end[1])
                self._at = end.end()
                return
            if self._at >= len(self._text):
                raise self._failed("{{ without a }}", begun)
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise self._failed(f"{self._text[self._at]!r} cannot stand here", self._at)
            if match.lastgroup != "space":
                yield _Token(match.lastgroup or "", match[0], self._at)
            self._at = match.end()

    def _action(self, at: int) -> Node:
        first = self._peek()
        if first is None:
            raise self._failed("an empty {{}}", at)
        if first.kind == "word" and first.text in _REFUSED:
            raise self._failed(
                f"there is no {first.text} here", first.at, f"{_REFUSED[first.text]} are not needed here"
            )
        if first.kind == "word" and first.text in ("if", "with", "range"):
            return self._block(self._take())
        if first.kind == "word" and first.text in ("break", "continue"):
            self._take()
            if not self._loops:
                raise self._failed(f"{first.text} outside of a range", first.at)
            self._whole()
            return Jump(first.text)
        pipeline = self._pipeline(at)
        self._whole()
        return Action(pipeline)

    def _block(self, word: _Token) -> Block:
        """if, with, range, up to its {{end}}."""
        with self._deeper(word.at):
            known = len(self._known)
            pipeline = self._pipeline(word.at, is_range=word.text == "range")
            self._whole()
            self._loops += word.text == "range"
            body, end = self._nodes()
            self._loops -= word.text == "range"
            otherwise: tuple[Node, ...] = ()
            if end is not None and end.text == "else":
                follows = self._peek()
                if follows is not None and follows.text in ("if", "with") and word.text == follows.text:
                    # {{else if}} is an if of its own that shares the {{end}}.
                    otherwise = (self._block(self._take()),)
                    del self._known[known:]
                    return Block(word.text, pipeline, body, otherwise)
                self._whole()
                otherwise, end = self._nodes()
                if end is not None and end.text == "else":
                    raise self._failed("a second {{else}}", end.at)
            if end is None:
                raise self._failed(f"{{{{{word.text}}}}} without its {{{{end}}}}", word.at)
            self._whole()
            del self._known[known:]
            return Block(word.text, pipeline, body, otherwise)

    def _pipeline(self, at: int, *, is_range: bool = False, is_inner: bool = False) -> Pipeline:
        names: list[str] = []
        is_new = False
        if not is_inner:
            kinds = [(token.kind, token.text) for token in self._tokens[:4]]
            for count in (3, 1) if is_range else (1,):
                marks = kinds[count : count + 1]
                if kinds[:1] and kinds[0][0] == "variable" and marks in ([("mark", ":=")], [("mark", "=")]):
                    taken = [self._take() for _ in range(count)]
                    if count == 3 and (taken[1].text != "," or taken[2].kind != "variable"):
                        raise self._failed("$index, $element := belongs here", taken[1].at)
                    is_new = self._take().text == ":="
                    names = [token.text for token in taken if token.kind == "variable"]
                    break
        commands = [self._command(at)]
        while (token := self._peek()) is not None and token.text == "|":
            self._take()
            commands.append(self._command(token.at))
        for name in names:
            if not is_new and name not in self._known:
                raise self._failed(f"{name} is no variable yet", at, f"{{{{{name} := …}}}} makes it one")
        if is_new:
            self._known += names
        for number, command in enumerate(commands):
            if number and command[0].kind == "literal":
                raise self._failed("what follows a | must be a function", command[0].at)
        return Pipeline(tuple(commands), tuple(names), is_new)

    def _command(self, at: int) -> tuple[Operand, ...]:
        operands = []
        while (token := self._peek()) is not None and token.text not in ("|", ")"):
            operands.append(self._operand())
        if not operands:
            raise self._failed("a value is missing", at)
        if operands[0].kind == "literal" and operands[0].value is None:
            raise self._failed("nil is nothing to write", operands[0].at)
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._take()
        value: Any = None
        kind = "literal"
        match token.kind:
            case "dot":
                kind = "dot"
            case "field":
                return Operand("dot", None, (token.text[1:], *self._fields(token)), token.at)
            case "variable":
                if token.text not in self._known:
                    raise self._failed(f"{token.text} is no variable", token.at)
                kind, value = "variable", token.text
            case "string":
                value = _string(token.text, lambda why: self._failed(why, token.at))
            case "char":
                text = _string(token.text, lambda why: self._failed(why, token.at))
                if len(text) != 1:
                    raise self._failed("a character stands between ' and '", token.at)
                value = ord(text)
            case "number":
                value = self._number(token)
            case "word" if token.text in ("true", "false", "nil"):
                value = {"true": True, "false": False, "nil": None}[token.text]
            case "word" if token.text in FUNCTIONS or token.text in ("and", "or"):
                kind, value = "function", token.text
            case "word" if token.text in _REFUSED:
                raise self._failed(f"there is no {token.text} here", token.at)
            case "word":
                hint = near(token.text, FUNCTIONS)
                raise self._failed(f"there is no function {token.text}", token.at, hint or f".{token.text} is a field")
            case "mark" if token.text == "(":
                with self._deeper(token.at):
                    value = self._pipeline(token.at, is_inner=True)
                closing = self._peek()
                if closing is None or closing.text != ")":
                    raise self._failed("( without a )", token.at)
                token = self._take()
                kind = "pipeline"
            case _:
                raise self._failed(f"{token.text!r} cannot stand here", token.at)
        fields = self._fields(token)
        if fields and kind not in ("variable", "pipeline"):
            raise self._failed("a field of what has none", token.at)
        return Operand(kind, value, fields, token.at)

    def _fields(self, before: _Token) -> tuple[str, ...]:
        """.a.b right behind an operand, without a blank between."""
        fields = []
        end = before.at + len(before.text)
        while (token := self._peek()) is not None and token.kind == "field" and token.at == end:
            fields.append(self._take().text[1:])
            end = token.at + len(token.text)
        return tuple(fields)

    def _number(self, token: _Token) -> int | float:
        text = token.text
        try:
            if re.fullmatch(r"[+-]?0[0-7_]+", text):
                value: int | float = int(text, 8)
            elif re.fullmatch(r"[+-]?(?:0[xXoObB]\w+|[0-9_]+)", text):
                value = int(text, 0)
            else:
                return float(text)
        except ValueError:
            raise self._failed(f"{text} is no number", token.at) from None
        if not -(1 << 63) <= value < 1 << 64:
            raise self._failed("the number has more than 64 bits", token.at)
        return value

    def _peek(self) -> _Token | None:
        return self._tokens[0] if self._tokens else None

    def _take(self) -> _Token:
        return self._tokens.pop(0)

    def _whole(self) -> None:
        """Nothing may be left in these braces."""
        if self._tokens:
            raise self._failed(f"{self._tokens[0].text!r} cannot stand here", self._tokens[0].at)

    @contextmanager
    def _deeper(self, at: int) -> Iterator[None]:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise self._failed(f"more than {DEPTH_LIMIT} levels", at)
        yield
        self._depth -= 1

    def _failed(self, message: str, at: int, hint: str = "") -> UsageError:
        return failed(self._text, min(at, max(0, len(self._text) - 1)), message, hint)


def _string(text: str, error: Callable[[str], UsageError]) -> str:
    """What a quoted text says."""
    if text[0] == "`":
        return text[1:-1]

    def value(match: re.Match[str]) -> str:
        code = match[1]
        if code in _ESCAPES:
            return _ESCAPES[code]
        try:
            return chr(int(code, 8) if code.isdigit() else int(code[1:], 16))
        except (ValueError, OverflowError):
            raise error(f"\\{code} is no escape") from None

    return _ESCAPE.sub(value, text[1:-1])


def near(word: str, known: Mapping[str, object]) -> str:
    """A hint: the known word that it could have been meant for; "" if there is none."""
    by_lower = {name.lower(): name for name in known}
    return did_you_mean(word.lower(), by_lower, shown=by_lower.__getitem__)
