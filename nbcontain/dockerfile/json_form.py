"""The JSON form of arguments: ["program", "argument"]. What only looks like it is no JSON form, and a shell's."""

from __future__ import annotations

import json
import math


class NotStrings(ValueError):
    """A JSON array of something else than strings: the one mistake that BuildKit does not give to a shell."""


def json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None if this is none. Raises NotStrings."""
    if not text.startswith("["):
        return None
    try:
        values = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise NotStrings
    # Go's decoder puts a replacement character where JSON has half a surrogate pair.
    return tuple(value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values)


def _number(text: str) -> None:
    """Stands for a number, which only has to be one that Go can hold: NaN is no JSON there."""
    if not math.isfinite(float(text)):
        raise ValueError(text)


_DECODER = json.JSONDecoder(parse_constant=_number, parse_int=_number, parse_float=_number)
