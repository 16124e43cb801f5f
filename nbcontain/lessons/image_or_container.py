"""Lesson 01, Image or container?"""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.events import Output
from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question
from nbcontain.runtime.container import Container


def _back_to_one(room: Classroom) -> Iterator[Claim]:
    one, two, latest = (room.image(f"myapp:{tag}") for tag in ("1", "2", "latest"))
    yield Claim("myapp:1 is here", one is not None, "run the cells of this section again")
    yield Claim("and so is myapp:2", two is not None, "run the cells of this section again")
    is_moved = one is not None and latest is not None and latest.digest == one.digest
    yield Claim("myapp:latest points at the same image as myapp:1", is_moved, "%image tag OLD-NAME NEW-NAME")
    yield Claim("the two versions are still two images", one != two, "build them anew; do not tag over myapp:2")


def _a_house_of_your_own(room: Classroom) -> Iterator[Claim]:
    container = room.container("house-mine")
    yield Claim("there is a container house-mine", container is not None, "--name house-mine")
    if container is None:
        return
    image = room.image("greeter")
    same = image is not None and container.info.image_id == str(image.id)
    yield Claim("it was made of greeter", same, "the image's name is the last word, before the command")
    env = dict(each.partition("=")[::2] for each in container.bundle.spec.process.env)
    owner = env.get("OWNER", "")
    yield Claim("its owner is somebody else than nobody", owner not in ("", "nobody yet"), "-e OWNER=…")
    default = image.config.cmd if image is not None else ()
    is_own = tuple(container.bundle.spec.process.args) != tuple(default or ())
    yield Claim("it runs a command of your own", is_own, "what follows the image's name is the command")
    said = "".join(_log(container))
    yield Claim("what it printed has its owner in it", bool(owner) and owner in said, "sh -c 'echo \"…$OWNER…\"'")


def _log(container: Container) -> Iterator[str]:
    """What it printed."""
    for record in container.output():
        if isinstance(record.event, Output):
            yield record.event.data.decode(errors="replace")


LESSON = Lesson(
    "01",
    "Image or container?",
    exercises=(
        Exercise(
            "01-1",
            "A house of your own",
            (
                "run takes -e NAME=VALUE before the image's name, and a command behind it.",
                "A command with a variable in it needs a shell: sh -c 'echo \"I am $OWNER\"'",
            ),
            ("%container run --name house-mine -e OWNER=Mary greeter sh -c 'echo \"$OWNER lives here\"'",),
            _a_house_of_your_own,
        ),
        Exercise(
            "01-2",
            "Back to version 1",
            (
                "A tag is a name, and %image tag gives a name to an image that has one already.",
                "%image tag FROM TO: the second name moves to the image of the first.",
            ),
            ("%image tag myapp:1 myapp:latest",),
            _back_to_one,
        ),
    ),
    questions=(
        Question(
            "01-a",
            "Ada throws the furniture out of her container. Who else loses theirs?",
            (
                Choice("all containers of the image", "Her change is in her own layer. Nobody else looks through it."),
                Choice("nobody", "The image is below, read-only. Each container writes into its own layer.", True),
                Choice("those that are started from now on", "They start from the image, and it did not change."),
            ),
        ),
        Question(
            "01-b",
            "A container is stopped. Where are the files that it wrote?",
            (
                Choice("gone", "That is what `rm` does. `stop` ends the process only."),
                Choice("in the image", "Nothing ever writes into an image."),
                Choice("in its own layer, until it is removed", "So it can be started again and finds them.", True),
            ),
        ),
        Question(
            "01-c",
            "Yesterday you pulled myapp:latest, and today again. Is it the same image?",
            (
                Choice("yes: a name means one image", "A tag is a name that people move."),
                Choice("only its digest can tell", "The digest is made of the bytes: other bytes, other digest.", True),
                Choice("no: latest is always a new one", "It may well be the same. Nobody has to move a tag."),
            ),
        ),
    ),
)
