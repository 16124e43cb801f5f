"""The arguments of an instruction, in the ways they are written: one, several, JSON, pairs, durations."""

from __future__ import annotations

import re
from typing import NoReturn

from nbcontain.dockerfile import ast
from nbcontain.dockerfile.flags import Flags
from nbcontain.dockerfile.json_form import NotStrings, json_strings
from nbcontain.dockerfile.lines import Line
from nbcontain.errors import DockerfileError, Span
from nbcontain.whitespace import WHITESPACE

_SPACES = re.compile(r"[\t\v\f\r ]+")
_PLAIN = re.compile(rf"""[^{WHITESPACE}'"\\`]+""")
"""A run of characters that mean nothing, whatever the escape character."""
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

EXAMPLES = {
    "FROM": "FROM python:3.12-slim",
    "RUN": "RUN pip install flask",
    "CMD": 'CMD ["python", "app.py"]',
    "ENTRYPOINT": 'ENTRYPOINT ["python", "app.py"]',
    "ENV": "ENV NAME=value",
    "ARG": "ARG NAME=default",
    "LABEL": "LABEL name=value",
    "COPY": "COPY app.py /srv/",
    "ADD": "ADD app.tar.gz /srv/",
    "WORKDIR": "WORKDIR /srv",
    "USER": "USER app, or USER 1000",
    "EXPOSE": "EXPOSE 8080",
    "VOLUME": "VOLUME /data",
    "STOPSIGNAL": "STOPSIGNAL SIGTERM",
    "SHELL": 'SHELL ["/bin/bash", "-c"]',
    "HEALTHCHECK": "HEALTHCHECK CMD curl -f localhost",
    "ONBUILD": "ONBUILD COPY . /srv",
    "MAINTAINER": "LABEL org.opencontainers.image.authors=name",
}
"""How an instruction is written, for who wrote its name alone."""


def refuse(line: Line, message: str, *, why: str = "", hint: str = "") -> NoReturn:
    """Raise the error for a mistake on this line."""
    raise DockerfileError(message, line.span, why=why, hint=hint)


def refuse_feature(feature: str, span: Span, source: str = "", *, hint: str = "") -> NoReturn:
    """Raise the error for what BuildKit has and nbcontain has not."""
    raise DockerfileError(
        f"{feature} is a Dockerfile feature that nbcontain does not have yet", span, source, hint=hint
    )


def one(line: Line) -> str:
    """Everything behind the keyword, as it is."""
    if not line.rest:
        refuse(line, f"{line.keyword} needs an argument", hint=EXAMPLES.get(line.keyword, ""))
    return line.rest


def several(line: Line, most: int = 0) -> tuple[str, ...]:
    """Words split at spaces, whatever quotes say; not more than `most` of them, the last one being the rest."""
    return tuple(_SPACES.split(one(line), maxsplit=max(0, most - 1)))


def json_array(line: Line, text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None if this is none. Raises if it is an array of something else."""
    try:
        return json_strings(text)
    except NotStrings:
        refuse(line, "a JSON array of something else than strings", hint='Write ["program", "argument", …].')


def command_form(line: Line, text: str) -> ast.CommandForm:
    """A JSON array is executed, anything else is a shell's; as with docker, also what only looks like JSON."""
    argv = json_array(line, text)
    return ast.ShellForm(text) if argv is None else ast.ExecForm(argv)


def quoted_words(line: Line) -> list[str]:
    """Words split at spaces outside quotes; quotes and escapes stay."""
    words: list[str] = []
    word, quote, has_quotes = "", "", False
    text, at = line.rest, 0
    while at < len(text):
        if run := _PLAIN.match(text, at):
            word += run[0]
            at = run.end()
            continue
        char = text[at]
        at += 1
        if not quote and char in WHITESPACE:
            if word or has_quotes:
                words.append(word)
            word, has_quotes = "", False
            continue
        if char == line.escape and quote != "'":
            if at == len(text):
                break
            word += char + text[at]
            at += 1
            continue
        if not quote and char in "'\"":
            quote, has_quotes = char, True
        elif char == quote:
            quote = ""
        word += char
    if word or has_quotes:
        words.append(word)
    return words


def pairs(line: Line) -> tuple[ast.Pairs, bool]:
    """name=value …, or the old form, name value, and whether it is that."""
    one(line)
    words = quoted_words(line)
    if words and "=" not in words[0]:
        # The old form: one name, and everything behind it is the value.
        name, *value = _SPACES.split(line.rest, maxsplit=1)
        if not value:
            refuse(line, f"{line.keyword} {name} has no value", hint=f"Write {line.keyword} {name}=…")
        return ((name, value[0]),), True
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value_text = word.partition("=")
        if not equals:
            refuse(
                line, f"no = in {word!r}", hint='Pairs read name=value; a value with spaces needs quotes: name="a b".'
            )
        if not name:
            refuse(line, f"{word!r} has no name", hint=f"Write {line.keyword} name=value.")
        pairs.append((name, value_text))
    return tuple(pairs), False


def duration(line: Line, flags: Flags, name: str) -> int:
    """Nanoseconds of a duration such as 1m30s; 0, which is whoever runs it's own, if the flag is absent or zero."""
    text = flags.text(name)
    if text == "":
        return 0
    if text == "0":
        text = "0s"
    parts = list(_DURATION_PART.finditer(text))
    if "".join(part[0] for part in parts) != text or len(text) > 64:
        refuse(line, f"--{name}={text} is no duration", hint="Write it as 30s, 1m30s or 500ms.")
    total = sum(int(float(part[1]) * _NANOSECONDS[part[2]]) for part in parts)
    if 0 < total < 10**6:
        refuse(line, f"--{name}={text} is less than 1ms")
    if total >= 1 << 63:
        refuse(line, f"--{name}={text} is too long")
    return total
