"""Building through an engine: what the user asked for, planned, solved, named and handed out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nbcontain.build import several
from nbcontain.build.chronicle import Chronicle, Signature, StepReport, config_of
from nbcontain.build.context import ContentCache
from nbcontain.build.epoch import CONTEXT, with_epoch
from nbcontain.build.graph import RemoteFile, Repository
from nbcontain.build.inputs import DockerfileSource, Inputs, opened
from nbcontain.build.operations import Workshop
from nbcontain.build.plan import BuildOptions, Resolve, plan
from nbcontain.build.solver import Solver
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import BuildError, ImageNotFound, RegistryError
from nbcontain.events import BUILD, Emit, Notice, scope
from nbcontain.oci import indexes
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Image, Layer, Platform, timestamp
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.proxies import with_proxies
from nbcontain.runtime.leash import Leash
from nbcontain.task import Task
from nbcontain.truth import truth
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.build.accounts import Delivery
    from nbcontain.build.annotations import Annotations
    from nbcontain.build.caches import Cache, CacheImport, CachePlace
    from nbcontain.build.graph import BuildGraph
    from nbcontain.build.lint import CheckReport
    from nbcontain.engine import Engine

T = TypeVar("T")
R = TypeVar("R")

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


@dataclass(slots=True)
class _Made:
    """The image for one platform, and what is known of how it came about."""

    image: Image
    graph: BuildGraph
    solver: Solver
    workshop: Workshop


def _notice(remark: ast.Remark) -> Notice:
    name = f"{remark.rule}: " if remark.rule else ""
    place = f" (line {remark.span.first})" if remark.span else ""
    return Notice(BUILD, name + remark.message + place, remark.hint, "warning" if remark.rule else "")


def _checked_annotations(
    options: BuildOptions, tags: Sequence[Reference], platforms: Sequence[Platform]
) -> Sequence[Annotations]:
    """What --annotation says of each platform, once all that is to be handed out can be. Raises UsageError."""
    from nbcontain.build.accounts import checked
    from nbcontain.build.annotations import annotations_of

    annotations = [annotations_of(options.annotations, each) for each in platforms]
    checked(options, tags, annotations[0])
    return annotations


def _index_of(images: Sequence[Image], annotations: Sequence[Annotations]) -> ImageIndex:
    """The index of images for several platforms, with what --annotation says of it and of its entries."""
    if not annotations:
        return indexes.index_of(map(indexes.entry_of, images))
    entries = [
        indexes.entry_of(image, annotations=said.manifest_descriptor)
        for image, said in zip(images, annotations, strict=True)
    ]
    return indexes.index_of(entries, annotations[0].index)


class Builder:
    """The builds of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Signature] = {}
        self._contents = ContentCache(engine.layout.contexts)

    def build(self, dockerfile: DockerfileSource, options: BuildOptions) -> BuildTask:
        """Make an image from the text of a Dockerfile, or from one that is in the context.

        Raises DockerfileError at once for a text that cannot be read.
        """
        engine = self._engine
        given = with_proxies(options.build_args, engine.environ, options.network)
        options = replace(options, build_args=with_epoch(given, engine.environ))
        tags = [Reference.new(tag) for tag in options.tags]
        platforms = options.platforms or (options.platform,)
        annotations: Sequence[Annotations] = ()
        if options.outputs or options.annotations or options.id_file or options.metadata_file:
            annotations = _checked_annotations(options, tags, platforms)
        parsed = parse(dockerfile) if isinstance(dockerfile, str) else None
        source = options.context
        leash = Leash()
        name = tags[0].familiar if tags else str(source.absolute()) if isinstance(source, Path) else ""
        chronicles = [
            Chronicle(several.record_name(name, each if number else None), lambda: engine.store, self._known)
            for number, each in enumerate(platforms)
        ]

        def body(emit: Emit) -> Image:
            started = timestamp()
            title = "build " + ", ".join(tag.familiar for tag in tags) if tags else "build"
            with (
                leash, scope(emit, BUILD, title), engine.store.shared(), self._contents.keeping(),
                self._opened(dockerfile, options, emit) as given,
            ):  # fmt: skip
                text = parsed or parse(given.dockerfile)
                if options.hints:
                    from nbcontain.build.advice import hints_of

                    for remark in hints_of(text, options, engine.environ):
                        emit(replace(_notice(remark), kind="hint"))
                made = []
                for number, (platform, chronicle) in enumerate(zip(platforms, chronicles, strict=True)):
                    told = several.told_apart(emit, platform) if len(platforms) > 1 else emit
                    mine = replace(options, platform=platform)
                    workshop = replace(self._workshop(options, told), contexts=given.directories, leash=leash)
                    said = annotations[number].manifest if annotations else {}
                    made.append(self._made(text, given, mine, workshop, chronicle))
                    if made[-1].graph.epoch is not None or said or options.outputs:
                        from nbcontain.build.finish import finished

                        made[-1].image = finished(made[-1].image, made[-1].graph, engine.store, told,
                                                  annotations=said, outputs=options.outputs)  # fmt: skip
                images = [each.image for each in made]
                index = _index_of(images, annotations) if len(images) > 1 else None
                self._named(images, index, (*tags, *(name for each in options.outputs for name in each.names_here)))
                if options.cache_to:
                    keys = [key for each in chronicles for key in each.keys()]  # noqa: SIM118 - no dict
                    self._keep(options, keys, images, emit)
                if options.outputs or options.id_file or options.metadata_file:
                    from nbcontain.build.accounts import Built, account_of, delivery_of

                    built = []
                    for each, said_of in zip(made, annotations, strict=True):
                        layers = each.solver.layers()
                        account = account_of(
                            each.graph, options, given, each.workshop, started, layers, engine.environ
                        )
                        built.append(Built(each.image, said_of, account))
                    self._hand_out(delivery_of(built, index, tags, options), options, workshop)
                return next((each for each in images if each.config.platform == Platform.here()), images[0])

        task = BuildTask("build", body, chronicles[0])
        task.on_cancel(leash.let_go)
        return task

    def _last_change(self, options: BuildOptions, emit: Emit, what: str | RemoteFile | Repository) -> int | None:
        """When what SOURCE_DATE_EPOCH names was changed."""
        from nbcontain.build.operations.dating import last_change

        found = what if not isinstance(what, str) else (
            options.context if what == CONTEXT else options.contexts.get(what)
        )  # fmt: skip
        return last_change(found, self._workshop(options, emit))

    def _made(
        self, parsed: ast.Dockerfile, given: Inputs, options: BuildOptions, workshop: Workshop, chronicle: Chronicle
    ) -> _Made:
        """The image for one platform; not named yet."""
        emit, store = workshop.emit, self._engine.store
        graph = plan(
            parsed, options, self._resolve(options, emit), is_ignored=given.is_ignored,
            contexts=given.names(options.platform),
            dated=partial(self._last_change, options, emit),
        )  # fmt: skip
        for remark in (*options.remarks, *graph.remarks):
            emit(_notice(remark))
        chronicle.contexts = given.directories
        with ExitStack() as stack:
            imports: list[CacheImport] = []
            for place in options.cache_from:
                from nbcontain.build.caches import CacheImport

                cache = stack.enter_context(self._cache(place, emit, options))
                imports.append(CacheImport(cache, store, emit).begin(place.place))
            solver = Solver(
                workshop, chronicle, source=given.dockerfile, no_cache=options.no_cache,
                no_cache_stages=frozenset(each.lower() for each in options.no_cache_stages),
                imports=imports,
            )  # fmt: skip
            image = solver.solve(graph)
        if any(place.kind == "inline" for place in options.cache_to):
            from nbcontain.build import cache_document, caches

            inline = cache_document.inline_of(caches.results(chronicle.keys(), store), image)
            image = Image.of(replace(image.config, inline_cache=inline), image.layers)
        return _Made(image, graph, solver, workshop)

    def _resolve(self, options: BuildOptions, emit: Emit) -> Resolve:
        """What FROM means. Where no other platform than this machine's is asked for, what is here under the name."""
        here = Platform.here()
        return lambda reference, platform: self._engine.bases.image(
            reference, emit, options.pull, platform if options.platforms or platform != here else None
        )

    def _named(self, images: Sequence[Image], index: ImageIndex | None, names: Sequence[Reference]) -> None:
        """Into the store, under these names; an index is of use only with one."""
        store = self._engine.store
        for image in images if index is None or not names else ():
            store.images.put(image, None)
        for image in images if index is not None else ():
            store.images.keep(image)
        for name in names:
            if index is not None:
                store.images.put_index(index, name)
            else:
                store.images.tag(images[0], name)

    def _cache(
        self, place: CachePlace, emit: Emit, options: BuildOptions, *, writing: bool = False
    ) -> AbstractContextManager[Cache]:
        engine = self._engine
        return place.opened(engine.registry, engine.workshop(emit).stacks, emit, options.platform, writing=writing)

    def _keep(self, options: BuildOptions, keys: Sequence[Digest], images: Sequence[Image], emit: Emit) -> None:
        """Keep the results of steps wherever else they are to be kept. Raises what hinders it, unless it may fail."""
        from nbcontain.build import caches

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

    def _hand_out(self, delivery: Delivery, options: BuildOptions, workshop: Workshop) -> None:
        """Everything that was asked for besides the image in the store."""
        from nbcontain.build import exports

        product, pushed = delivery.product, False
        for output in options.outputs:
            exports.write(output, product, workshop)
            for name in output.targets(product.names) if output.push else ():
                what = product.outermost or product.variants[0].image
                self._engine.registry.send(name, what, workshop.emit, BUILD, product.attested)
                pushed = True
        carried = pushed or any(each.carries_attestations for each in options.outputs)
        shown = product if carried else replace(product, attested=None)
        if options.id_file:
            one = len(product.variants) == 1
            exports.write_text(options.id_file, str(product.variants[0].image.id if one else shown.descriptor.digest))
        if options.metadata_file:
            exports.write_metadata(options.metadata_file, exports.metadata_of(shown, delivery.provenances))

    def check(self, dockerfile: DockerfileSource, options: BuildOptions, wrap: Callable[[CheckReport], T]) -> Task[T]:
        """Check a Dockerfile and build nothing; the task gives the report, wrapped.

        Raises DockerfileError at once where the first of its lines cannot be read.
        """
        from nbcontain.build.lint import check
        from nbcontain.build.readable import Readable

        engine = self._engine

        def look(read: Readable, given: Inputs, emit: Emit) -> T:
            return wrap(read.told(check(
                read.dockerfile, options, self._resolve(options, emit),
                engine.environ, given.is_ignored, given.names(options.platform),
            )))  # fmt: skip

        return self._examined("check", dockerfile, options, Readable.of, look)

    def examine(
        self, name: str, dockerfile: DockerfileSource, options: BuildOptions,
        look: Callable[[ast.Dockerfile, Inputs], T],
    ) -> Task[T]:  # fmt: skip
        """Look at a Dockerfile and build nothing; the task gives what `look` sees. Raises as `check` does."""
        return self._examined(name, dockerfile, options, parse, lambda parsed, given, emit: look(parsed, given))

    def _examined(
        self, name: str, dockerfile: DockerfileSource, options: BuildOptions,
        read: Callable[[str], R], look: Callable[[R, Inputs, Emit], T],
    ) -> Task[T]:  # fmt: skip
        parsed = read(dockerfile) if isinstance(dockerfile, str) else None

        def body(emit: Emit) -> T:
            store = self._engine.store
            with scope(emit, BUILD, name), store.shared(), self._opened(dockerfile, options, emit) as given:
                return look(parsed or read(given.dockerfile), given, emit)

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
        """The results that the build cache knows, youngest first; each layer counts for the step that made it."""
        from datetime import UTC, datetime

        store = self._engine.store
        known = [
            (digest, used_at, record)
            for digest, used_at in store.cache.walk() if (record := store.cache.peek(digest)) is not None
        ]  # fmt: skip
        # What a step changed nothing of was there before it, as an image or another step's.
        first: dict[tuple[Layer, ...], str] = {}
        for layers, created in [
            *((image.layers, image.config.created) for _, image in self._engine.images()),
            *((record.layers, record.created) for _, _, record in known),
        ]:
            first[layers] = min(created, first.get(layers, created))
        counted: set[Digest] = set()
        found = []
        for digest, used_at, record in sorted(known, key=lambda each: each[2].created):
            is_new = first[record.layers] >= record.created
            new = [each.descriptor for each in record.layers[-1:] if is_new and each.descriptor.digest not in counted]
            counted.update(each.digest for each in new)
            used = datetime.fromtimestamp(used_at, UTC).isoformat().replace("+00:00", "Z")
            found.append(CacheUse(digest, record.created_by, used_at, used, sum(each.size for each in new)))
        return sorted(found, key=lambda each: -each.used_at)

    def _workshop(self, options: BuildOptions, emit: Emit) -> Workshop:
        return replace(self._engine.workshop(emit), secrets=options.secrets, ssh=options.ssh)

    def _opened(
        self, dockerfile: DockerfileSource, options: BuildOptions, emit: Emit
    ) -> AbstractContextManager[Inputs]:
        """The Dockerfile and the files that COPY takes; what had to be written for them goes with the build."""
        keeps = dict(each.partition("=")[::2] for each in options.build_args).get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")
        return opened(
            dockerfile, options.context, options.contexts, self._workshop(options, emit), self._contents,
            ignore=options.ignore, dockerfile_name=options.dockerfile_name,
            keeps_git_dir=truth(keeps) is True, parent=BUILD,
            platforms=options.platforms or (options.platform,),
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
