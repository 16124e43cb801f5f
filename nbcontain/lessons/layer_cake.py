"""Lesson 02, Layer cake: what an image's layers hold, which ones a build bakes anew, and what is never gone."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question

SECRET = b"tomato-42"
_SLOW = "slow-bake"


def _found_the_secret(room: Classroom) -> Iterator[Claim]:
    answer = room.names.get("answer")
    yield Claim("there is text in the variable answer", isinstance(answer, str), "answer = '…'")
    yield Claim(
        "it is the password that a lower layer of leaky keeps",
        isinstance(answer, str) and answer.strip().removeprefix("password=") == SECRET.decode(),
        "%image layers leaky says which layer added /secret; %image cat leaky@layer2 /secret reads it there",
    )


def _nothing_leaks(room: Classroom) -> Iterator[Claim]:
    image = room.image("sealed")
    yield Claim("there is an image sealed", image is not None, "%%dockerfile -t sealed")
    if image is None:
        return
    yield Claim(
        "its /greeting says that the door is open",
        room.file("sealed", "/greeting") == b"the door is open\n",
        "RUN must still write it, with the password at hand",
    )
    yield Claim(
        "no layer has the password in it",
        not room.mentions("sealed", SECRET),
        "RUN --mount=type=secret,id=door lends a file for one step",
    )
    told = " ".join([*(entry.created_by for entry in image.config.history), *(image.config.env or ())])
    yield Claim(
        "its history and its environment do not say it either",
        SECRET.decode() not in told,
        "an ARG or ENV is written down in the image for everyone",
    )


def _bakes_once(room: Classroom) -> Iterator[Claim]:
    image = room.image("quick")
    yield Claim("there is an image quick", image is not None, "%%dockerfile -t quick")
    if image is None:
        return
    steps = [entry.created_by for entry in image.config.history]
    slow = [number for number, step in enumerate(steps) if _SLOW in step]
    copied = [number for number, step in enumerate(steps) if step.startswith(("COPY", "ADD")) and "fruit" in step]
    yield Claim("it has the slow step", len(slow) == 1, f"keep the RUN that writes /{_SLOW}")
    yield Claim("it has the fruit", len(copied) == 1, "keep COPY fruit /fruit")
    yield Claim(
        "what changes often comes after what takes long",
        bool(slow and copied) and slow[0] < copied[0],
        "a step is baked anew when any step below it was: put COPY fruit as late as you can",
    )


LESSON = Lesson(
    "02",
    "Layer cake",
    exercises=(
        Exercise(
            "02-1",
            "Read what was removed",
            (
                "A layer that removes a file only hides it. The layer below still has it.",
                "%image layers leaky lists the layers with what each adds and removes.",
                "%image cat leaky@layer2 /secret shows a file as the second layer left it.",
            ),
            ('answer = b"".join(engine.anatomy.read("leaky@layer2", "/secret")).decode()\nanswer\n',),
            _found_the_secret,
        ),
        Exercise(
            "02-2",
            "Use a secret and leave no trace",
            (
                "What is never written into a layer need not be removed from one.",
                "RUN --mount=type=secret,id=door shows a file at /run/secrets/door, for this one step.",
                "On the first line: %%dockerfile -t sealed --secret id=door,var=door gives it the variable.",
            ),
            (
                "%%dockerfile -t sealed --secret id=door,var=door\n"
                "FROM host\n"
                "RUN --mount=type=secret,id=door \\\n"
                "    grep -q tomato /run/secrets/door && echo 'the door is open' > /greeting\n",
            ),
            _nothing_leaks,
        ),
        Exercise(
            "02-3",
            "Put the layers in a better order",
            (
                "A step is taken from the cache only if everything before it is.",
                "Which line changes every day, and which one hardly ever?",
                "Move COPY fruit /fruit below the RUN that takes long.",
            ),
            (
                "%%dockerfile -t quick --context var:kitchen\n"
                "FROM host\n"
                f"RUN sleep 1; echo baked > /{_SLOW}\n"
                "COPY fruit /fruit\n"
                'CMD ["cat", "/fruit"]\n',
            ),
            _bakes_once,
        ),
    ),
    questions=(
        Question(
            "02-a",
            "Two images are built FROM the same base of 50 MB. What do they take on the disk?",
            (
                Choice(
                    "100 MB and a little",
                    "Layers are stored under the digest of their content: the same one only once.",
                ),
                Choice("50 MB and a little", "Both name the same layers, and a layer is stored once.", is_right=True),
                Choice("25 MB each", "Nothing is divided: both have the whole base, and it is the same one."),
            ),
        ),
        Question(
            "02-b",
            "RUN rm /big removes a file of 1 GB that an earlier RUN made. How does the image's size change?",
            (
                Choice("it shrinks by 1 GB", "The earlier layer is as it was; nothing is taken out of a layer."),
                Choice(
                    "it grows by a few bytes",
                    "The new layer holds one note, a whiteout: what is below this name is not to be seen.",
                    is_right=True,
                ),
                Choice("it stays as it is", "Nearly. The note that hides the file takes a few bytes."),
            ),
        ),
    ),
)
