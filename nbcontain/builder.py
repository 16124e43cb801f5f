"""Building through an engine: what the user asked for, planned, solved, named and handed out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nbcontain.build import caches, outputs
from nbcontain.build.cache_document import inline_of
from nbcontain.build.caches import Cache, CacheImport, CachePlace
from nbcontain.build.chronicle import Chronicle, Signature, StepReport, config_of
from nbcontain.build.context import ContentCache, Context
from nbcontain.build.finish import finished, with_epoch
from nbcontain.build.lint import CheckReport, check
from nbcontain.build.operations import Workshop
from nbcontain.build.patterns import Ignore
from nbcontain.build.plan import BuildOptions, Resolve, plan
from nbcontain.build.solver import BUILD, Solver
from nbcontain.build.sources import Source, directory_of, is_directory
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import BuildError, ImageNotFound, RegistryError, UsageError
from nbcontain.events import Emit, Event, Notice, Started, scope
from nbcontain.oci import indexes
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Leash
from nbcontain.task import Task

if TYPE_CHECKING:
    from nbcontain.engine import Engine

T = TypeVar("T")

_STEP = re.compile(r"(?P<name>.*)@(?:step[-:]?(?P<number>[0-9]{1,5})|(?P<word>failed|before))")


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


class Builder:
    """The builds of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Signature] = {}

    def build(self, dockerfile: str, options: BuildOptions) -> BuildTask:
        """Make an image from the text of a Dockerfile. Raises DockerfileError at once for what cannot be read."""
        engine = self._engine
        build_args, epoch = with_epoch(options.build_args, engine.environ)
        options = replace(options, build_args=build_args)
        tags = [Reference.parse(tag) for tag in options.tags]
        parsed = parse(dockerfile)
        source = options.context
        leash = Leash()
        platforms = options.platforms or (options.platform,)
        if len(platforms) > 1 and any(each.kind == "tar" for each in options.outputs):
            raise UsageError("-o type=tar is for one platform", hint="-o DIR makes a directory per platform")
        name = tags[0].familiar if tags else str(source) if isinstance(source, Path) else ""
        chronicles = [
            Chronicle(_record_name(name, each if number else None), lambda: engine.store, self._known)
            for number, each in enumerate(platforms)
        ]

        def body(emit: Emit) -> Image:
            title = "build " + ", ".join(tag.familiar for tag in tags) if tags else "build"
            with leash, scope(emit, BUILD, title), engine.store.shared(), self._context(source) as context:
                images = []
                for platform, chronicle in zip(platforms, chronicles, strict=True):
                    told = _told_apart(emit, platform) if len(platforms) > 1 else emit
                    workshop = replace(
                        engine.workshop(told), context=context, leash=leash, secrets=options.secrets, ssh=options.ssh
                    )
                    mine = replace(options, platform=platform)
                    image = self._made(dockerfile, parsed, mine, workshop, chronicle, epoch)
                    images.append(image)
                    for output in options.outputs:
                        outputs.write(output if len(platforms) == 1 else output.within(platform), image, workshop)
                keys = [key for chronicle in chronicles for key in chronicle.keys()]  # noqa: SIM118 - no dict
                self._cached(options, keys, images, emit)
                index = indexes.index_of(map(indexes.entry_of, images)) if len(images) > 1 else None
                self._named(images, index, tags)
                if options.id_file:
                    outputs.write_text(options.id_file, str(index.digest if index else images[0].id))
                if options.metadata_file:
                    outputs.write_metadata(options.metadata_file, images[0], tags, index)
                return next((each for each in images if each.config.platform == Platform.here()), images[0])

        task = BuildTask("build", body, chronicles[0])
        task.on_cancel(leash.let_go)
        return task

    def _made(
        self, dockerfile: str, parsed: ast.Dockerfile, options: BuildOptions, workshop: Workshop, chronicle: Chronicle,
        epoch: int | None,
    ) -> Image:  # fmt: skip
        """The image for one platform; not named yet."""
        emit, context = workshop.emit, workshop.context
        ignore = context.ignore if context else Ignore()
        graph = plan(
            parsed, options, self._resolve(options, emit),
            is_ignored=lambda path: not ignore.has_exceptions and ignore.ignoring(path) is not None,
        )  # fmt: skip
        for remark in graph.remarks:
            name = f"{remark.rule}: " if remark.rule else ""
            place = f" (line {remark.span.first})" if remark.span else ""
            emit(Notice(BUILD, name + remark.message + place, remark.hint))
        chronicle.context = context
        store = self._engine.store
        with ExitStack() as stack:
            imports = [
                CacheImport(stack.enter_context(self._cache(place, emit, options)), store, emit).begin(place.place)
                for place in options.cache_from
            ]
            solver = Solver(
                workshop, chronicle, source=dockerfile, no_cache=options.no_cache,
                no_cache_stages=frozenset(each.lower() for each in options.no_cache_stages),
                imports=imports,
            )  # fmt: skip
            image = solver.solve(graph)
        if any(place.kind == "inline" for place in options.cache_to):
            inline = inline_of(caches.results(chronicle.keys(), store), image)
            image = Image.of(replace(image.config, inline_cache=inline), image.layers)
        return finished(image, graph, store, emit, epoch=epoch, annotations=options.annotations)

    def _cache(
        self, place: CachePlace, emit: Emit, options: BuildOptions, *, writing: bool = False
    ) -> AbstractContextManager[Cache]:
        engine = self._engine
        return place.opened(engine.registry, engine.workshop(emit).stacks, emit, options.platform, writing=writing)

    def _cached(self, options: BuildOptions, keys: Sequence[Digest], images: Sequence[Image], emit: Emit) -> None:
        """Keep the results of steps wherever else they are to be kept. Raises what hinders it, unless it may fail."""
        store = self._engine.store
        known = caches.results(tuple(keys), store)
        for place in options.cache_to:
            if place.kind == "inline":
                continue
            try:
                with self._cache(place, emit, options, writing=True) as cache:
                    cache.keep(caches.kept(place, known, tuple(images)), store)
            except (RegistryError, BuildError) as error:
                if not place.may_fail:
                    raise
                emit(Notice(BUILD, f"--cache-to {place.place} was not written: {error.message}", error.why))

    def _named(self, images: Sequence[Image], index: ImageIndex | None, tags: Sequence[Reference]) -> None:
        """Into the store, under these names; an index is of use only with one."""
        store = self._engine.store
        for image in images if index is None or not tags else ():
            store.images.put(image, None)
        for tag in tags:
            if index is not None:
                store.images.put_index(index, images, tag)
            else:
                store.images.tag(images[0], tag)

    def _resolve(self, options: BuildOptions, emit: Emit) -> Resolve:
        """What FROM means. Where no other platform than this machine's is asked for, what is here under the name."""
        here = Platform.here()
        return lambda reference, platform: self._engine.base_image(
            reference, emit, options.pull, platform if options.platforms or platform != here else None
        )

    def check(self, dockerfile: str, options: BuildOptions, wrap: Callable[[CheckReport], T]) -> Task[T]:
        """Check a Dockerfile and build nothing; the task gives the report, wrapped.

        Raises DockerfileError at once for what cannot be read.
        """
        engine = self._engine
        parsed = parse(dockerfile)

        def body(emit: Emit) -> T:
            with scope(emit, BUILD, "check"), engine.store.shared(), self._context(options.context) as context:
                ignore = context.ignore if context else Ignore()
                found = check(
                    parsed, options, self._resolve(options, emit),
                    engine.environ, lambda path: not ignore.has_exceptions and ignore.ignoring(path) is not None,
                )  # fmt: skip
                return wrap(found)

        return Task("check", body)

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
            used = datetime.fromtimestamp(used_at, UTC).isoformat().replace("+00:00", "Z")
            found.append(CacheUse(digest, record.created_by, used_at, used, sum(each.size for each in new)))
        return found

    @contextmanager
    def _context(self, source: Source | None) -> Iterator[Context | None]:
        """The files that COPY takes; what had to be written for it goes with the build."""
        if source is None:
            yield None
        elif isinstance(source, Path) and is_directory(source):
            yield Context(source, self._engine.contents)
        else:
            with (
                self._engine.store.bundle_directory() as temporary,
                directory_of(source, temporary.parent) as root,
            ):
                yield Context(root, ContentCache())

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


def _record_name(name: str, platform: Platform | None) -> str:
    """What a build is remembered under: of several platforms only the first has the image's own name."""
    if platform is None or not name or name.startswith("/"):
        return name
    repository, _, tag = name.rpartition(":")
    return f"{repository}-{str(platform).replace('/', '-')}:{tag}"


def _told_apart(emit: Emit, platform: Platform) -> Emit:
    """Steps of one of several platforms, each with a name of its own."""

    def told(event: Event) -> None:
        if event.task != BUILD:
            event = replace(event, task=f"{platform} {event.task}")
        if isinstance(event, Started) and event.parent == BUILD:
            event = replace(event, name=f"[{platform}] {event.name}")
        emit(event)

    return told
