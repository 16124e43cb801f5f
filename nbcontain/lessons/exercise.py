"""What a lesson consists of, as values: exercises that are judged by what there is, and questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.oci.image import Image
from nbcontain.runtime.container import Container
from nbcontain.store.compression import uncompressed
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that an exercise asks for, and whether it is so."""

    text: str
    holds: bool
    attempt: str = ""
    """What to try where it is not."""


@dataclass(frozen=True, slots=True)
class Classroom:
    """What an exercise is judged by: the engine with all that is in its store, and the notebook's variables."""

    engine: Engine
    names: Mapping[str, Any]

    def image(self, name: str) -> Image | None:
        """The image of this name, if there is one."""
        try:
            return self.engine.image(name)
        except NbcontainError:
            return None

    def container(self, name: str) -> Container | None:
        """The container of this name, if there is one."""
        return next((each for each in self.engine.containers() if each.name == name), None)

    def said(self, image: str, *command: str) -> str | None:
        """What a program in a new container of the image says, or None where it fails or none can be run here."""
        from nbcontain.runtime.generate import RunOptions

        if not self.engine.profile.runs:
            return None
        try:
            outcome = self.engine.run(RunOptions(image=image, command=command, remove=True)).result()
        except NbcontainError:
            return None
        return outcome.stdout if not isinstance(outcome, Container) and outcome.exit_code == 0 else None

    def file(self, image: str, path: str) -> bytes | None:
        """A file of an image, or of `image@layer2`; None where there is none."""
        try:
            return b"".join(self.engine.anatomy.read(image, path))
        except (NbcontainError, OSError):
            return None

    def mentions(self, image: str, text: bytes) -> list[int]:
        """The layers of an image, counted from 1, whose files or names have this text in them."""
        found = []
        for number, layer in enumerate(self.engine.image(image).layers, 1):
            with self.engine.store.blobs.open(layer.descriptor.digest) as blob:
                stream, rest = uncompressed(blob), b""
                while chunk := bytes(stream.chunk()):
                    if text in rest + chunk:
                        found.append(number)
                        break
                    rest = chunk[-len(text) :]
        return found


Judge = Callable[[Classroom], Iterator[Claim]]


@dataclass(frozen=True, slots=True)
class Exercise:
    """A task of a lesson."""

    id: str
    """Of the lesson and a number: 02-1."""
    title: str
    hints: tuple[str, ...]
    """Each says more than the one before."""
    solution: tuple[str, ...]
    """Cells that do it, one after the other."""
    judge: Judge


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to a question, and what to say to whoever gives it."""

    text: str
    because: str
    is_right: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a lesson; exactly one choice is right."""

    id: str
    """Of the lesson and a letter: 02-a."""
    text: str
    choices: tuple[Choice, ...]

    def letters(self) -> dict[str, Choice]:
        """The choices by the letters that name them."""
        return dict(zip("abcdefgh", self.choices, strict=False))


@dataclass(frozen=True, slots=True)
class Lesson:
    """What belongs to one notebook."""

    number: str
    title: str
    exercises: tuple[Exercise, ...] = ()
    questions: tuple[Question, ...] = ()
