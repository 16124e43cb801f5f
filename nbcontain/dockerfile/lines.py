"""Logical lines of a Dockerfile: directives, comments, continuations, heredocs, flags – as BuildKit reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbcontain.dockerfile.ast import Heredoc, Remark
from nbcontain.dockerfile.json_form import NotStrings, json_strings
from nbcontain.dockerfile.rules import RULES
from nbcontain.dockerfile.words import raw_words
from nbcontain.errors import DockerfileError, Span
from nbcontain.values import dataclass, replace
from nbcontain.whitespace import WHITESPACE

MAX_SOURCE_BYTES = 1 << 20
MAX_LINE_BYTES = (1 << 16) - 1
_SKIP = re.compile(r"check\s*=\s*skip\s*=(.*)", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#[\t\n\f\r ]*([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*")
_KEYWORD_END = re.compile(r"[\t\v\f\r ]+")
_OWN_SYNTAX = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?([:@].*)?")
_HEREDOC = re.compile(r"([0-9]*)<<(-?+)([^<]+)")
_EMPTY_HINT = "Remove the empty line, or begin it with #."
_BLANK = "\t\n\v\f\r "
_PLAIN = re.compile(rf"""[^{_BLANK}'"\\]+""")
"""A run of characters that mean nothing in a flag."""
_TAKES_HEREDOC = ("RUN", "COPY", "ADD")


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, continuations joined and comments gone, not understood yet."""

    span: Span
    keyword: str
    """In capitals."""
    flags: tuple[str, ...]
    rest: str
    """What stands behind keyword and flags, without space around it."""
    text: str
    """The whole joined line as written."""
    escape: str
    heredocs: tuple[Heredoc, ...] = ()
    comment: str = ""
    """The comment on the line above; "" if there is none."""
    skipped: frozenset[str] = frozenset()
    """Checks that a comment right above takes back for this instruction: # check=skip=RULE,… // why."""


def is_own_syntax(text: str) -> bool:
    """Whether `# syntax=` names the language that is read here, and not another program to read the file with."""
    words = text.split()
    return not words or _OWN_SYNTAX.fullmatch(words[0]) is not None


def _skipped(comment: str) -> Iterator[str]:
    """The checks that a comment takes back; none if it says something else."""
    if match := _SKIP.match(comment):
        yield from (name.strip() for name in match[1].partition("//")[0].split(","))


@dataclass(slots=True)
class Lines:
    """Reads the logical lines of `source`; afterwards `escape`, `check` and `remarks` are known."""

    source: str
    escape: str = "\\"
    check: str = ""
    remarks: tuple[Remark, ...] = ()

    def __iter__(self) -> Iterator[Line]:
        """Raises DockerfileError at the first mistake."""
        physical = self._physical()
        directives = self._directives(physical)
        number = 0
        comment, skipped = "", frozenset[str]()
        while number < len(physical):
            number += 1
            first = number
            line = physical[number - 1].lstrip(WHITESPACE)
            joined, goes_on = self._without_continuation("" if line.startswith("#") else line)
            if not goes_on and not joined:
                comment = line[1:].strip(WHITESPACE) if line.startswith("#") else ""
                skipped = skipped.union(_skipped(comment) if number > directives else ()) if comment else frozenset()
                continue
            empty_lines = False
            while goes_on and number < len(physical):
                line = physical[number]
                number += 1
                stripped = line.lstrip(WHITESPACE)
                if stripped.startswith("#"):
                    continue
                if not stripped:
                    empty_lines = True
                    continue
                line, goes_on = self._without_continuation(line)
                joined += line
            if not joined.strip(WHITESPACE):
                continue
            span = Span(first, number)
            if empty_lines:
                self.remarks += (RULES["NoEmptyContinuation"].found(Span(number, number), hint=_EMPTY_HINT),)
            read = split_line(joined, span, self.escape)
            heredocs, number = self._heredocs(read, physical, number)
            comment = "" if skipped and _SKIP.match(comment) else comment
            if heredocs or comment or skipped:
                read = replace(read, span=Span(first, number), heredocs=heredocs, comment=comment, skipped=skipped)
            yield read
            comment, skipped = "", frozenset()

    def _physical(self) -> list[str]:
        if len(self.source) > MAX_SOURCE_BYTES:
            raise DockerfileError(f"a Dockerfile of more than {MAX_SOURCE_BYTES >> 20} MiB is none")
        # Only newlines end a line: str.splitlines would also break at form feeds and Unicode's separators.
        physical = [line.rstrip("\r") for line in self.source.removeprefix("\ufeff").split("\n")]
        if not physical[-1]:
            physical.pop()  # what is behind the last newline is no line
        for number, line in enumerate(physical, 1):
            if "\0" in line:
                raise self._error("a NUL character", number, why="text files have none: is this a Dockerfile?")
            if len(line.encode("utf-8", "surrogateescape")) > MAX_LINE_BYTES:
                raise self._error(
                    f"a line of more than {MAX_LINE_BYTES} bytes", number, hint="Continue it on the next line with \\."
                )
        return physical

    def _directives(self, physical: list[str]) -> int:
        """Comments at the very top that mean something: # escape=`, # syntax=…, # check=…; how many there are."""
        seen: set[str] = set()
        for number, line in enumerate(physical, 1):
            match = _DIRECTIVE.fullmatch(line.lstrip(WHITESPACE))
            name = match[1].lower() if match else ""
            if match is None or name not in ("escape", "syntax", "check"):
                return number - 1
            if name in seen:
                raise self._error(f"only one {name} directive can be used", number)
            seen.add(name)
            if name == "check":
                self.check = match[2]
            if name == "escape":
                if match[2] not in ("\\", "`"):
                    raise self._error(f"invalid escape character {match[2]!r}", number, hint="It is either \\ or `.")
                self.escape = match[2]
            # Another frontend is a program from a registry that would read this file: never run here.
            if name == "syntax" and not is_own_syntax(match[2]):
                raise self._error(
                    f"the syntax {match[2]!r} is a Dockerfile feature that nbcontain does not have",
                    number,
                    why="it names a program to read this file with; nbcontain reads docker/dockerfile itself",
                    hint="Remove the line, or write # syntax=docker/dockerfile:1",
                )
        return len(physical)

    def _error(self, message: str, number: int, *, why: str = "", hint: str = "") -> DockerfileError:
        return DockerfileError(message, Span(number, number), self.source, why=why, hint=hint)

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        """The line without the escape character at its end, and whether there was one."""
        stripped = line.rstrip(" \t")
        # Two of them are an escaped escape, and end the line.
        if stripped.endswith(self.escape) and not stripped.endswith(self.escape * 2):
            return stripped[:-1], True
        return line, False

    def _heredocs(self, line: Line, physical: list[str], number: int) -> tuple[tuple[Heredoc, ...], int]:
        """The documents that `line` announces, and the number of the last line they take."""
        found: list[Heredoc] = []
        raw_lines = self.source.split("\n") if "\r" in self.source else physical
        for heredoc in announced_heredocs(line):
            name, chomps = heredoc.name, heredoc.chomp
            content: list[str] = []
            while True:
                if number >= len(physical):
                    raise DockerfileError(
                        f"the heredoc <<{name} has no end",
                        line.span,
                        self.source,
                        hint=f"Its last line is {name}, alone.",
                    )
                # Its lines are kept as they are, carriage returns too.
                raw = raw_lines[number]
                body = raw.rstrip("\r")
                number += 1
                if (body.lstrip("\t") if chomps else body) == name:
                    break
                content.append(raw + "\n")
            found.append(replace(heredoc, content="".join(content)))
        return tuple(found), number


def split_line(text: str, span: Span, escape: str) -> Line:
    """Keyword, flags and rest of one joined line."""
    text = text.strip(WHITESPACE)
    keyword, *behind = _KEYWORD_END.split(text, maxsplit=1)
    flags, rest = _flags(behind[0] if behind else "")
    return Line(span, keyword.upper(), flags, rest.strip(WHITESPACE), text, escape)


def _flags(text: str) -> tuple[tuple[str, ...], str]:
    """The words in front that begin with --, quotes removed, and what follows them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in _BLANK:
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, quote = "", ""
        while at < len(text) and (quote or text[at] not in _BLANK):
            if run := _PLAIN.match(text, at):
                word += run[0]
                at = run.end()
                continue
            char = text[at]
            at += 1
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif char == "\\":
                word += text[at : at + 1]
                at += 1
            else:
                word += char
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)


def announced_heredocs(line: Line) -> list[Heredoc]:
    """Each heredoc that begins on this line, without its content; BuildKit looks at all of the line, flags too."""
    inner = split_line(line.rest, line.span, line.escape) if line.keyword == "ONBUILD" else line
    if inner.keyword not in _TAKES_HEREDOC or "<<" not in line.text or _is_json(inner.rest):
        return []
    try:
        words = raw_words(line.text)
    except DockerfileError:  # a quote that is not closed: then << is the shell's matter
        return []
    return [heredoc for word in words if (heredoc := heredoc_of(word))]


def _is_json(text: str) -> bool:
    try:
        return json_strings(text) is not None
    except NotStrings:
        return True


def heredoc_of(word: str) -> Heredoc | None:
    """The heredoc, without its content, that this whole word announces; None if it is another word."""
    match = _HEREDOC.fullmatch(word) if "<<" in word else None
    if match is None:
        return None
    try:
        names = raw_words(match[3], plain=True)
    except DockerfileError:  # a quote that is not closed
        return None
    if len(names) != 1:
        return None
    is_quoted = sum(map(match[3].count, "'\"")) != sum(map(names[0].count, "'\""))
    return Heredoc(names[0], "", expand=not is_quoted, chomp=match[2] == "-", fd=int(match[1] or 0))
