"""Lesson 08, There is no container."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _outside(room: Classroom) -> Iterator[Claim]:
    container = room.container("real")
    pid = container.pid if container is not None else None
    yield Claim("there is a container real, and it runs", pid is not None, "run the cell above that starts it")
    given = str(room.names.get("outside", "")).strip()  # as a text it is right as well: "4711"
    yield Claim("outside is a number", given.isdecimal(), "outside = …")
    if pid is not None and given.isdecimal():
        yield Claim("it is that of the container's first process", int(given) == pid, "pid, in the X-ray above")


LESSON = Lesson(
    "08",
    "There is no container",
    exercises=(
        Exercise(
            "08-1",
            "One process, two numbers",
            (
                "The X-ray has both numbers in its first line: process.",
                'engine.container("real") has it as its pid; `docker inspect` calls it State.Pid.',
            ),
            ('outside = engine.container("real").pid',),
            _outside,
        ),
    ),
    questions=(
        Question(
            "08-a",
            "A container's process is number 1 inside. What is it outside?",
            (
                Choice("nothing: it cannot be seen from outside", "`ps` on the host shows it like any other."),
                Choice(
                    "an ordinary process with another number",
                    "One process, two numbers: each process namespace counts for itself.",
                    is_right=True,
                ),
                Choice("number 1 as well", "That is the host's own first process."),
            ),
        ),
    ),
)
