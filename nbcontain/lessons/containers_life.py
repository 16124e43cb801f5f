"""Lesson 04, A container's life."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _polite(room: Classroom) -> Iterator[Claim]:
    container = room.container("polite")
    yield Claim("there is a container polite", container is not None, "%container run -d --name polite host …")
    if container is None:
        return
    ended = container.status == "exited"
    taken_s = took(room.engine.events.between(since="0", follow=False), container.id) if ended else None
    yield Claim("it was stopped", taken_s is not None, "%container stop polite, while it runs")
    code = container.state().exit_code if ended else None
    yield Claim(
        f"it ended by itself, with 0{f' and not with {code}' if code else ''}",
        code == 0,
        "trap 'exit 0' TERM, and a wait that a signal can interrupt: sleep 300 & wait",
    )
    if taken_s is not None:
        yield Claim("it took no longer than two seconds", taken_s <= 2, "what TERM starts should be short")


def took(happenings: Iterable[Mapping[str, Any] | None], container_id: str) -> float | None:
    """Seconds from the first signal after a container's start to its end; None where it ended by itself."""
    asked = ended = 0
    for each in happenings:
        if each and each["Actor"]["ID"] == container_id:
            match each["Action"]:
                case "start":
                    asked = 0
                case "kill" if not asked:
                    asked = int(each["timeNano"])
                case "die":
                    ended = int(each["timeNano"])
    return (ended - asked) / 1e9 if asked else None


LESSON = Lesson(
    "04",
    "A container's life",
    exercises=(
        Exercise(
            "04-1",
            "A container that knows how to go",
            (
                "A shell can listen: trap 'exit 0' TERM",
                "A shell does not listen while a program is in front. Put it behind: sleep 300 & wait",
                "With --init the program is not process 1, and TERM ends it: with 143, not with 0.",
            ),
            (
                "%container run -d --name polite host sh -c 'trap \"exit 0\" TERM; sleep 300 & wait'",
                "%container stop polite",
            ),
            _polite,
        ),
    ),
    questions=(
        Question(
            "04-a",
            "A container ended with 143. What happened?",
            (
                Choice("its program failed with error 143", "Programs seldom use numbers that large for themselves."),
                Choice("it was asked to end, with TERM, and did", "128 and 15, the number of TERM.", is_right=True),
                Choice("it took too much memory", "Then it is killed, with KILL: 128 and 9 make 137."),
            ),
        ),
        Question(
            "04-b",
            "A container with --restart always is stopped by you. Is it started again?",
            (
                Choice("yes, at once", "A policy is for ends that nobody asked for. You asked."),
                Choice(
                    "not now; but when the computer starts again, and the engine is told",
                    "`always` means that; `unless-stopped` remembers that you stopped it.",
                    is_right=True,
                ),
                Choice("never", "That is what `unless-stopped` does."),
            ),
        ),
    ),
)
