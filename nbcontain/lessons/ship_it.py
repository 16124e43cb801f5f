"""Lesson 05, Ship it."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.errors import BadReference
from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question
from nbcontain.oci.reference import Reference


def _stable(room: Classroom) -> Iterator[Claim]:
    kept = {(each.repository, each.tag): each.digest for each in room.engine.serving.repositories.listed()}
    running = room.engine.serving.served is not None
    yield Claim("the registry runs", running, "%nbcontain registry start")
    one, stable = kept.get(("cargo", "1")), kept.get(("cargo", "stable"))
    yield Claim("cargo:1 is in it", one is not None, "run the cells above again")
    yield Claim("cargo:stable is in it, too", stable is not None, "an image goes where its name says: tag, then push")
    yield Claim(
        "both names mean one image", stable is not None and stable == one, "%image tag …/cargo:1 …/cargo:stable"
    )


def _pinned(room: Classroom) -> Iterator[Claim]:
    text = room.names.get("pinned")
    yield Claim("there is a text pinned", isinstance(text, str), 'pinned = "…"')
    try:
        name = Reference.parse(str(text))
    except BadReference:
        name = None
    is_here = name is not None and name.repository == "cargo" and name.registry.startswith(("localhost:", "127.0.0.1:"))
    yield Claim("it names an image of the repository cargo in our registry", is_here, 'f"{registry.host}/cargo…"')
    digest = name.digest if name is not None else None
    yield Claim("it says which by digest, not by tag", digest is not None, "NAME@sha256:…")
    one = room.engine.serving.repositories.manifest("cargo", "1")
    means_one = one is not None and digest == one.digest
    yield Claim("and that is version 1, whatever latest means", means_one, "the variable one has it")


LESSON = Lesson(
    "05",
    "Ship it",
    exercises=(
        Exercise(
            "05-1",
            "A second name on the way",
            (
                "push sends an image to where its name says. So it needs that name first: %image tag FROM TO",
                "Names of our registry begin with {registry.host}/; in a magic, {…} is filled in from Python.",
                "Is version 1 here at all, under a name? If not: %image pull {registry.host}/cargo:1",
            ),
            (
                "%image pull {registry.host}/cargo:1",
                "%image tag {registry.host}/cargo:1 {registry.host}/cargo:stable",
                "%image push {registry.host}/cargo:stable",
            ),
            _stable,
        ),
        Exercise(
            "05-2",
            "Always the same cargo",
            (
                "A digest stands behind an @: NAME@sha256:…",
                "The variable one is version 1's digest, as text it begins with sha256:",
            ),
            ('pinned = f"{registry.host}/cargo@{one}"',),
            _pinned,
        ),
    ),
    questions=(
        Question(
            "05-a",
            "What is a manifest?",
            (
                Choice("all files of the image in one", "They are in the layers, which the manifest only names."),
                Choice(
                    "a list of digests: one config, and the layers in their order",
                    "That is all. Whoever has it can ask for each part, and check each part.",
                    is_right=True,
                ),
                Choice("the Dockerfile", "It is not sent. What is known of it stands in the config's history."),
            ),
        ),
        Question(
            "05-b",
            "A second image on the same base is pushed. What travels?",
            (
                Choice("the whole image", "The server is asked first what it has."),
                Choice("what the server does not have", "Layers are named by digest: nobody needs one twice.", True),
                Choice("nothing", "Its own layer and its config are new."),
            ),
        ),
        Question(
            "05-c",
            "Somebody pushes another image as cargo:latest. You pull cargo@sha256:… as before. What do you get?",
            (
                Choice("the new one", "A tag moved. You did not ask for a tag."),
                Choice("an error", "The old manifest is still there, without that name."),
                Choice("what you always got", "Other bytes would have another digest.", True),
            ),
        ),
    ),
)
