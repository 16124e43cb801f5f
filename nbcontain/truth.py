"""What programs written in Go, as the field's are, take for true and for false (strconv.ParseBool)."""

from __future__ import annotations

_WORDS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


def truth(word: str) -> bool | None:
    """What a word says; None if it is neither true nor false."""
    return _WORDS.get(word)
