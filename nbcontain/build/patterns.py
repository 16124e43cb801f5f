r"""Patterns for file names: Go's path.Match for COPY, and moby's patternmatcher for .dockerignore.

    *      anything but a slash            ?      one character but a slash
    [a-z]  one of these, [^a-z] not        \x     x itself
    **     anything, slashes too (only in .dockerignore)

Patterns come from files that others wrote, so they are matched by an automaton in linear time, not by
Python's backtracking regular expressions.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence

from nbcontain.errors import BuildError
from nbcontain.values import dataclass, field
from nbcontain.whitespace import WHITESPACE

_MAX_TRANSITIONS = 4096
WILDCARDS = "*?["
_ANY_NAME = "\x01"
"""One that nobody spells out: what matches it matches whatever there is."""


class BadPattern(BuildError):
    """A pattern that is not well-formed, such as one with a [ that is not closed."""


@dataclass(frozen=True, slots=True)
class _Characters:
    """One character: in one of these ranges, or in none of them. A slash only where it says so."""

    ranges: tuple[tuple[str, str], ...] = ()
    is_negated: bool = False
    takes_slash: bool = True

    def __contains__(self, char: str) -> bool:
        if char == "/" and not self.takes_slash:
            return False
        return any(low <= char <= high for low, high in self.ranges) != self.is_negated


_ANY = _Characters(is_negated=True)
_NO_SLASH = _Characters(is_negated=True, takes_slash=False)
_SLASH = _Characters((("/", "/"),))


def _one(char: str) -> _Characters:
    return _Characters(((char, char),))


@dataclass(slots=True)
class Glob:
    """A compiled pattern: an automaton whose states are numbered along the pattern.

    `steps[s]` are the characters that lead on from state s and where to; `free[s]` the states that are
    reached from s without reading anything. Sets of states are bits of an int.
    """

    text: str
    steps: list[list[tuple[_Characters, int]]] = field(default_factory=lambda: [[]])
    free: list[list[int]] = field(default_factory=lambda: [[]])
    _seen: dict[tuple[int, str], int] = field(default_factory=dict)

    @classmethod
    def compile(cls, text: str, *, double_star: bool = False) -> Glob:
        """Raises BadPattern."""
        glob = cls(text)
        at = 0
        while at < len(text):
            char = text[at]
            at += 1
            if char == "*" and double_star and text.startswith("*", at):
                at += 1
                # The slash behind ** belongs to it: **/x is also x.
                at += text.startswith("/", at)
                glob._any_directories() if at < len(text) else glob._many(_ANY)
            elif char == "*":
                glob._many(_NO_SLASH)
            elif char == "?":
                glob._next(_NO_SLASH)
            elif char == "[":
                characters, at = _class(text, at)
                glob._next(characters)
            elif char == "\\":
                if at == len(text):
                    raise BadPattern(f"the pattern {text!r} ends in the middle of an escape")
                glob._next(_one(text[at]))
                at += 1
            else:
                glob._next(_one(char))
        return glob

    def _state(self) -> int:
        self.steps.append([])
        self.free.append([])
        return len(self.steps) - 1

    def _next(self, characters: _Characters) -> None:
        here = len(self.steps) - 1
        self.steps[here].append((characters, self._state()))

    def _many(self, characters: _Characters) -> None:
        here = len(self.steps) - 1
        self.steps[here].append((characters, here))
        self.free[here].append(self._state())

    def _any_directories(self) -> None:
        """Nothing, or anything that ends with a slash."""
        here = len(self.steps) - 1
        inside, behind = self._state(), self._state()
        self.free[here] += [inside, behind]
        self.steps[inside] += [(_ANY, inside), (_SLASH, behind)]

    def matches(self, name: str) -> bool:
        """Whether the whole name is what the pattern says."""
        states = self._closure(1)
        for char in name:
            if not states:
                return False
            following = self._seen.get((states, char))
            if following is None:
                if len(self._seen) >= _MAX_TRANSITIONS:
                    self._seen.clear()
                following = self._seen[states, char] = self._step(states, char)
            states = following
        return bool(states >> (len(self.steps) - 1) & 1)

    def _step(self, states: int, char: str) -> int:
        reached = 0
        for state in _bits(states):
            for characters, target in self.steps[state]:
                if char in characters:
                    reached |= 1 << target
        return self._closure(reached)

    def _closure(self, states: int) -> int:
        # Free steps only lead to higher states, so that one pass upwards finds them all.
        for state, targets in enumerate(self.free):
            if targets and states >> state & 1:
                for target in targets:
                    states |= 1 << target
        return states


def _bits(states: int) -> Iterator[int]:
    while states:
        lowest = states & -states
        yield lowest.bit_length() - 1
        states ^= lowest


def _class(text: str, at: int) -> tuple[_Characters, int]:
    """The characters of [ … ] and where it ends; `at` is behind the [."""
    negated = text.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and text.startswith("]", at)):
        low, at = _class_character(text, at)
        high = low
        if text.startswith("-", at):
            high, at = _class_character(text, at + 1)
        ranges.append((low, high))
    return _Characters(tuple(ranges), negated), at + 1


def _class_character(text: str, at: int) -> tuple[str, int]:
    escaped = text.startswith("\\", at)
    char = text[at + escaped : at + escaped + 1]
    if not char or (char in "-]" and not escaped):
        raise BadPattern(f"the pattern {text!r} has a [ without a proper ]", hint=r"A [ that is a character is \[.")
    return char, at + escaped + 1


def has_wildcards(text: str) -> bool:
    """Whether this COPY source is a pattern: an unescaped * ? or [."""
    escaped = False
    for char in text:
        if not escaped and char in WILDCARDS:
            return True
        escaped = char == "\\" and not escaped
    return False


@dataclass(frozen=True, slots=True)
class IgnorePattern:
    """One line of .dockerignore."""

    text: str
    """Cleaned, without the !."""
    line: int
    readmits: bool
    """It begins with !: what it matches is not ignored after all."""
    glob: Glob

    def matches(self, path: str) -> bool:
        # moby takes these two shapes literally, and there ** need not stop at a slash.
        rest = self.text.replace("**", "", 1)
        if not any(char in rest for char in WILDCARDS + "]\\"):
            if self.text.startswith("**"):
                return path.endswith(rest) or (rest.startswith("/") and path == rest[1:])
            if self.text.endswith("**"):
                return path.startswith(rest)
        return self.glob.matches(path)


Matched = tuple[bool, ...]
"""For each pattern, whether it matches a directory or one above it."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """A .dockerignore file: the last pattern that matches a path or one of its parents decides."""

    patterns: tuple[IgnorePattern, ...] = ()
    name: str = field(default=".dockerignore", compare=False)

    @classmethod
    def parse(cls, text: str, name: str = ".dockerignore") -> Ignore:
        """Raises BadPattern, naming the line."""
        return cls._parsed(text, name, lambda number: f"line {number} of {name}")

    @classmethod
    def _parsed(cls, text: str, name: str, place: Callable[[int], str]) -> Ignore:
        patterns: list[IgnorePattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not (pattern := line.strip(WHITESPACE)):
                continue
            readmits = pattern.startswith("!")
            pattern = pattern[readmits:].strip(WHITESPACE)
            if not pattern:
                raise BadPattern(f"{place(number)} is a ! and nothing else")
            cleaned = posixpath.normpath(pattern).lstrip("/") or "/"
            try:
                glob = Glob.compile(cleaned, double_star=True)
            except BadPattern as error:
                raise BadPattern(f"{place(number)}: {error.message}", hint=error.hint) from error
            patterns.append(IgnorePattern(cleaned, number, readmits, glob))
        return cls(tuple(patterns), name)

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Ignore:
        """Patterns that were given one by one. Raises BadPattern."""
        text = "\n".join(f"!{each[1:]}" if each.startswith("!") else f"./{each}" for each in patterns)
        return cls._parsed(text, "", lambda number: "--exclude")

    @property
    def nothing_matched(self) -> Matched:
        """What holds for the root."""
        return (False,) * len(self.patterns)

    def match(self, path: str, parent: Matched) -> tuple[bool, Matched]:
        """Whether `path` is ignored, and what its children need to be told; `parent` is what its parent got."""
        ignored = False
        matched: list[bool] = []
        for pattern, of_parent in zip(self.patterns, parent, strict=True):
            # Asked only where the answer can change something, as patternmatcher's MatchesUsingParentResults does:
            # what it does not ask it does not pass down either.
            matches = of_parent or (pattern.readmits == ignored and pattern.matches(path))
            matched.append(matches)
            if matches:
                ignored = not pattern.readmits
        return ignored, tuple(matched)

    def ignoring(self, path: str) -> IgnorePattern | None:
        """The pattern because of which `path` is ignored; None if it is not."""
        state, ignored = self.nothing_matched, False
        for above in _above(path):
            ignored, state = self.match(above, state)
        if not ignored:
            return None
        return [each for each, matches in zip(self.patterns, state, strict=True) if matches and not each.readmits][-1]

    def leaves_out(self, source: str) -> bool:
        """Whether nothing that a COPY's source names is in the context, for sure; "." is all of it."""
        pattern = self.ignoring(_ANY_NAME if source == "." else source)
        if pattern is None:
            return False
        behind = self.patterns[self.patterns.index(pattern) + 1 :]
        return not any(each.readmits and (source == "." or _can_meet(each.text, source)) for each in behind)

    def may_readmit_below(self, directory: str) -> bool:
        """Whether a ! pattern could match something in this ignored directory, so that it must be looked through."""
        return any(pattern.readmits and _can_begin_with(pattern.text, directory) for pattern in self.patterns)


def _above(path: str) -> Sequence[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _can_meet(pattern: str, source: str) -> bool:
    """Whether a pattern could match what a source with wildcards names, or something below it."""
    components, parts = pattern.split("/"), source.split("/")
    for part, component in zip(parts, components, strict=False):
        if "**" in component or "**" in part:
            return True
        if not Glob.compile(component).matches(part):
            try:
                if not has_wildcards(part) or not Glob.compile(part).matches(component):
                    return False
            except BadPattern:
                # Whoever copies tells what is wrong with it.
                return True
    return len(components) >= len(parts)


def _can_begin_with(pattern: str, directory: str) -> bool:
    components = pattern.split("/")
    for part, component in zip(directory.split("/"), components, strict=False):
        if "**" in component:
            return True
        if not Glob.compile(component).matches(part):
            return False
    return len(components) > directory.count("/") + 1
