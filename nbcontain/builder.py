"""Building through an engine: what the user asked for, planned, solved, named and handed out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nbcontain.build.arguments import with_epoch
from nbcontain.build.chronicle import Chronicle, Signature, StepReport, config_of
from nbcontain.build.context import ContentCache
from nbcontain.build.inputs import DockerfileSource, Inputs, opened
from nbcontain.build.operations import Workshop
from nbcontain.build.plan import BuildOptions, plan
from nbcontain.build.solver import Solver
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import ImageNotFound
from nbcontain.events import BUILD, Emit, Notice, scope
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image, timestamp
from nbcontain.oci.reference import Reference
from nbcontain.registry.policies import local
from nbcontain.runtime.leash import Leash
from nbcontain.task import Task
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.build.accounts import Delivery
    from nbcontain.build.annotations import Annotations
    from nbcontain.build.lint import CheckReport
    from nbcontain.engine import Engine

T = TypeVar("T")

HOST_IMAGE = Reference.parse("host")
_STEP = r"(?P<name>.*)@(?:step[-:]?(?P<number>[0-9]{1,5})|(?P<word>failed|before))"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """How a build went, step by step."""

    image: Image | None
    """None where it failed, or has not ended yet."""
    steps: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """One result in the build cache."""

    digest: Digest
    created_by: str
    used_at: float
    """Seconds since the epoch."""
    used: str
    """The same as RFC 3339."""
    size_bytes: int

    @property
    def key(self) -> str:
        return self.digest.short


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


def _notice(remark: ast.Remark) -> Notice:
    name = f"{remark.rule}: " if remark.rule else ""
    place = f" (line {remark.span.first})" if remark.span else ""
    return Notice(BUILD, name + remark.message + place, remark.hint, "warning" if remark.rule else "")


def _checked_annotations(options: BuildOptions, tags: Sequence[Reference]) -> Annotations:
    """What --annotation says, once all that is to be handed out can be. Raises UsageError."""
    from nbcontain.build.accounts import checked
    from nbcontain.build.annotations import annotations_of

    annotations = annotations_of(options.annotations, options.platform)
    checked(options, tags, annotations)
    return annotations


class Builder:
    """The builds of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Signature] = {}
        self._contents = ContentCache()

    def build(self, dockerfile: DockerfileSource, options: BuildOptions) -> BuildTask:
        """Make an image from the text of a Dockerfile, or from one that is in the context.

        Raises DockerfileError at once for a text that cannot be read.
        """
        engine = self._engine
        build_args, epoch = with_epoch(options.build_args, engine.environ)
        options = replace(options, build_args=build_args)
        tags = [Reference.parse(tag) for tag in options.tags]
        annotations = _checked_annotations(options, tags) if options.outputs or options.annotations else None
        parsed = parse(dockerfile) if isinstance(dockerfile, str) else None
        source = options.context
        leash = Leash()
        name = tags[0].familiar if tags else str(source) if isinstance(source, Path) else ""
        chronicle = Chronicle(name, lambda: engine.store, self._known)

        def body(emit: Emit) -> Image:
            started = timestamp()
            title = "build " + ", ".join(tag.familiar for tag in tags) if tags else "build"
            with (
                leash, scope(emit, BUILD, title), engine.store.shared(),
                self._opened(dockerfile, options, emit) as given,
            ):  # fmt: skip
                graph = plan(
                    parsed or parse(given.dockerfile), options,
                    lambda reference, _: self.base_image(reference, emit, options.pull),
                    is_ignored=given.is_ignored, contexts=given.names,
                )  # fmt: skip
                for remark in (*options.remarks, *graph.remarks):
                    emit(_notice(remark))
                for remark in graph.hints:
                    emit(replace(_notice(remark), kind="hint"))
                workshop = replace(self._workshop(options, emit), contexts=given.directories, leash=leash)
                chronicle.contexts = given.directories
                solver = Solver(
                    workshop, chronicle, source=given.dockerfile, no_cache=options.no_cache,
                    no_cache_stages=frozenset(each.lower() for each in options.no_cache_stages),
                    imports=options.cache_from,
                )  # fmt: skip
                said = annotations.manifest if annotations else {}
                image = solver.solve(graph)
                if epoch is not None or said:
                    from nbcontain.build.finish import finished

                    image = finished(image, graph, engine.store, emit, epoch=epoch, annotations=said)
                engine.store.images.put(image, None)
                for tag in (*tags, *(name for output in options.outputs for name in output.names_here)):
                    engine.store.images.tag(image, tag)
                for directory in options.cache_to:
                    directory.keep(chronicle.keys(), engine.store)
                if options.outputs or options.id_file or options.metadata_file:
                    from nbcontain.build.accounts import account_of, delivery_of

                    account = account_of(graph, options, given, workshop, started, solver.layers(), engine.environ)
                    self._hand_out(delivery_of(image, tags, annotations, account, options), options, workshop)
                return image

        task = BuildTask("build", body, chronicle)
        task.on_cancel(leash.let_go)
        return task

    def base_image(self, reference: Reference, emit: Emit, policy: str = "missing") -> Image:
        """What FROM means, asked of its registry as the policy says; `host` is made."""
        engine = self._engine
        if reference != HOST_IMAGE:
            here = local(lambda: engine.store.images.get(reference.pinned), policy, engine.environ)
            return here or engine.registry.ensure(reference, policy, emit, BUILD)
        try:
            return engine.store.images.get(reference)
        except ImageNotFound:
            return self._host_image(emit, reference, ())

    def from_host(self, tag: str, programs: Sequence[str]) -> Task[Image]:
        """An image of this machine's own shell, coreutils and Python, and of `programs`."""
        reference = Reference.parse(tag)

        def body(emit: Emit) -> Image:
            name = f"{reference.familiar} from this machine's programs"
            with scope(emit, BUILD, name), self._engine.store.shared():
                return self._host_image(emit, reference, programs)

        return Task(f"from-host {tag}", body)

    def _host_image(self, emit: Emit, reference: Reference, programs: Sequence[str]) -> Image:
        from nbcontain.build.importer import host_image

        task = "host-image"
        with scope(emit, task, "shell, coreutils, Python" + "".join(f", {each}" for each in programs), BUILD):
            image = host_image(programs, self._engine.workshop(emit), task)
        self._engine.store.images.put(image, reference)
        return image

    def _hand_out(self, delivery: Delivery, options: BuildOptions, workshop: Workshop) -> None:
        """Everything that was asked for besides the image in the store."""
        from nbcontain.build import exports

        product, pushed = delivery.product, False
        for output in options.outputs:
            exports.write(output, product, workshop)
            for name in output.targets(product.names) if output.push else ():
                self._engine.registry.send(name, product.image, workshop.emit, BUILD, product.attested)
                pushed = True
        if options.id_file:
            exports.write_text(options.id_file, str(product.image.id))
        if options.metadata_file:
            carried = pushed or any(each.carries_attestations for each in options.outputs)
            shown = product if carried else replace(product, attested=None)
            exports.write_metadata(options.metadata_file, exports.metadata_of(shown, delivery.provenance))

    def check(self, dockerfile: DockerfileSource, options: BuildOptions, wrap: Callable[[CheckReport], T]) -> Task[T]:
        """Check a Dockerfile and build nothing; the task gives the report, wrapped.

        Raises DockerfileError at once for what cannot be read.
        """
        from nbcontain.build.lint import check

        engine = self._engine

        def look(parsed: ast.Dockerfile, given: Inputs, emit: Emit) -> T:
            return wrap(check(
                parsed, options, lambda reference, _: self.base_image(reference, emit, options.pull),
                engine.environ, given.is_ignored, given.names,
            ))  # fmt: skip

        return self._examined("check", dockerfile, options, look)

    def examine(
        self, name: str, dockerfile: DockerfileSource, options: BuildOptions,
        look: Callable[[ast.Dockerfile, Inputs], T],
    ) -> Task[T]:  # fmt: skip
        """Look at a Dockerfile and build nothing; the task gives what `look` sees. Raises as `check` does."""
        return self._examined(name, dockerfile, options, lambda parsed, given, emit: look(parsed, given))

    def _examined(
        self, name: str, dockerfile: DockerfileSource, options: BuildOptions,
        look: Callable[[ast.Dockerfile, Inputs, Emit], T],
    ) -> Task[T]:  # fmt: skip
        parsed = parse(dockerfile) if isinstance(dockerfile, str) else None

        def body(emit: Emit) -> T:
            store = self._engine.store
            with scope(emit, BUILD, name), store.shared(), self._opened(dockerfile, options, emit) as given:
                return look(parsed or parse(given.dockerfile), given, emit)

        return Task(name, body)

    def prune(self, max_age_s: float, keep_bytes: int = 0) -> int:
        """Forget what was not used for so long, but for the youngest `keep_bytes`; what became free."""
        store = self._engine.store
        kept = 0
        for each in self.usage():
            kept += each.size_bytes
            if time.time() - each.used_at >= max_age_s and kept > keep_bytes:
                store.cache.remove(each.digest)
        if not keep_bytes:
            store.builds.remove_old(max_age_s)
        self._known.clear()
        return self._engine.prune()

    def usage(self) -> list[CacheUse]:
        """The results that the build cache knows, youngest first; each layer counts for the first that has it."""
        store = self._engine.store
        counted: set[Digest] = set()
        found = []
        for digest, used_at in sorted(store.cache.walk(), key=lambda each: -each[1]):
            record = store.cache.peek(digest)
            if record is None:
                continue
            new = [layer.descriptor for layer in record.layers[-1:] if layer.descriptor.digest not in counted]
            counted.update(each.digest for each in new)
            from datetime import UTC, datetime

            used = datetime.fromtimestamp(used_at, UTC).isoformat().replace("+00:00", "Z")
            found.append(CacheUse(digest, record.created_by, used_at, used, sum(each.size for each in new)))
        return found

    def _workshop(self, options: BuildOptions, emit: Emit) -> Workshop:
        return replace(self._engine.workshop(emit), secrets=options.secrets, ssh=options.ssh)

    def _opened(
        self, dockerfile: DockerfileSource, options: BuildOptions, emit: Emit
    ) -> AbstractContextManager[Inputs]:
        """The Dockerfile and the files that COPY takes; what had to be written for them goes with the build."""
        keeps = dict(each.partition("=")[::2] for each in options.build_args).get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")
        return opened(
            dockerfile, options.context, options.contexts, self._workshop(options, emit), self._contents,
            ignore=options.ignore, keeps_git_dir=keeps.lower() in ("1", "t", "true"), parent=BUILD,
        )  # fmt: skip

    def state(self, text: str) -> Image | None:
        """The image of NAME@step3, NAME@failed or NAME@before (the failed step); None for another kind of name.

        Without a name it is the last build of all. Raises ImageNotFound.
        """
        match = re.fullmatch(_STEP, text)
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
