"""Dockerfiles made up at random: of the language's own pieces, and of the corpus with something broken."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus" / "dockerfile"

_KEYWORDS = (
    "FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "CMD", "ENTRYPOINT", "SHELL", "EXPOSE", "VOLUME", "USER",
    "WORKDIR", "STOPSIGNAL", "HEALTHCHECK", "ONBUILD", "MAINTAINER", "run", "Copy", "eNv", "FROMM",
)  # fmt: skip
_SPACES = (" ", "  ", "\t", " \t ", "\v", "\f", "\xa0", "\u2003", "\x85", "\u3000", "\r", "\x1c")
_WORDS = (
    "a", "b", "app.py", "/srv/", ".", "a=b", "a=", "=b", "a='b c'", 'a="b c"', "'a b'", '"a b"', "a\\ b", "a\\", "\\",
    "`", "a`b", "a` b", "'", '"', "$a", "${a}", "${a:-b}", "é", "日本", "#", "a#b", "#b", "--", "--a", "--a=b", "-",
    "<<E", "<<-E", "<<'E'", '<<"E"', "3<<E", "<<E|sh", "<<", "<<-", "<<<E", "<<\\E", "<<E'F'", "<<$a", "<<${a}", "<<É",
    "[", "]", "[]", "as", "AS", "NONE", "CMD", "none", "cmd", "80", "80/tcp", "1-3", "a,b", ";", "&&", "|", "scratch",
    "=", "\ufeff", "\x1f", "\x7f",
)  # fmt: skip
_FLAGS = (
    "--from=a", "--chown=a:b", "--chmod=755", "--link", "--link=true", "--link=x", "--mount=type=cache,target=/x",
    "--network=none", "--interval=5s", "--retries=3", "--platform=$X", "--exclude=a", "--parents", "--a='b c'",
    '--a="b c"', "--a=b\\ c", "--a\\", "--'a'", "--", "--a=\\\"", "--é=é",
)  # fmt: skip
_JSON = (
    "[]", '["a"]', '["a", "b"]', '[ "a" ]', '["a",]', "['a']", '["a"', '["a"] b', '["a", 1]', '["a", null]', "[1]",
    '["\\u0041"]', '["\\ud800"]', '["\\x"]', '["a\\"b"]', '["é"]', "[NaN]", "[1e999]", '[["a"]]', '[{"a": "b"}]', '["',
    '["a"]]', '["a\tb"]', '["<<E"]', '["a", "<<E"]', '[""]', "[true]", '["a"\xa0]', '["a" ,\t"b"]', "[-]", '["\\/"]',
)  # fmt: skip
_ENDS = (
    "\n", "\n", "\n", "\n", "\r\n", "\\\n", "\\ \t\n", "\\\\\n", "`\n", "\\\r\n", "", "\n\n", "\r\r\n", "\\",
    "``\n",
)  # fmt: skip
_LINES = (
    "# c\n", "  # c\n", "#\n", "\n", "  \n", "\t\n", "\\\n", " \\\n", "E\n", "\tE\n", "\t\tE \n", "E\r\n", "F\n", "a\n",
    "# escape=`\n", "#escape = \\\n", "# escape=x\n", "# ESCAPE=`\n", "# syntax=docker/dockerfile:1\n", "// x\n",
    "# syntax = docker/dockerfile:1.4 \n", "#!/bin/sh\n", "# escape=`\r\n", " # escape=`\n", "\x0c\n", "\xa0\n", "E",
    "#syntax=docker/dockerfile\n#escape=`\n", "# x=y\n", "\u2028\n", "'\n", '"\n', "`\n", "\\\\\n",
)  # fmt: skip


def made(source: random.Random) -> str:
    """A Dockerfile of the language's pieces."""
    pick = source.choice
    text = "\ufeff" * (source.random() < 0.03)
    for _ in range(source.randint(0, 2)):
        if source.random() < 0.4:
            text += pick(_LINES)
    if source.random() < 0.7:
        text += "FROM a\n"
    for _ in range(source.randint(0, 6)):
        text += pick(_LINES) if source.random() < 0.3 else _line(source)
    return text


def _line(source: random.Random) -> str:
    pick = source.choice
    text = pick(_SPACES) * (source.random() < 0.1)
    if source.random() < 0.1:
        text += "ONBUILD" + _space(source)
    text += pick(_KEYWORDS)
    while source.random() < 0.25:
        text += _space(source) + pick(_FLAGS)
    if source.random() < 0.05:
        text += _space(source) + "CMD"
    if source.random() < 0.15:
        return text + _space(source) + pick(_JSON) + pick(_ENDS)
    for _ in range(source.randint(0, 5)):
        text += _space(source) + pick(_WORDS)
        if source.random() < 0.08:
            text += pick(("\\\n", "\\\n\n", "\\\n# c\n", "\\ \n  ", "`\n", "\\\r\n"))
    text += _space(source) * (source.random() < 0.1) + pick(_ENDS)
    if "<<" in text and source.random() < 0.8:
        text += (
            "".join(pick(("x\n", "\ty\r\n", "E\n", "\tE\n", "$a\n", "# c\n", "\n", "\\\n")) for _ in range(4)) + "E\n"
        )
    return text


def _space(source: random.Random) -> str:
    return " " if source.random() < 0.8 else source.choice(_SPACES)


def broken(source: random.Random, texts: list[str]) -> str:
    """One of the texts, with characters, lines and pieces taken out, put in, doubled, exchanged."""
    text = source.choice(texts)
    for _ in range(source.randint(1, 5)):
        at = source.randint(0, len(text))
        piece = source.choice(source.choice((_SPACES, _WORDS, _FLAGS, _JSON, _ENDS, _LINES)))
        match source.randint(0, 4):
            case 0:
                text = text[:at] + piece + text[at:]
            case 1:
                text = text[:at] + text[at + source.randint(1, 3) :]
            case 2:
                lines = text.splitlines(keepends=True)
                source.shuffle(lines)
                text = "".join(lines[: source.randint(1, 12)])
            case 3:
                text = text[:at] + text[at:].replace(source.choice("\n \\\"'=<["), piece, 1)
            case _:
                text = text[:at] + text[max(0, at - source.randint(1, 30)) :]
    return text[:4000]


def corpus() -> list[str]:
    """The Dockerfiles of the corpus, with their line endings."""
    return [each.read_bytes().decode() for each in sorted(CORPUS.glob("*/Dockerfile"))]


def smallest(text: str, fails: Callable[[str], bool]) -> str:
    """A text as short as can be found that fails too."""
    size = max(1, len(text) // 2)
    while size:
        at = 0
        while at < len(text):
            shorter = text[:at] + text[at + size :]
            if fails(shorter):
                text = shorter
            else:
                at += size
        size //= 2
    return text
