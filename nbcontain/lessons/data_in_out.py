"""Lesson 06, Data in, data out."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _guest_book(room: Classroom) -> Iterator[Claim]:
    found = [volume for volume in room.engine.volumes if volume.name == "guestbook"]
    yield Claim("there is a volume guestbook", bool(found), "%volume create guestbook, or -v guestbook:/book")
    if not found:
        return
    written = room.said("host", "cat", "/book/page", volumes=("guestbook:/book:ro",)) or ""
    lines = written.splitlines()
    yield Claim(
        "its page has a line", bool(lines), "%container run --rm -v guestbook:/book host sh -c 'echo … > /book/page'"
    )
    yield Claim("and a second one", len(lines) >= 2, ">> adds to a file, > begins it anew")
    left = room.engine.volumes.uses().get("guestbook", [])
    yield Claim("no container has it any more", not left, "run --rm removes a container when it ends")


LESSON = Lesson(
    "06",
    "Data in, data out",
    exercises=(
        Exercise(
            "06-1",
            "A guest book",
            (
                "-v guestbook:/book makes the volume where there is none, and shows it at /book.",
                "The second guest must not begin the page anew: echo … >> /book/page",
            ),
            (
                "%container run --rm -v guestbook:/book host sh -c 'echo \"Ada was here\" > /book/page'",
                "%container run --rm -v guestbook:/book host sh -c 'echo \"so was Grace\" >> /book/page'",
            ),
            _guest_book,
        ),
    ),
    questions=(
        Question(
            "06-a",
            "You change a file in a directory that a container has by -v. What does the container see?",
            (
                Choice("the old content, until it is started again", "There is no copy that could be old."),
                Choice(
                    "the new content, at once", "It is the same directory, seen through another door.", is_right=True
                ),
                Choice("an error", "Nothing was taken away from it."),
            ),
        ),
    ),
)
