"""Building through an engine: what the user asked for, planned, solved, named and handed out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nbcontain.build.chronicle import Chronicle, Signature, StepReport, config_of
from nbcontain.build.context import Context
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.build.solver import BUILD, Solver
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import ImageNotFound
from nbcontain.events import Emit, Notice, scope
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Leash
from nbcontain.task import Task

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_STEP = re.compile(r"(?P<name>.*)@(?:step[-:]?(?P<number>[0-9]{1,5})|(?P<word>failed|before))")


@dataclass(frozen=True, slots=True)
class BuildResult:
    """How a build went, step by step."""

    image: Image | None
    """None where it failed, or has not ended yet."""
    steps: tuple[StepReport, ...]


class BuildTask(Task[Image]):
    """A build in progress; it gives the image."""

    def __init__(self, name: str, body: Callable[[Emit], Image], chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        super().__init__(name, body)

    @property
    def report(self) -> BuildResult:
        """How each step went so far, and why it was not cached."""
        image = self.result() if self.is_done and self._error is None else None
        return BuildResult(image, self._chronicle.reports())


class Builder:
    """The builds of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Signature] = {}

    def build(self, dockerfile: str, options: BuildOptions) -> BuildTask:
        """Make an image from the text of a Dockerfile. Raises DockerfileError at once for what cannot be read."""
        engine = self._engine
        tags = [Reference.parse(tag) for tag in options.tags]
        parsed = parse(dockerfile)
        context = Context(options.context, engine.contents) if options.context is not None else None
        leash = Leash()
        name = tags[0].familiar if tags else f"{options.context or ''}"
        chronicle = Chronicle(name, lambda: engine.store, context, self._known)

        def body(emit: Emit) -> Image:
            title = "build " + ", ".join(tag.familiar for tag in tags) if tags else "build"
            with leash, scope(emit, BUILD, title), engine.store.shared():
                graph = plan(parsed, options, lambda reference, _: engine.base_image(reference, emit))
                for remark in graph.remarks:
                    place = f"line {remark.span.first}: " if remark.span else ""
                    emit(Notice(BUILD, place + remark.message, remark.hint))
                workshop = replace(
                    engine.workshop(emit), context=context, leash=leash, secrets=options.secrets, ssh=options.ssh
                )
                solver = Solver(
                    workshop, chronicle, source=dockerfile, no_cache=options.no_cache,
                    no_cache_stages=frozenset(each.lower() for each in options.no_cache_stages),
                )  # fmt: skip
                image = solver.solve(graph)
                engine.store.images.put(image, None)
                for tag in tags:
                    engine.store.images.tag(image, tag)
                return image

        task = BuildTask("build", body, chronicle)
        task.on_cancel(leash.let_go)
        return task

    def state(self, text: str) -> Image | None:
        """The image of NAME@step3, NAME@failed or NAME@before (the failed step); None for another kind of name.

        Without a name it is the last build of all. Raises ImageNotFound.
        """
        match = _STEP.fullmatch(text)
        if match is None:
            return None
        name = match["name"]
        store = self._engine.store
        record = store.builds.get(Reference.parse(name).familiar) if name else store.builds.last()
        if record is None:
            known = [each.name for _, each in store.builds.walk() if each.name]
            raise ImageNotFound(
                f"no build of {name} is remembered" if name else "no build is remembered",
                hint=f"Remembered are: {', '.join(known[:8])}" if known else "",
            )
        failed = next((each for each in record.states if each.outcome == "failed"), None)
        if match["word"]:
            if failed is None:
                raise ImageNotFound(f"the last build{f' of {name}' if name else ''} did not fail in a RUN")
            wanted = failed.number if match["word"] == "failed" else failed.number - 1
        else:
            wanted = int(match["number"])
        found = max((each for each in record.states if each.number <= wanted), key=lambda s: s.number, default=None)
        steps = [int(each["number"]) for each in record.recipes]
        if found is None or wanted not in steps:
            raise ImageNotFound(f"{text}: there is no such step", hint=f"The build came as far as step {max(steps)}.")
        return Image.of(config_of(found), found.layers)
