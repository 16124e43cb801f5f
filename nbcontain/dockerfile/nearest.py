"""did you mean …? The known word that a mistyped one is nearest to, chosen as BuildKit chooses."""

from __future__ import annotations

from collections.abc import Iterable

MAX_WORD = 64
"""No word that long is a slip of the finger; comparing takes the square of it."""


def nearest(word: str, known: Iterable[str], *, case_matters: bool = True) -> str:
    """The known word that takes fewest letters changed, added or left out, two at most; "" where there is none.

    Where case does not matter it is given in the case of `word`; a word that is known but for its case is no slip.
    """
    given = word if case_matters else word.lower()
    if len(given) > MAX_WORD:
        return ""
    best, least = "", 3
    for each in known:
        candidate = each if case_matters else each.lower()
        distance = _distance(given, candidate)
        if distance == 0:
            return ""
        if distance < least:
            best, least = candidate, distance
    if not case_matters and word == word.upper():
        return best.upper()
    return best


def _distance(one: str, other: str) -> int:
    """Levenshtein's."""
    row = list(range(len(other) + 1))
    for line, left in enumerate(one, 1):
        above, row[0] = row[0], line
        for column, right in enumerate(other, 1):
            above, row[column] = row[column], min(above + (left != right), row[column] + 1, row[column - 1] + 1)
    return row[-1]
