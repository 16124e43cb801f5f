r"""Words of a Dockerfile: quotes, escapes and ${variables}, as BuildKit's lexer reads them.

    word    = { char | "\" char | "'" … "'" | '"' … '"' | variable }
    variable = "$" name | "${" name "}"
             | "${" name [":"] ("-" | "+" | "?") word "}"
             | "${" name ("#" | "##" | "%" | "%%") pattern "}"
             | "${" name "/" ["/"] pattern "/" word "}"

In a pattern, `*` is any text and `?` any character. Patterns come from the user, so they are matched
without backtracking; nesting and the length of results are limited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nbcontain.errors import DockerfileError
from nbcontain.values import dataclass, field
from nbcontain.whitespace import WHITESPACE

MAX_DEPTH = 100
MAX_LENGTH = 1 << 20
MAX_TOGETHER = 16 << 20
_SPECIAL = "@*#?-$!0"
_MEANS_SOMETHING = re.compile(r"""[$'"\\`]""")
_PLAIN = re.compile(r"""[^$'"\\`/}]+""")
"""A run of characters that mean nothing, whatever the escape character and the end that is looked for."""
_PLAIN_IN_QUOTES = re.compile(r"""[^$"\\`]+""")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""How nearly all names are written, or begin."""
_SPACES = re.compile(f"[{WHITESPACE}]+")


@dataclass(slots=True)
class Room:
    """What the words of one Dockerfile may come to together: each may be as long as variables can make it, and they
    are many."""

    left: int = MAX_TOGETHER

    def taken(self, value: str) -> str:
        """The value, which takes its room. Raises DockerfileError, without a span, where there is none left."""
        self.left -= len(value)
        if self.left < 0:
            raise DockerfileError(f"the values in it become longer than {MAX_TOGETHER} characters together")
        return value


def expand(
    word: str, variables: Mapping[str, str], escape: str = "\\", missing: set[str] | None = None,
    room: Room | None = None,
) -> str:  # fmt: skip
    """The word with variables filled in, quotes and escapes removed.

    Names without a value are added to `missing`; `room` is what there is for it. Raises DockerfileError, without a
    span.
    """
    if _MEANS_SOMETHING.search(word) is None:
        return word
    value = _Lexer(word, variables, escape, missing).until("", keep_escapes=False)
    return room.taken(value) if room else value


def expand_document(text: str, variables: Mapping[str, str], missing: set[str] | None = None) -> str:
    r"""A heredoc that becomes a file: variables are filled in, a backslash makes the next character plain and goes.

    Quotes are characters like others, and the escape directive does not count. Raises DockerfileError, without a span.
    """
    return _Lexer(text, variables, "\\", missing, quotes=False).until("", keep_escapes=False)


def split(word: str, variables: Mapping[str, str], escape: str = "\\", missing: set[str] | None = None) -> list[str]:
    """Like `expand`, then split at spaces that were neither quoted nor escaped."""
    return _Lexer(word, variables, escape, missing).split()


def raw_words(text: str, *, plain: bool = False) -> list[str]:
    r"""The words of a text, split at spaces that were neither quoted nor escaped; variables stay as they are.

    Quotes and escapes stay too, unless `plain`. Raises DockerfileError for a quote or a ${ that is not closed.
    """
    return _RawLexer(text, plain).split(keep_escapes=not plain)


@dataclass(slots=True)
class _Words:
    """Collects the words of a text, piece by piece."""

    done: list[str] = field(default_factory=list)
    word: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Text in which spaces separate."""
        for number, part in enumerate(_SPACES.split(text)):
            if number and self.word:
                self.end()
            if part:
                self.word.append(part)

    def add_raw(self, text: str) -> None:
        """Text in which spaces are part of the word."""
        self.word.append(text)

    def end(self) -> list[str]:
        # A quoted nothing ("") is no word: so it is in BuildKit.
        if joined := "".join(self.word):
            self.done.append(joined)
        self.word = []
        return self.done


_HINTS = {
    "is not closed": "Close it, or put \\ before it if it is a sign like others.",
    "missing '}'": "It reads ${NAME}, or ${NAME:-default}; a dollar sign that is none reads \\$.",
    "bad substitution": "It reads ${NAME}, or ${NAME:-default}; a dollar sign that is none reads \\$.",
    "no way to use a variable": "There is ${NAME:-default}, ${NAME:+other}, ${NAME:?message}, # % and /.",
}
"""What to try, by what the message says."""


class _Lexer:
    """One pass over one text."""

    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, missing: set[str] | None, *, quotes: bool = True
    ) -> None:
        self.quotes = quotes
        self.text = text
        self.variables = variables
        self.escape = escape
        self.missing = missing
        self.at = 0
        self.depth = 0

    def split(self, *, keep_escapes: bool = False) -> list[str]:
        """The words of the text."""
        words = _Words()
        self.until("", keep_escapes, words)
        return words.end()

    def peek(self) -> str:
        """The next character; "" at the end."""
        return self.text[self.at : self.at + 1]

    def next(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def error(self, message: str) -> DockerfileError:
        why = f"in {self.text!r}" if len(self.text) <= 200 else ""
        hint = next((hint for part, hint in _HINTS.items() if part in message), "")
        return DockerfileError(message, why=why, hint=hint.replace("\\", self.escape))

    def until(self, stop: str, keep_escapes: bool, words: _Words | None = None) -> str:
        """Everything up to the character `stop` (which is consumed); "" means the end. `words` gets it piece by piece.
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"variables are nested more than {MAX_DEPTH} deep")
        result: list[str] = []
        length, text = 0, self.text
        while char := text[self.at : self.at + 1]:
            if char == stop:
                break
            is_raw = False
            if run := _PLAIN.match(text, self.at):
                piece = run[0]
                self.at = run.end()
            elif char == "$":
                piece = self.dollar()
            elif char == "'" and self.quotes:
                piece, is_raw = self.single_quotes(), True
            elif char == '"' and self.quotes:
                piece, is_raw = self.double_quotes(keep_escapes), True
            elif char == self.escape:
                piece, is_raw = text[self.at + 1 : self.at + 2], True
                self.at += 2
                if keep_escapes:
                    piece = char + piece
            else:
                piece = char
                self.at += 1
            if words is not None:
                (words.add_raw if is_raw else words.add)(piece)
            result.append(piece)
            length = self.check(length + len(piece))
        if stop and not self.peek():
            raise self.error(f"missing {stop!r}")
        self.at += 1
        self.depth -= 1
        return "".join(result)

    def check(self, length: int) -> int:
        if length > MAX_LENGTH:
            raise self.error(f"a value becomes longer than {MAX_LENGTH} characters")
        return length

    def single_quotes(self) -> str:
        """Everything between two ' as it is; nothing escapes in there."""
        self.next()
        end = self.text.find("'", self.at)
        if end < 0:
            raise self.error("a single quote (') is not closed")
        inside = self.text[self.at : end]
        self.at = end + 1
        return inside

    def double_quotes(self, keep_escapes: bool) -> str:
        """Between two ", variables count, and the escape character before " $ and itself."""
        self.next()
        result: list[str] = []
        length, text = 0, self.text
        while char := text[self.at : self.at + 1]:
            if char == '"':
                self.next()
                return "".join(result)
            if run := _PLAIN_IN_QUOTES.match(text, self.at):
                piece = run[0]
                self.at = run.end()
            else:
                piece = self.dollar() if char == "$" else self.next()
            if char == self.escape and char != "$":
                following = self.peek()
                if not following:
                    break
                if following in ('"', "$", self.escape):
                    piece = self.next()
                    if keep_escapes:
                        piece = char + piece
            result.append(piece)
            length = self.check(length + len(piece))
        raise self.error('a double quote (") is not closed')

    def dollar(self) -> str:
        self.next()
        if self.peek() != "{":
            name = self.name()
            return self.lookup(name) or "" if name else "$"
        self.next()
        if self.peek() in ("", "{", "}", ":"):
            raise self.error("bad substitution" if self.peek() else "missing '}'")
        name = self.name()
        operator = self.next()
        if operator == "}":
            return self.lookup(name) or ""
        if operator == "/":
            return self.replace(name)
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self.next()
        if not operator:
            raise self.error("missing '}'")
        if operator not in "-+?#%" or (empty_is_unset and operator in "#%"):
            shown = ":" * empty_is_unset + operator
            raise self.error(f"{shown!r} is no way to use a variable: ${{{name}{shown}…}}")
        word = self.until("}", keep_escapes=operator in "#%")
        value = self.lookup(name, is_asked=operator in "-+?")
        if operator in "#%":
            return self.trim(value or "", word, operator)
        is_set = value is not None and not (empty_is_unset and value == "")
        match operator:
            case "-":
                return value or "" if is_set else word
            case "+":
                return word if is_set else ""
            case _:
                if is_set:
                    return value or ""
                fallback = "is not allowed to be unset" if value is None else "is not allowed to be empty"
                raise DockerfileError(
                    f"{name}: {word or fallback}", why=f"${{{name}{':' * empty_is_unset}?…}} asks for it"
                )

    def name(self) -> str:
        """letters, digits and _; or all digits; or one of the shell's special names. "" for anything else."""
        start = self.at
        if found := _NAME.match(self.text, start):
            self.at = found.end()
        if self.at == start and self.peek().isdigit():
            while self.peek().isdigit():
                self.at += 1
        elif self.at == start and self.peek() and self.peek() in _SPECIAL:
            self.at += 1
        else:
            while self.peek() == "_" or self.peek().isalpha() or self.peek().isdigit():
                self.at += 1
        return self.text[start : self.at]

    def lookup(self, name: str, is_asked: bool = False) -> str | None:
        value = self.variables.get(name)
        # ${name:-…} asks whether there is one, so that its absence is no oversight.
        if value is None and self.missing is not None and not is_asked and name.isidentifier():
            self.missing.add(name)
        return value

    def trim(self, value: str, pattern: str, operator: str) -> str:
        longest = pattern.startswith(operator)
        glob = self.glob(pattern[longest:])
        if operator == "#":
            end = glob.prefix(value, longest)
            return value if end is None else value[end:]
        end = glob.reversed().prefix(value[::-1], longest)
        return value if end is None else value[: len(value) - end]

    def replace(self, name: str) -> str:
        everywhere = self.peek() == "/"
        if everywhere:
            self.next()
        pattern = self.until("/", keep_escapes=True)
        replacement = self.until("}", keep_escapes=True)
        value = self.lookup(name) or ""
        glob = self.glob(pattern)
        result: list[str] = []
        length = position = 0
        last_end = -1
        while found := glob.search(value, position):
            start, end = found
            if start == end == last_end:
                # As in Go, an empty match right behind another match does not count.
                if start >= len(value):
                    break
                found = glob.search(value, start + 1)
                if found is None:
                    break
                start, end = found
            result += (value[max(last_end, 0) : start], replacement)
            length = self.check(length + start - max(last_end, 0) + len(replacement))
            last_end = position = end
            if not everywhere:
                break
        return "".join(result) + value[max(last_end, 0) :]

    def glob(self, pattern: str) -> _Glob:
        return _Glob.parse(pattern)


class _RawLexer(_Lexer):
    """Reads words without a value for any variable, and keeps what it reads (BuildKit: RawQuotes, SkipUnsetEnv)."""

    def __init__(self, text: str, plain: bool) -> None:
        super().__init__(text, {}, "\\", None)
        self.plain = plain

    def single_quotes(self) -> str:
        inside = super().single_quotes()
        return inside if self.plain else f"'{inside}'"

    def double_quotes(self, keep_escapes: bool) -> str:
        inside = super().double_quotes(keep_escapes)
        return inside if self.plain else f'"{inside}"'

    def dollar(self) -> str:
        self.next()
        if self.peek() != "{":
            return "$" + self.name()
        self.next()
        if self.peek() in ("", "{", "}", ":"):
            raise self.error("bad substitution" if self.peek() else "missing '}'")
        name, operator = self.name(), self.next()
        if operator == "}":
            return f"${{{name}}}"
        if operator == "/":
            # ${name//…} begins with an empty pattern for all that matters here: the slash is part of what is kept.
            slash = self.next() if self.peek() == "/" else ""
            pattern, replacement = self.until("/", keep_escapes=True), self.until("}", keep_escapes=True)
            return f"${{{name}/{slash}{pattern}/{replacement}}}"
        if not operator or operator not in ":+-?#%":
            raise self.error(f"{operator!r} is no way to use a variable" if operator else "missing '}'")
        if operator == ":":
            operator += self.next()
        word = self.until("}", keep_escapes=operator[-1] in "#%")
        return f"${{{name}{operator}{word}}}"


_ANY = None
_Block = tuple[str | None, ...]
"""Characters to find one after the other; None stands for any one (but a newline)."""


@dataclass(frozen=True, slots=True)
class _Glob:
    """A pattern: blocks with anything (but newlines) between them."""

    blocks: tuple[_Block, ...]

    @classmethod
    def parse(cls, pattern: str) -> _Glob:
        blocks: list[list[str | None]] = [[]]
        characters = iter(pattern)
        for char in characters:
            if char == "*":
                blocks.append([])
            elif char == "?":
                blocks[-1].append(_ANY)
            elif char == "\\":
                following = next(characters, "")
                if following not in tuple("*?\\}/"):
                    raise DockerfileError(
                        f"invalid escape '\\{following}' in the pattern {pattern!r}",
                        why=r"only \* \? \\ \} and \/ are escapes",
                    )
                blocks[-1].append(following)
            else:
                blocks[-1].append(char)
        return cls(tuple(map(tuple, blocks)))

    def reversed(self) -> _Glob:
        return _Glob(tuple(block[::-1] for block in self.blocks[::-1]))

    def prefix(self, value: str, longest: bool, start: int = 0) -> int | None:
        """Where the shortest or longest match from `start` ends; None if there is none."""
        first, *rest = map(_regex, self.blocks)
        expression = first
        # The earliest place of each block leaves most room to those behind it, so that nothing needs to be
        # tried again: atomic groups. For the longest match only the last block is looked for from the end.
        for block in rest[:-1] if longest else rest:
            expression += f"(?>.*?{block})"
        if longest and rest:
            expression += f".*{rest[-1]}"
        match = re.compile(expression).match(value, start)
        return match.end() if match else None

    def search(self, value: str, start: int) -> tuple[int, int] | None:
        """The leftmost match from `start` on, as long as can be."""
        first = re.compile(_regex(self.blocks[0]))
        while found := first.search(value, start):
            end = self.prefix(value, longest=True, start=found.start())
            if end is not None:
                return found.start(), end
            # What does not follow this first block on its line does not follow a later one on it either.
            newline = value.find("\n", found.start())
            if newline < 0:
                return None
            start = newline + 1
        return None


def _regex(block: _Block) -> str:
    return "".join("." if char is _ANY else re.escape(char) for char in block)
