"""Lesson 07, Two containers talk."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _hermit(room: Classroom) -> Iterator[Claim]:
    container = room.container("hermit")
    running = container is not None and container.status == "running"
    yield Claim("there is a container hermit, and it runs", running, "run the cell that starts it")
    if container is None or not running:
        return
    names = room.engine.networks.names(container)
    yield Claim("it is still in the garden", "garden" in names, "do not start it anew: %network connect adds a network")
    yield Claim("it is on lab, where db is", "lab" in names, "%network connect lab hermit")


LESSON = Lesson(
    "07",
    "Two containers talk",
    exercises=(
        Exercise(
            "07-1",
            "A hermit gets a telephone",
            (
                "A container may be on several networks, and a running one can be put on one more.",
                "%network --help lists the verbs; one of them joins what is apart.",
            ),
            ("%network connect lab hermit",),
            _hermit,
        ),
    ),
    questions=(
        Question(
            "07-a",
            "How did the container on lab know the address of db?",
            (
                Choice("it was told when it was started", "Nobody told it anything; and addresses change."),
                Choice(
                    "it asked the network for the name",
                    "A small name server (DNS) answers in each network, and knows who is on it just now.",
                    is_right=True,
                ),
                Choice("all containers have the same address", "Each has its own."),
            ),
        ),
        Question(
            "07-b",
            "-p 8080:80: who can now read the page?",
            (
                Choice(
                    "everybody who reaches this computer", "That would be -p 0.0.0.0:8080:80; docker does so by itself."
                ),
                Choice(
                    "programs on this computer, at port 8080",
                    "127.0.0.1 is the door that leads nowhere else.",
                    is_right=True,
                ),
                Choice("only other containers", "They do not need a published port: they use the name, and port 80."),
            ),
        ),
    ),
)
