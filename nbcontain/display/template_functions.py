"""The functions of `--format`: Go's own, and those that docker adds (docker/cli templates). Plain values in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbcontain.display.typed import Entries, Fields, Nothing, Null
from nbcontain.values import dataclass

_WIDEST = 10_000
"""What pad and printf may fill up to."""
_LONGEST = 16 << 20
_VERB = re.compile(r"%([-+# 0]*)(\*|\d*)(?:\.(\d*))?(.)?", re.DOTALL)
_SCRIPT = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


class Bad(Exception):
    """What a function complains about, in a few words."""


@dataclass(frozen=True, slots=True)
class Method:
    """A field that takes arguments, as docker's `.Label "name"`."""

    function: Callable[..., object]


def is_true(value: object) -> bool:
    """Go's idea of it: not zero, and not empty."""
    return bool(value) if not isinstance(value, Method) else True


def shown(value: object) -> str:
    """A value as a template writes it (fmt's %v)."""
    match value:
        case None:
            return "<no value>"
        case Nothing(text=text):
            return text
        case Method():
            raise Bad('this field wants to be told something, as in .Label "name"')
        case str():
            return str(value)
        case _:
            return _plain(value)


def _plain(value: object, depth: int = 0) -> str:
    if depth > 100:
        raise Bad("the value is nested too deeply")
    match value:
        case None | Nothing():
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case float():
            return _float(value)
        case Fields():
            return "{" + " ".join(_plain(each, depth + 1) for each in value.whole()) + "}"
        case Mapping():
            pairs = sorted((str(key), each) for key, each in value.items() if not isinstance(each, Method))
            return "map[" + " ".join(f"{key}:{_plain(each, depth + 1)}" for key, each in pairs) + "]"
        case list() | tuple():
            return "[" + " ".join(_plain(each, depth + 1) for each in value) + "]"
        case _:
            return str(value)


def _float(value: float) -> str:
    """fmt's %v: the shortest that means the same, with an exponent from 1e6 on."""
    return _decimal(value, 6, -4)


def _decimal(value: float, large: int, small: int) -> str:
    """The shortest digits that mean the same; with an exponent where it is `large` or more, or under `small`."""
    from decimal import Decimal

    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]

    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) - 1 + int(exponent)
    if value and not small <= power < large:
        rest = "".join(map(str, digits[1:]))
        return f"{'-' * sign}{digits[0]}{'.' * bool(rest)}{rest}e{'-' if power < 0 else '+'}{abs(power):02}"
    return f"{Decimal(repr(value)).normalize():f}"


# --- docker's ---


def _json(value: object) -> str:
    """Compact JSON; keys in order, as Go's maps have them."""

    def plain(one: object, depth: int = 0) -> object:
        if depth > 100:
            raise Bad("the value is nested too deeply")
        if isinstance(one, Null):
            return None
        if isinstance(one, Mapping):
            return {str(key): plain(each, depth + 1) for key, each in one.items() if not isinstance(each, Method)}
        if isinstance(one, float) and one == one and abs(one) < 1e21 and one == int(one):
            return int(one)
        return [plain(each, depth + 1) for each in one] if isinstance(one, list | tuple) else one

    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _split(text: object, separator: object) -> list[str]:
    text, separator = _text(text, "split"), _text(separator, "split")
    return text.split(separator) if separator else list(text)


def _join(parts: object, separator: object) -> str:
    if not isinstance(parts, list | tuple):
        raise Bad("join wants a list")
    return _bounded(_text(separator, "join").join(_text(each, "join") for each in parts))


def _title(text: object) -> str:
    """The first letter of every word large; the others stay."""
    return re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), _text(text, "title"))


def _lower(text: object) -> str:
    return _text(text, "lower").lower()


def _upper(text: object) -> str:
    return _text(text, "upper").upper()


def _pad(text: object, before: object, after: object) -> str:
    """Blanks around; nothing around nothing, as docker has it."""
    text = _text(text, "pad")
    return " " * _count(before) + text + " " * _count(after) if text else text


def _truncate(text: object, length: object) -> str:
    # docker counts bytes; a character that would be cut is left out.
    data = _text(text, "truncate").encode("utf-8", "surrogatepass")
    return data[: _count(length)].decode("utf-8", "ignore")


# --- Go's ---


def _not(value: object) -> bool:
    return not is_true(value)


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    raise Bad("len wants a text, a list or a mapping")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        match value:
            case Mapping():
                if not isinstance(key, str):
                    raise Bad("a mapping is asked by a text")
                value = value.get(key, _missing(value))
            case list() | tuple() | str():
                if isinstance(key, bool) or not isinstance(key, int):
                    raise Bad("a list is asked by a number")
                items: Sequence[object] = (
                    list(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else value
                )
                if not 0 <= key < len(items):
                    raise Bad(f"there is no number {key}: it has {len(items)}")
                value = items[key]
            case None | Nothing():
                raise Bad("index of nothing")
            case _:
                raise Bad("index wants a list or a mapping")
    return value


def _missing(value: Mapping[Any, Any]) -> object:
    """What a map answers for a key that it has not: a map of texts "", one of anything nothing."""
    if isinstance(value, Entries):
        return value.zero
    return "" if all(isinstance(each, str) for each in value.values()) else None


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise Bad("slice wants a text or a list")
    if len(bounds) > (2 if isinstance(value, str) else 3):
        raise Bad("slice has too many bounds")
    if any(isinstance(each, bool) or not isinstance(each, int) for each in bounds):
        raise Bad("slice's bounds are numbers")
    places: list[Any] = [0, len(value), len(value)]
    places[: len(bounds)] = bounds
    if not 0 <= places[0] <= places[1] <= len(value):
        raise Bad(f"slice {places[0]} to {places[1]} of {len(value)}")
    return value[places[0] : places[1]]


def _kind(value: object) -> str:
    for kinds, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "text")):
        if isinstance(value, kinds):
            return name
    return "nothing" if value is None or isinstance(value, Nothing) else "many"


