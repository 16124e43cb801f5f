"""File modes as chmod(1) is told them: in octal, or as u=rwX,go-w."""

from __future__ import annotations

import re

_OCTAL = re.compile(r"0*[0-7]{1,4}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_UMASK = 0o022
"""What a clause without u, g, o or a leaves alone."""
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def is_mode(text: str) -> bool:
    """Whether chmod(1) would take this."""
    return bool(_OCTAL.fullmatch(text)) or all(_CLAUSE.fullmatch(clause) for clause in text.split(","))


def octal(text: str) -> int | None:
    """The mode that is told in octal; None for any other."""
    return int(text, 8) if _OCTAL.fullmatch(text) else None


def changed(text: str, mode: int, *, is_directory: bool) -> int:
    """The twelve mode bits after `chmod text` of a file that has `mode`. `text` is what `is_mode` takes."""
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        assert match is not None
        for operator, what in _ACTION.findall(match[2]):
            mode = _applied(mode, match[1], operator, what, is_directory)
    return mode


def _applied(mode: int, who: str, operator: str, what: str, is_directory: bool) -> int:
    if what in _SHIFTS:
        granted = mode >> _SHIFTS[what] & 7
    else:
        granted = sum(_BITS[letter] for letter in set(what) & _BITS.keys())
        if "X" in what and (is_directory or mode & 0o111):
            granted |= 1
    classes = "ugo" if not who or "a" in who else who
    bits = cleared = 0
    for each in set(classes):
        bits |= granted << _SHIFTS[each]
        cleared |= 7 << _SHIFTS[each]
        # The set-id bits stand where the class that they speak of is named.
        special = {"u": 0o4000, "g": 0o2000, "o": 0}[each]
        bits |= special if "s" in what else 0
        cleared |= special if not is_directory else 0
    if "t" in what and (not who or set(who) & {"a", "o"}):
        bits |= 0o1000
    if not who:
        bits &= ~_UMASK
    if operator == "+":
        return mode | bits
    return mode & ~bits if operator == "-" else mode & ~cleared | bits
