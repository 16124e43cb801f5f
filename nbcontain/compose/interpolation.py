"""Variables in compose files, as the compose specification has them (12-interpolation.md), and .env files. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from nbcontain.errors import UsageError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", "-", ":?", "?", ":+", "+")


def filled(text: str, values: Mapping[str, str], missing: Callable[[str], None] = lambda name: None) -> str:
    """The text with its variables filled in; `missing` is told of each that has no value, and means nothing.

        text     = { "$$" | "$" NAME | "${" NAME [operator text] "}" | character }
        operator = ":-" | "-" | ":?" | "?" | ":+" | "+"

    Raises UsageError for anything else behind a $, and for a variable that must be there.
    """
    found, end = _filled(text, 0, values, missing, inside=False)
    assert end == len(text)
    return found


def _filled(
    text: str, at: int, values: Mapping[str, str], missing: Callable[[str], None], *, inside: bool
) -> tuple[str, int]:
    """From `at` on, to the end or, `inside` of braces, to the one that closes them."""
    parts: list[str] = []
    while at < len(text):
        if text[at] == "}" and inside:
            return "".join(parts), at
        if text[at] != "$":
            parts.append(text[at])
            at += 1
        elif text.startswith("$$", at):
            parts.append("$")
            at += 2
        elif (name := _NAME.match(text, at + 1)) is not None:
            parts.append(_value(name[0], values, missing))
            at = name.end()
        elif text.startswith("${", at) and (name := _NAME.match(text, at + 2)) is not None:
            value, at = _braced(text, name[0], name.end(), values, missing)
            parts.append(value)
        else:
            raise _refused(text)
    if inside:
        raise _refused(text)
    return "".join(parts), at


def _braced(
    text: str, name: str, at: int, values: Mapping[str, str], missing: Callable[[str], None]
) -> tuple[str, int]:
    if text.startswith("}", at):
        return _value(name, values, missing), at + 1
    operator = next((each for each in _OPERATORS if text.startswith(each, at)), "")
    if not operator:
        raise _refused(text)
    is_set = bool(values.get(name)) if operator[0] == ":" else name in values
    # What is not taken is not asked for either.
    is_taken = is_set if operator[-1] == "+" else not is_set
    other, end = _filled(
        text, at + len(operator), values if is_taken else _Anything(), missing if is_taken else lambda name: None,
        inside=True,
    )  # fmt: skip
    match operator[-1]:
        case "-":
            return values[name] if is_set else other, end + 1
        case "+":
            return other if is_set else "", end + 1
    if not is_set:
        raise UsageError(f"the variable {name} has to be set", why=other, hint=f"export {name}=…, or in .env")
    return values[name], end + 1


class _Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ""

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: object = None) -> str:
        return "x"


def _value(name: str, values: Mapping[str, str], missing: Callable[[str], None]) -> str:
    if name not in values:
        missing(name)
        return ""
    return values[name]


def _refused(text: str) -> UsageError:
    return UsageError(
        f"{text!r}: a $ that begins no variable", hint="$$ means a $",
        why="compose reads ${NAME}, ${NAME:-default}, ${NAME:?text}, ${NAME:+x}",
    )  # fmt: skip


_ENTRY = re.compile(
    r"""\s*(?:\#[^\n]*|(?:export[ \t]+)?(?P<name>[^\s=:\#]+)[ \t]*"""
    r"""(?:(?P<sign>[=:])[ \t]*"""
    r"""(?:'(?P<single>(?:\\'|[^'])*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<plain>[^'"\s][^\n]*)?))?"""
    r"""(?P<rest>[^\n]*))(?:\n|\Z)""",
    re.DOTALL,
)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "$": "$$"}
_ALONE = re.compile(r"\$\$|\$(?![A-Za-z_{])")
_SHOWN = 200
"""No more characters of a line stand in an error."""


def env_file(text: str, values: Mapping[str, str]) -> dict[str, str | None]:
    """What a .env file says, as compose reads it: NAME=value, quoted or not, and variables; None for a name alone.

    What is in quotes may go over several lines; in '' it is as it is written. A $ that begins no variable is one.
    Raises UsageError.
    """
    found: dict[str, str | None] = {}
    known = dict(values)
    text, at = text.replace("\r\n", "\n").rstrip(), 0
    while at < len(text):
        entry = _ENTRY.match(text, at)
        if entry is None:
            raise UsageError(f"{_line(text, at)} names no variable", hint="NAME=value")
        at = entry.end()
        name, sign, single, double, plain = entry.group("name", "sign", "single", "double", "plain")
        if name is None:
            continue
        rest = entry["rest"].strip()
        if rest[:1] in ("'", '"') and single is double is plain is None:
            why = rest if len(rest) <= _SHOWN else f"{rest[:_SHOWN]}…"
            raise UsageError(f"{_line(text, entry.start())}: a quote is not closed", why=why, hint="NAME='value'")
        if sign is None:
            if rest and not rest.startswith("#"):
                line = _line(text, entry.start())
                raise UsageError(f"{line}: {name} {rest}: a name has no space", hint="NAME=value")
            found[name] = None
            known.pop(name, None)
            known |= {name: values[name]} if name in values else {}
            continue
        if single is not None:
            value = single.replace("\\'", "'")
        elif double is not None:
            escaped = re.sub(r"\\([nrt$\"\\])", lambda each: _ESCAPED.get(each[1], each[1]), double)
            value = filled(_ALONE.sub("$$", escaped), known)
        else:
            bare = re.split(r"\s#", plain or "", maxsplit=1)[0].strip()
            value = filled(_ALONE.sub("$$", bare), known)
        found[name] = known[name] = value
    return found


def _line(text: str, at: int) -> str:
    """Where an entry is whose match, or lack of one, begins there: blank lines before it are part of that."""
    blank = re.compile(r"\s*").match(text, at)
    return f"line {text.count(chr(10), 0, blank.end() if blank else at) + 1} of an env file"
