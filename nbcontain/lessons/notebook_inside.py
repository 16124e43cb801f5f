"""Lesson 09, The notebook inside the image."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.lessons.exercise import Choice, Claim, Classroom, Exercise, Lesson, Question


def _paper(room: Classroom) -> Iterator[Claim]:
    image = room.image("paper")
    yield Claim("there is an image paper", image is not None, "%%dockerfile -t paper, and FROM lab09")
    if image is None:
        return
    data = room.file("paper", "/paper/data.csv")
    yield Claim("it has the data, /paper/data.csv", bool(data), "RUN mkdir /paper && echo … > /paper/data.csv, or COPY")
    entry = next((each for each in room.engine.kernels.all() if each.name == "paper"), None)
    yield Claim("Jupyter has a kernel paper", entry is not None, "%kernel add paper")
    if entry is not None:
        yield Claim("it is the kernel of that image", entry.image == "paper", "%kernel add paper")
        yield Claim("and has no network", "--network=none" in entry.options, "%kernel add paper --network none")


LESSON = Lesson(
    "09",
    "The notebook inside the image",
    exercises=(
        Exercise(
            "09-1",
            "A paper that anybody can run again",
            (
                "The image needs a kernel and the data: FROM lab09 has the first, a RUN or a COPY brings the second.",
                "%kernel add IMAGE --network none takes the image's name for the kernel's.",
            ),
            (
                '%%dockerfile -t paper\nFROM lab09\nRUN mkdir /paper && echo "apple,8" > /paper/data.csv',
                "if able:\n    get_ipython().run_line_magic('kernel', 'add paper --network none')",
            ),
            _paper,
        ),
    ),
    questions=(
        Question(
            "09-a",
            "A cell of the new kernel says import numpy. Whose numpy is that?",
            (
                Choice("this computer's", "Its files are not to be seen in there."),
                Choice("the image's, or none", "A kernel sees what its image has, and nothing else.", is_right=True),
                Choice("JupyterLab's", "JupyterLab draws; it computes nothing."),
            ),
        ),
        Question(
            "09-b",
            "The kernel has no network. How do your cells get in?",
            (
                Choice("over a hidden network", "There is none: only lo, which leads nowhere."),
                Choice(
                    "through sockets in a directory that both see",
                    "A socket can be a file: whoever sees it can connect, and only you can enter the directory.",
                    is_right=True,
                ),
                Choice("they are copied into the image", "An image never changes."),
            ),
        ),
    ),
)
