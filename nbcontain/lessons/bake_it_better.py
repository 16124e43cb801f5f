"""Lesson 03, Bake it better: smaller, quicker to rebuild, and not run by root."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question
from nbcontain.oci.image import Image

GREETING = "hello from the oven"


def _weight(image: Image, below: Image | None) -> int:
    """Bytes of the layers that an image has beside those of its base."""
    shared = {layer.diff_id for layer in below.layers} if below else set()
    return sum(layer.descriptor.size for layer in image.layers if layer.diff_id not in shared)


def _lighter(room: Classroom) -> Iterator[Claim]:
    fat, thin, base = room.image("fat"), room.image("thin"), room.image("host")
    yield Claim("there is an image fat, to compare with", fat is not None, "run the cell that builds it")
    yield Claim("there is an image thin", thin is not None, "%%dockerfile -t thin")
    if fat is None or thin is None:
        return
    yield Claim(
        "its own layers weigh less than 40 % of fat's",
        _weight(thin, base) < 0.4 * _weight(fat, base),
        "COPY --from=oven takes one file out of a stage; the rest of the stage stays behind",
    )
    yield Claim(
        "it still holds the bread",
        room.file("thin", "/bread") == f"{GREETING}\n".encode(),
        "COPY --from=oven /bread /bread",
    )
    kept = [n for n in range(1, len(thin.layers) + 1) if room.file(f"thin@layer{n}", "/flour") is not None]
    yield Claim("the flour is in none of its layers", not kept, "what only the oven needs stays in the stage oven")


def _humble(room: Classroom) -> Iterator[Claim]:
    image = room.image("humble")
    yield Claim("there is an image humble", image is not None, "%%dockerfile -t humble")
    if image is None:
        return
    user = image.config.user.partition(":")[0]
    yield Claim("it says which user runs it", bool(user), "USER 1000")
    yield Claim("that user is not root", user not in ("", "0", "root"), "any number but 0 will do")
    yield Claim("it comes from thin or has its bread", room.file("humble", "/bread") is not None, "FROM thin")
    said = room.said("humble", "sh", "-c", "id -u; cat /bread; echo x > /bread 2>/dev/null || echo refused")
    if said is not None:  # where a user has no other id than his own, perhaps nobody else can be started
        who, *lines = said.split("\n")
        yield Claim("a container of it is not root", who != "0", "USER decides that")
        yield Claim("it can read the bread", lines[:1] == [GREETING], "chmod a+r /bread")
        if not room.engine.profile.rung.ids:  # else others than root are only kept in mind there
            yield Claim("and not change it", lines[1:2] == ["refused"], "root owns /bread; leave it so")


def _ignores(room: Classroom) -> Iterator[Claim]:
    image = room.image("tidy")
    yield Claim("there is an image tidy", image is not None, "%%dockerfile -t tidy")
    if image is None:
        return
    yield Claim("it has app.py", room.file("tidy", "/srv/app.py") is not None, "COPY . /srv/")
    for path in ("notes.log", "data/huge.bin"):
        yield Claim(
            f"{path} was left out",
            room.file("tidy", f"/srv/{path}") is None,
            "%%contextfile .dockerignore with a line for each pattern",
        )


LESSON = Lesson(
    "03",
    "Bake it better",
    exercises=(
        Exercise(
            "03-1",
            "A lighter image in two stages",
            (
                "What a program needs while it is made is more than what it needs while it runs.",
                "Name the first stage: FROM host AS oven. Begin a second one: FROM host.",
                "COPY --from=oven /bread /bread takes the one file that is wanted.",
            ),
            (
                "%%dockerfile -t thin\n"
                "FROM host AS oven\n"
                "RUN head -c 3000000 /dev/urandom > /flour\n"
                f"RUN test -s /flour && echo '{GREETING}' > /bread\n"
                "\n"
                "FROM host\n"
                "COPY --from=oven /bread /bread\n"
                'CMD ["cat", "/bread"]\n',
            ),
            _lighter,
        ),
        Exercise(
            "03-2",
            "Leave the mess at home",
            (
                "COPY . takes everything in the context, unless .dockerignore names it.",
                "*.log leaves out logs at the top, **/*.log everywhere.",
                "Write it with a cell: %%contextfile .dockerignore --context kitchen",
            ),
            (
                "%%contextfile .dockerignore --context kitchen\n*.log\ndata\n",
                "%%dockerfile -t tidy --context kitchen\nFROM host\nCOPY . /srv/\n",
            ),
            _ignores,
        ),
        Exercise(
            "03-3",
            "Somebody else than root",
            (
                "USER says who runs the image's command.",
                "A number is enough: no such user needs to exist.",
                "FROM thin, then USER 1000.",
            ),
            ("%%dockerfile -t humble\nFROM thin\nUSER 1000\n",),
            _humble,
        ),
    ),
    questions=(
        Question(
            "03-a",
            "Why is `apt-get update && apt-get install curl && rm -rf /var/lib/apt/lists/*` one RUN and not three?",
            (
                Choice("because RUN can be used only once", "There may be as many as you like: each makes a layer."),
                Choice(
                    "because a layer keeps what its own step leaves; removed in a later step it would still be stored",
                    "What is gone before the step ends was never in the layer.",
                    is_right=True,
                ),
                Choice("because it is faster", "The time is the same. It is about what stays in the layer."),
            ),
        ),
        Question(
            "03-b",
            "FROM python or FROM python:3.12.4-slim: which one builds the same image next year?",
            (
                Choice("the first: it is always the newest", "That is just why it will be another one."),
                Choice(
                    "the second, nearly: a tag can still be moved, a digest (python@sha256:…) cannot",
                    "Tags are names that people move; a digest is computed from the content.",
                    is_right=True,
                ),
                Choice("both", "`python` means `python:latest`, and that moves with every release."),
            ),
        ),
    ),
)
