"""All lessons, found by the numbers of their exercises and questions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TypeVar

from nbcontain.errors import UsageError
from nbcontain.lessons.exercise import Exercise, Lesson, Question

Part = TypeVar("Part", Exercise, Question)

_MODULES = {
    "00": "can_it_hold",
    "01": "image_or_container",
    "02": "layer_cake",
    "03": "bake_it_better",
    "04": "containers_life",
    "05": "ship_it",
    "06": "data_in_out",
    "07": "two_containers",
    "08": "no_container",
    "09": "notebook_inside",
    "10": "locked_doors",
}


def lesson(number: str) -> Lesson:
    """The lesson of that number. Raises UsageError."""
    if number not in _MODULES:
        raise UsageError(f"there is no lesson {number}", hint=f"There are {', '.join(_MODULES)}.")
    found: Lesson = import_module(f"nbcontain.lessons.{_MODULES[number]}").LESSON
    return found


def numbers() -> tuple[str, ...]:
    """The lessons that have exercises or questions."""
    return tuple(_MODULES)


def exercise(name: str) -> Exercise:
    """The exercise of that id. Raises UsageError, which names those that there are."""
    return _named(name, "exercise", lesson(_number(name)).exercises)


def question(name: str) -> Question:
    """The question of that id. Raises UsageError, which names those that there are."""
    return _named(name, "question", lesson(_number(name)).questions)


def _number(name: str) -> str:
    """The lesson's, out of an id like 02-1."""
    return name.partition("-")[0]


def _named(name: str, what: str, known: Sequence[Part]) -> Part:
    for each in known:
        if each.id == name:
            return each
    listed = ", ".join(each.id for each in known) or "none"
    raise UsageError(f"there is no {what} {name}", hint=f"Those of lesson {_number(name)}: {listed}.")
