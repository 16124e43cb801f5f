"""%check, %hint, %solution and %quiz in one notebook. Nothing of it ever stops a Run All: what is wrong is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError, UsageError
from nbcontain.lessons.course import exercise, question
from nbcontain.lessons.exercise import Claim, Classroom
from nbcontain.lessons.pictures import Asked, Judged, Told
from nbcontain.options import argument, option, parse, parser_of, with_defaults
from nbcontain.values import dataclass

_NOTHING: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExerciseWords:
    id: str = argument(help="an exercise of a lesson, as in 02-1", metavar="ID")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class SolutionWords:
    id: str = argument(help="an exercise of a lesson, as in 02-1", metavar="ID")
    yes: bool = option("-y", "--yes", help="show it")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class QuizWords:
    id: str = argument(help="a question of a lesson, as in 02-a", metavar="ID")
    answer: str = option("-a", "--answer", help="the letter of a choice", metavar="LETTER")


MAGICS: Mapping[str, tuple[type[Any], str]] = {
    "check": (ExerciseWords, "whether an exercise is done, judged by what there is"),
    "hint": (ExerciseWords, "a hint for an exercise; asked again, one more"),
    "solution": (SolutionWords, "a cell that solves an exercise"),
    "quiz": (QuizWords, "a question of a lesson; a click on a choice opens what there is to say to it"),
}


class Teacher:
    """What was asked for in one kernel."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._hints: dict[str, int] = {}

    def magic(self, name: str, words: Sequence[str], names: Mapping[str, Any]) -> Judged | Told | Asked:
        """What one of the four magics shows. Raises UsageError for what is no exercise or question, HelpAsked."""
        options, about = MAGICS[name]
        asked = parse(options, f"%{name}", about, words, _NOTHING)
        match name:
            case "check":
                return self.check(asked.id, names)
            case "hint":
                return self.hint(asked.id)
            case "solution":
                return self.solution(asked.id, shown=asked.yes)
        return self.quiz(asked.id, asked.answer)

    def check(self, name: str, names: Mapping[str, Any]) -> Judged:
        """Judge an exercise by the store and the notebook's variables."""
        found = exercise(name)
        claims: list[Claim] = []
        try:
            for claim in found.judge(Classroom(self._engine, names)):
                claims.append(claim)
        except (NbcontainError, OSError) as error:
            claims.append(Claim(f"this could not be looked at: {error}", False, getattr(error, "hint", "")))
        return Judged(found, tuple(claims))

    def hint(self, name: str) -> Told:
        """One hint more than last time."""
        found = exercise(name)
        count = self._hints[name] = min(self._hints.get(name, 0) + 1, len(found.hints))
        left = len(found.hints) - count
        more = f"%hint {name} has {left} more" if left else f"%solution {name} --yes shows one way to do it"
        return Told(f"{name} · {found.title}", (*found.hints[:count], more))

    def solution(self, name: str, *, shown: bool) -> Told:
        """A cell that does it, if that is wanted."""
        found = exercise(name)
        title = f"{name} · {found.title}"
        if not shown:
            return Told(title, (f"%hint {name} comes first; %solution {name} --yes shows it all.",))
        return Told(title, ("One way to do it; run each part as a cell:",), "\n\n".join(found.solution))

    def quiz(self, name: str, answer: str = "") -> Asked:
        """A question, perhaps answered."""
        found = question(name)
        letter = answer.strip().lower().removesuffix(")")
        if letter and letter not in found.letters():
            raise UsageError(f"{answer} is none of the choices", hint=f"They are {', '.join(found.letters())}.")
        return Asked(found, letter)


def documentation(name: str) -> str:
    """The text behind `%check?`."""
    options, about = MAGICS[name]
    return parser_of(options, f"%{name}", about).format_help()
