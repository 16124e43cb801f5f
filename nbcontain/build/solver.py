"""Walks a build graph: looks each vertex up in the cache, executes the misses, some at a time.

It knows no operation; what they do is in `operations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from nbcontain.build.chronicle import Chronicle
from nbcontain.build.graph import BuildGraph, Step, Vertex
from nbcontain.build.operations import Filesystem, Workshop, cache_key, execute
from nbcontain.dockerfile.json_form import NotStrings, json_strings
from nbcontain.errors import BuildError, Cancelled, DockerfileError, NbcontainError, StepFailed
from nbcontain.events import BUILD, Emit, Event, Finished, Notice, Outcome, Progress, Started
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, History, Image, timestamp
from nbcontain.store import Store
from nbcontain.store.cache import CacheRecord
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


class Import(Protocol):
    """Where results come from besides the store: a `caches.CacheImport`."""

    def fetch(self, key: Digest, store: Store) -> CacheRecord | None: ...


@dataclass(frozen=True, slots=True)
class _Solved:
    filesystem: Filesystem
    created: str = ""
    """When its layer was made, RFC 3339; "" for a base."""


class Solver:
    """Solves one graph in one workshop."""

    def __init__(
        self, workshop: Workshop, chronicle: Chronicle, *, source: str = "", no_cache: bool = False,
        no_cache_stages: frozenset[str] = frozenset(),
        imports: Sequence[Import] = (), workers: int = 2,
    ) -> None:  # fmt: skip
        self._workshop = workshop
        self._chronicle = chronicle
        self._no_cache_stages = no_cache_stages
        self._imports = imports
        self._emit = workshop.emit
        self._source = source
        self._no_cache = no_cache
        self._workers = workers
        self._solved: dict[Vertex, _Solved] = {}
        self._steps: tuple[Step, ...] = ()
        self._owners: dict[Vertex, tuple[str, Step]] = {}
        self._followers: dict[Vertex, list[tuple[str, Step]]] = {}
        """Steps that make nothing of their own, by what is there when they are reached."""
        self._done_steps = 0

    def solve(self, graph: BuildGraph) -> Image:
        """The image of this graph, not stored yet. Raises what a step raised, placed in the Dockerfile."""
        vertices = graph.vertices()
        needed = set(vertices)
        self._steps = tuple(step for step in graph.steps if step.vertex is None or step.vertex in needed)
        for number, step in enumerate(self._steps, start=1):
            self._emit(Started(f"step-{number}", step.name, BUILD, step.span, waiting=True))
            owned = self._owners.setdefault(step.vertex, (f"step-{number}", step)) if step.vertex is not None else None
            reached = step.vertex or (step.made.vertex if step.made is not None else None)
            if reached is not None and (owned is None or owned[1] is not step):
                self._followers.setdefault(reached, []).append((f"step-{number}", step))
        self._chronicle.begin(self._steps)
        try:
            self._walk(vertices)
        finally:
            self._chronicle.close()
        for vertex in self._followers:
            if vertex not in self._solved:
                # Of a stage that is named, and of which nothing is taken.
                self._reached(vertex)
        return self._image(graph)

    def _reached(self, vertex: Vertex) -> None:
        """Tell of the steps that only say something about what is there now."""
        for task, step in self._followers.get(vertex, ()):
            self._emit(Started(task, step.name, BUILD, step.span))
            self._finished(task, "done" if step.vertex is None else "cached")

    def layers(self) -> dict[Vertex, tuple[Descriptor, ...]]:
        """Of every file system that was solved."""
        return {
            vertex: tuple(layer.descriptor for layer in solved.filesystem.layers)
            for vertex, solved in self._solved.items()
        }

    def _walk(self, vertices: tuple[Vertex, ...]) -> None:
        """Every vertex, inputs before users. After an error nothing new begins, and what runs is ended."""
        waiting = list(vertices)
        running: dict[Future[_Solved], Vertex] = {}
        with ExitStack() as stack:
            pool: ThreadPoolExecutor | None = None
            try:
                while waiting or running:
                    for vertex in [each for each in waiting if all(below in self._solved for below in each.inputs)]:
                        if len(running) == self._workers:
                            break
                        waiting.remove(vertex)
                        work = self._begin(vertex)
                        if work is not None:
                            pool = pool or stack.enter_context(self._pool())
                            running[pool.submit(work)] = vertex
                    if len(running) == self._workers or (running and not self._has_ready(waiting)):
                        from concurrent.futures import FIRST_COMPLETED, wait

                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            vertex = running.pop(future)
                            self._solved[vertex] = future.result()
                            self._reached(vertex)
            except BaseException:
                if self._workshop.leash is not None:
                    self._workshop.leash.let_go()
                raise

    def _pool(self) -> ThreadPoolExecutor:
        """Only where something has to be done: its import takes longer than a build that is all cached."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self._workers, thread_name_prefix="nbcontain build")

    def _has_ready(self, waiting: list[Vertex]) -> bool:
        return any(all(below in self._solved for below in each.inputs) for each in waiting)

    def _begin(self, vertex: Vertex) -> Callable[[], _Solved] | None:
        """Take a base or a cached result at once; of a miss, give what is to be done on a thread."""
        task, step = self._owners[vertex]
        inputs = [self._solved[below].filesystem for below in vertex.inputs]
        workshop = self._workshop.for_step(partial(_as_task, task, self._emit))
        self._emit(Started(task, step.name, BUILD, step.span))
        asked = self._asked(step)
        if inputs and asked:
            # It is going to be done: what does it gets ready while the files of the context are looked at.
            workshop.expect()
        try:
            key = cache_key(vertex.operation, inputs, workshop)
            self._chronicle.looked_up(vertex, key, [str(each.chain_id or "scratch") for each in inputs])
            if key is None:
                self._hit(vertex, _Solved(execute(vertex.operation, inputs, workshop)), inputs)
                return None
            if not asked and (solved := self._known(key)) is not None:
                self._hit(vertex, solved, inputs)
                return None
            if why := self._chronicle.why(vertex, asked=asked):
                # Only a word more about what has begun already.
                self._emit(Started(task, step.name, BUILD, step.span, waiting=True, why=why))
        except BaseException as error:
            raise self._failed(vertex, error) from error
        return partial(self._execute, vertex, inputs, workshop, key, use_cache=not asked)

    def _asked(self, step: Step) -> str:
        """The flag that has this step run in any case."""
        if self._no_cache:
            return "--no-cache"
        return f"--no-cache-filter {step.stage}" if step.stage.lower() in self._no_cache_stages else ""

    def _known(self, key: Digest) -> _Solved | None:
        store = self._workshop.store
        record = store.cache.get(key)
        if record is None:
            record = next((found for each in self._imports if (found := each.fetch(key, store)) is not None), None)
        return _Solved(Filesystem(record.layers), record.created) if record is not None else None

    def _hit(self, vertex: Vertex, solved: _Solved, inputs: list[Filesystem]) -> None:
        self._solved[vertex] = solved
        self._chronicle.finished(vertex, solved.filesystem, "cached")
        self._finished(self._owners[vertex][0], "cached", _added(solved.filesystem, inputs) if inputs else None)
        self._reached(vertex)

    def _execute(
        self, vertex: Vertex, inputs: list[Filesystem], workshop: Workshop, key: Digest, *, use_cache: bool
    ) -> _Solved:
        task, step = self._owners[vertex]
        cache = workshop.store.cache
        try:
            with cache.making(key, _Waiting(workshop.emit)):
                # Somebody else may have made it while we waited, or just before.
                solved = self._known(key) if use_cache else None
                outcome: Outcome = "cached" if solved is not None else "done"
                if solved is None:
                    filesystem = execute(vertex.operation, inputs, workshop)
                    solved = _Solved(filesystem, timestamp())
                    cache.put(key, CacheRecord(filesystem.layers, created=solved.created, created_by=step.name))
        except BaseException as error:
            raise self._failed(vertex, error) from error
        self._chronicle.finished(vertex, solved.filesystem, outcome)
        self._finished(task, outcome, _added(solved.filesystem, inputs))
        return solved

    def _finished(self, task: str, outcome: Outcome, size_bytes: int | None = None) -> None:
        self._emit(Finished(task, outcome, size_bytes=size_bytes))
        self._done_steps += 1
        self._emit(Progress(BUILD, self._done_steps, len(self._steps), "steps"))

    def _failed(self, vertex: Vertex, error: BaseException) -> BaseException:
        """Tell how the step ended, and give the error with its place in the Dockerfile."""
        task, step = self._owners[vertex]
        outcome: Outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
        detail = error.message if isinstance(error, NbcontainError) else str(error)
        with suppress(Cancelled):
            self._emit(Finished(task, outcome, detail, getattr(error, "exit_code", None)))
        if isinstance(error, Cancelled) or not isinstance(error, NbcontainError):
            return error
        if not isinstance(error, BuildError | DockerfileError):
            return BuildError(
                f"{step.name}: {error.message}", span=step.span, source=self._source, why=error.why, hint=error.hint
            )
        if isinstance(error, StepFailed) and _is_like_json(step.name):
            error.why = "what is in [ ] is no JSON (words need double quotes), so a shell got it"
        if isinstance(error, BuildError) and error.left is not None:
            self._chronicle.finished(vertex, error.left, "failed")
            error.hint = error.hint or self._chronicle.where_to_look(vertex)
        error.span = error.span or step.span
        error.source = error.source or self._source
        error.message = f"{step.name}: {error.message}"
        return error

    def _image(self, graph: BuildGraph) -> Image:
        """The config with times and layers filled in. A build that was all cached gives the same image again."""
        below = len(graph.config.history) - len(graph.history_steps)
        base, new = graph.config.history[:below], graph.config.history[below:]
        last = max((entry.created for entry in base), default="")
        made = (self._solved[step.vertex].created for step in graph.history_steps if step.vertex is not None)
        # What stands before the first new layer has that one's time, as in BuildKit.
        last = max(last, next(made, ""))
        entries: list[History] = []
        for entry, step in zip(new, graph.history_steps, strict=True):
            is_empty = True
            if step.vertex is not None:
                solved = self._solved[step.vertex]
                is_empty = not _new_layers(solved.filesystem, [self._solved[v].filesystem for v in step.vertex.inputs])
                last = max(last, solved.created)
            # An entry without a layer has no time of its own: that of the one before stands for it.
            entries.append(replace(entry, created=last, empty_layer=is_empty))
        layers = self._solved[graph.target].filesystem.layers
        return Image.of(replace(graph.config, created=last, history=(*base, *entries)), layers)


def _is_like_json(name: str) -> bool:
    """Whether a RUN looks like the JSON form and is none, so that a shell got the brackets too."""
    text = name.removeprefix("RUN ").strip()
    if re.fullmatch(r"""\[\s*["'].*\]""", text) is None:
        return False
    try:
        return json_strings(text) is None
    except NotStrings:
        return False


class _Waiting:
    """Says once that another build is at the same step; each call is where a cancellation strikes."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._has_said = False

    def __call__(self, seconds: float) -> None:
        if self._has_said:
            self._emit(Progress("", 0))
            return
        self._has_said = True
        self._emit(Notice("", "another build is at this very step", "Its result is taken when it is there."))


def _new_layers(filesystem: Filesystem, inputs: list[Filesystem]) -> int:
    return len(filesystem.layers) - (len(inputs[0].layers) if inputs else 0)


def _added(filesystem: Filesystem, inputs: list[Filesystem]) -> int:
    """How many bytes of layers a step put on what it changed."""
    new = _new_layers(filesystem, inputs)
    return sum(layer.descriptor.size for layer in filesystem.layers[len(filesystem.layers) - new :]) if new else 0


def _as_task(task: str, emit: Emit, event: Event) -> None:
    emit(replace(event, task=task))
