"""Documents as Go's types have them, for templates: a field that is not set answers with its type's zero value.

docker's `inspect --format` looks at structs, not at JSON. `typed` gives a document that answers as those do; what it
is made of, its keys and its JSON, stays as it was. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nbcontain.values import dataclass, field

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")

# --- types ---


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: its fields by the names that its JSON has, and what else Go calls some of them."""

    fields: Mapping[str, Type]
    also: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map from texts to values of a type; JSON's null where it is not set."""

    of: Type = ""
    by_text: bool = True
    """Whether Go's `index` takes a text for a key; else docker falls back on JSON, which has nothing there."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A slice; JSON's null where it is not set."""

    of: Type = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """To a value of that type, or to nothing."""

    to: Type


class Time(str):
    """A moment, RFC 3339 in JSON and otherwise in a template."""

    def __str__(self) -> str:
        """Go's own way: 2024-05-01 12:00:00.5 +0000 UTC; what is no moment as it is."""
        found = _MOMENT.fullmatch(self)
        if found is None:
            return self[:]
        date, clock, part, zone = found.groups(default="")
        part = part.rstrip("0").rstrip(".")
        # Of another zone Go knows no name: it says the distance once more.
        distance = zone.replace(":", "")
        return f"{date} {clock}{part} " + ("+0000 UTC" if zone == "Z" else f"{distance} {distance}")


class Duration(int):
    """Nanoseconds, which a template writes as 1m30s."""

    def __str__(self) -> str:
        left = abs(int(self))
        sign = "-" if self < 0 else ""
        if left < 1_000_000_000:
            unit, size = ("ns", 1) if left < 1000 else ("µs", 1000) if left < 1_000_000 else ("ms", 1_000_000)
            return f"{sign}{_decimal(left, size)}{unit}" if left else "0s"
        minutes, left = divmod(left, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
        return f"{sign}{whole}{_decimal(left, 1_000_000_000)}s"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}}".rstrip("0") if rest else str(whole)


Type = Struct | MapOf | ListOf | Pointer | Time | Duration | str | bool | int | float | None
"""A scalar is its own zero value; None is a value of any type."""

# --- values ---


class Null:
    """What JSON has as null, though its type says what it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Nothing(Null):
    """A pointer to nothing, or what a map does not have."""

    text: str
    is_absent: bool = False
    """Go asks no further of what a map does not have: each of its fields is the same once more."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Nothing)

    def __hash__(self) -> int:
        return hash(None)


NIL = Nothing("<nil>")
ABSENT = Nothing("<no value>", is_absent=True)


class NoItems(Null, tuple[Any, ...]):
    """A slice that is not set."""

    __slots__ = ()


class Fields(Mapping[str, Any]):
    """A document that has all the fields of its struct. What it lists are its own keys."""

    def __init__(self, document: Mapping[str, Any], struct: Struct) -> None:
        self._document, self._struct = document, struct

    def __getitem__(self, name: str) -> Any:
        name = self._struct.also.get(name, name)
        if name not in self._struct.fields:
            return self._document[name]
        return typed(self._document.get(name), self._struct.fields[name])

    def __contains__(self, name: object) -> bool:
        return name in self._struct.fields or name in self._struct.also or name in self._document

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def __bool__(self) -> bool:
        # A struct is true, whatever is in it.
        return True

    def names(self) -> list[str]:
        """All that can be asked for, in the order of the struct."""
        return list(dict.fromkeys((*self._struct.fields, *self._document, *self._struct.also)))

    def whole(self) -> list[Any]:
        """Each field's value in that order, and after them what the struct does not know."""
        return [self[name] for name in dict.fromkeys((*self._struct.fields, *self._document))]


class Entries(Mapping[str, Any]):
    """A map: whatever is asked of it, it has it or answers that it has not."""

    def __init__(self, document: Mapping[str, Any], type: MapOf) -> None:
        self._document, self._type = document, type

    def __getitem__(self, key: str) -> Any:
        return typed(self._document[key], self._type.of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    @property
    def zero(self) -> Any:
        """What Go's `index` gives for what it does not have."""
        return typed(None, self._type.of) if self._type.by_text else None


class NoEntries(Null, Entries):
    """A map that is not set."""


def typed(value: Any, type: Type) -> Any:
    """A value of a document as one of this type; None stands for what is not set."""
    match type:
        case Pointer(to=to):
            return NIL if value is None else typed(value, to)
        case Struct() if value is None or isinstance(value, Mapping):
            return Fields(value or {}, type)
        case MapOf() if value is None:
            return NoEntries({}, type)
        case MapOf() if isinstance(value, Mapping):
            return Entries(value, type)
        case ListOf() if value is None:
            return NoItems()
        case ListOf(of=of) if isinstance(value, list | tuple):
            return [typed(each, of) for each in value]
        case Time():
            return type if value is None else Time(value)
        case Duration():
            return Duration(value or 0)
        case None:
            return value
    return type if value is None else value
