"""All lessons, found by the numbers of their exercises and questions."""

from __future__ import annotations

from importlib import import_module

from nbcontain.errors import UsageError
from nbcontain.lessons.exercise import Exercise, Lesson, Question

_MODULES = {
    "00": "can_it_hold",
    "02": "layer_cake",
    "03": "bake_it_better",
    "08": "no_container",
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
    number, _, _ = name.partition("-")
    found = lesson(number)
    for each in found.exercises:
        if each.id == name:
            return each
    known = ", ".join(each.id for each in found.exercises) or "none"
    raise UsageError(f"there is no exercise {name}", hint=f"Exercises of lesson {number}: {known}.")


def question(name: str) -> Question:
    """The question of that id. Raises UsageError, which names those that there are."""
    number, _, _ = name.partition("-")
    found = lesson(number)
    for each in found.questions:
        if each.id == name:
            return each
    known = ", ".join(each.id for each in found.questions) or "none"
    raise UsageError(f"there is no question {name}", hint=f"Questions of lesson {number}: {known}.")