def _equal(first: object, *others: object) -> bool:
    """Whether the first is one of the others."""
    if not others:
        raise Bad("eq wants two values at least")
    for each in others:
        kinds = {_kind(first), _kind(each)}
        if "many" in kinds:
            raise Bad("lists and mappings cannot be compared")
        if len(kinds) > 1 and "nothing" not in kinds:
            raise Bad(f"a {_kind(first)} and a {_kind(each)} cannot be compared")
        if first == each:
            return True
    return False


def _not_equal(first: object, second: object) -> bool:
    return not _equal(first, second)


def _less(first: object, second: object) -> bool:
    kinds = {_kind(first), _kind(second)}
    if len(kinds) > 1 or kinds & {"bool", "nothing", "many"}:
        raise Bad(f"a {_kind(first)} and a {_kind(second)} have no order")
    return bool(first < second)  # type: ignore[operator]


def _print(*values: object) -> str:
    """Blanks between two values neither of which is a text."""
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(_argument(value))
    return _bounded("".join(parts))


def _println(*values: object) -> str:
    return _bounded(" ".join(map(_argument, values)) + "\n")


def _printf(pattern: object, *values: object) -> str:
    """fmt.Sprintf: %s %q %v %d %t %x %X %o %b %c %e %f %g %%, with widths."""
    given = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if width == "*":
            width = _count(given.pop(0)) if given else 0
        size = _count(int(width or 0))
        if not given:
            return f"%!{verb}(MISSING)"
        digits = None if precision is None else _count(int(precision or 0))
        text = _verb(verb, flags, digits, given.pop(0))
        if "-" in flags:
            return text.ljust(size)
        if "0" in flags:
            sign = text[:1] if text[:1] in ("+", "-") else ""
            return sign + text[len(sign) :].rjust(size - len(sign), "0")
        return text.rjust(size)

    text = _VERB.sub(one, _text(pattern, "printf"))
    if given:
        text += "%!(EXTRA " + ", ".join(f"{_go_type(each)}={_argument(each)}" for each in given) + ")"
    return _bounded(text)


def _verb(verb: str, flags: str, digits: int | None, value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match verb:
        case "v" | "s" if verb == "v" or isinstance(value, str | list | tuple | Mapping):
            text = _argument(value)
            return text if digits is None or not isinstance(value, str) else text[:digits]
        case "q" if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        case "T":
            return _go_type(value)
        case "t" if isinstance(value, bool):
            return _plain(value)
        case "d" | "x" | "X" | "o" | "b" if isinstance(value, int) and is_number:
            return format(value, ("+" if "+" in flags else " " if " " in flags else "") + verb)
        case "x" | "X" if isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass").hex()
            return text.upper() if verb == "X" else text
        case "c" if isinstance(value, int) and is_number:
            return chr(value) if 0 <= value < 0x110000 else "�"
        case "e" | "f" | "g" if isinstance(value, float):
            if verb == "g" and digits is None:
                return _float(value)
            return format(value, ("+" if "+" in flags else "") + f".{6 if digits is None else min(digits, 300)}{verb}")
        case _:
            return f"%!{verb}({_go_type(value)}={_argument(value)})"


def _go_type(value: object) -> str:
    return {"text": "string", "int": "int", "float": "float64", "bool": "bool", "nothing": "<nil>"}.get(
        _kind(value), "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}"
    )


def _argument(value: object) -> str:
    return "<nil>" if value is None else shown(value)


def _url_query(text: str) -> str:
    from urllib.parse import quote_plus

    return quote_plus(text)


def _html(text: str) -> str:
    import html

    return html.escape(text, quote=False).replace('"', "&#34;").replace("'", "&#39;").replace("\0", "\ufffd")


def _script(text: str) -> str:
    return "".join(_SCRIPT.get(c) or (c if c.isprintable() else f"\\u{ord(c):04X}") for c in text)


def _escaped(function: Callable[[str], str]) -> Callable[..., str]:
    return lambda *values: function(_print(*values))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Bad(f"{name} wants texts")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _WIDEST:
        raise Bad(f"a number from 0 to {_WIDEST} belongs here")
    return value


def _bounded(text: str) -> str:
    if len(text) > _LONGEST:
        raise Bad("the text is too long")
    return text


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "json": _json, "split": _split, "join": _join, "title": _title, "lower": _lower, "upper": _upper, "pad": _pad,
    "truncate": _truncate, "not": _not, "len": _length, "index": _index, "slice": _slice, "eq": _equal,
    "ne": _not_equal, "lt": _less, "le": lambda a, b: _less(a, b) or _equal(a, b),
    "gt": lambda a, b: not (_less(a, b) or _equal(a, b)), "ge": lambda a, b: not _less(a, b),
    "print": _print, "println": _println, "printf": _printf, "html": _escaped(_html), "urlquery": _escaped(_url_query),
    "js": _escaped(_script),
}  # fmt: skip
