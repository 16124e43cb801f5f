"""`.dockerignore` beside a model of moby/patternmatcher: its rules said once more, as regular expressions.

The model is slow and backtracks; what is shipped is an automaton. Both must agree on whatever is made up.
"""

from __future__ import annotations

import posixpath
import random
import re

import pytest

from nbcontain.build.patterns import BadPattern, Ignore

_PIECES = (
    "a", "b", "ab", "c.d", "/", "/", "/", "*", "*", "**", "**/", "/**", "?", "[ab]", "[^a]", "[a-c]", "\\*", "\\?", ".",
    "..", "./", "]", "(", "+", " ", "#", "é",
)  # fmt: skip
_NAMES = ("a", "b", "ab", "c.d", "*", "?", "]", "(", "é", "aXd", ".a", "#")


def model_regex(pattern: str) -> tuple[str, str]:
    """The kind of a pattern and its text: exact, prefix, suffix or regex (Pattern.compile)."""
    kind, found, at = "exact", "^", 0
    number = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            at += 1
            at += pattern.startswith("/", at)
            if at < len(pattern):
                found, kind = found + "(.*/)?", "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                found, kind = found + ".*", "regex"
            if number == 0:
                kind = "suffix"
        elif char in "*?":
            found, kind = found + ("[^/]*" if char == "*" else "[^/]"), "regex"
        elif char == "\\":
            found, kind = found + re.escape(pattern[at : at + 1]), "regex"
            at += 1
        elif char in "[]":
            found, kind = found + char, "regex"
        else:
            found += re.escape(char) if char in ".+()|{}$" else char
        number += 1
    return (kind, found + "$") if kind == "regex" else (kind, pattern)


def model_matches(pattern: str, path: str) -> bool:
    kind, text = model_regex(pattern)
    if kind == "exact":
        return path == text
    if kind == "prefix":
        return path.startswith(text[:-2])
    if kind == "suffix":
        suffix = text[2:]
        return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
    return re.search(text, path, re.DOTALL) is not None


def model_ignored(text: str, path: str) -> bool:
    """ignorefile.ReadAll and MatchesUsingParentResults, asked for each directory above first."""
    patterns = []
    for line in text.split("\n"):
        if line.startswith("#") or not line.strip():
            continue
        line = line.strip()
        negated = line.startswith("!")
        line = posixpath.normpath(line.removeprefix("!").strip())
        patterns.append((negated, line.lstrip("/") or "/"))
    state = [False] * len(patterns)
    ignored = False
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        ignored = False
        for number, (negated, pattern) in enumerate(patterns):
            if not state[number] and negated == ignored:
                state[number] = model_matches(pattern, "/".join(parts[:count]))
            if state[number]:
                ignored = not negated
    return ignored


def test_made_up_ignore_files_are_read_as_moby_reads_them() -> None:
    chance = random.Random(7)
    compared = 0
    for _ in range(12_000):
        lines = [
            "!" * (chance.random() < 0.3) + "".join(chance.choices(_PIECES, k=chance.randint(1, 6)))
            for _ in range(chance.randint(1, 4))
        ]
        text = "\n".join(lines)
        path = "/".join(chance.choices(_NAMES, k=chance.randint(1, 4)))
        try:
            ignore = Ignore.parse(text)
        except BadPattern:
            continue
        compared += 1
        assert (ignore.ignoring(path) is not None) == model_ignored(text, path), (text, path)
    assert compared > 8_000


@pytest.mark.parametrize(
    ("text", "path", "is_ignored"),
    [
        ("**a]", "xa]", False),
        ("**a]", "x/a]", True),
        ("\\#a", "#a", True),
        ("a#b # no comment", "a#b # no comment", True),
        ("node_modules", "pkg/node_modules", False),
        ("**/node_modules", "pkg/node_modules/x", True),
        ("*\n!keep", "keep/x/y", False),
        ("*\n!keep/x", "keep/y", True),
        ("/a/../b", "b", True),
        ("a//b", "a/b", True),
        ("a/./b/", "a/b/c", True),
        ("\x1ca", "\x1ca", True),
        ("\u2003a\u2003", "a", True),
        ("../a", "a", False),
        (".", "a", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
    ],
)
def test_an_ignore_file_says(text: str, path: str, is_ignored: bool) -> None:
    assert (Ignore.parse(text).ignoring(path) is not None) == is_ignored
