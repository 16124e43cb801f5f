"""Names for containers that were given none: an adjective and somebody who made computing what it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nbcontain.errors import UsageError

if TYPE_CHECKING:
    import random

_ADJECTIVES = """
    agile amber brave bright calm candid clever cosmic curious daring deft eager fair fluent gentle glad golden happy
    honest humble jolly keen kind lively lucid lucky mellow merry nimble noble patient polite proud quick quiet radiant
    rapid serene sharp silver smooth steady sunny swift tidy vivid warm wise witty zesty
""".split()  # noqa: SIM905 - one a line would be half the module
_PEOPLE = """
    babbage backus bartik blackwell boole borg cerf church clarke codd dijkstra engelbart estrin floyd goldberg gosper
    hamilton hamming hoare holberton hopper jones kahn karp kay keller kernighan knuth lamarr lamport liskov lovelace
    mauchly mccarthy milner minsky naur perlman postel rabin ritchie rivest scott shannon sutherland tarjan thompson
    torvalds turing wilkes wing wirth zuse
""".split()  # noqa: SIM905

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def random_name(source: random.Random | None = None) -> str:
    """A name such as calm_hopper."""
    choice = source.choice if source else _chosen
    return f"{choice(_ADJECTIVES)}_{choice(_PEOPLE)}"


def _chosen(words: list[str]) -> str:
    return words[int.from_bytes(os.urandom(8)) % len(words)]


def checked(name: str) -> str:
    """The name, if it is one that docker takes; raises UsageError."""
    if name[:1] not in _LETTERS or set(name) - _LETTERS - set("_.-") or len(name) > 128:
        raise UsageError(
            f"{name!r} is no name for a container",
            hint="letters, digits, _ . and -, beginning with a letter or a digit",
        )
    return name
