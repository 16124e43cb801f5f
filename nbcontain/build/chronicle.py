"""What happened to the steps of one build: why each had to run again, and what is kept of them for the next one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbcontain.build.context import Context, Wanted
from nbcontain.build.fingerprint import content_digest
from nbcontain.build.graph import Base, CopyFiles, Step, Vertex
from nbcontain.build.operations import Filesystem
from nbcontain.build.patterns import Ignore
from nbcontain.build.recipe import Recipe, counterparts, difference, recipe_of
from nbcontain.build.walk import Entry, Walk, opened_file
from nbcontain.errors import NbcontainError
from nbcontain.events import NEW_STEP
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import ImageConfig
from nbcontain.store import Store
from nbcontain.store.builds import BuildRecord, State
from nbcontain.values import dataclass, replace

_FILES_LIMIT = 50_000
"""Of a copy of more files it is only said that they changed."""

Signature = tuple[tuple[str, str], ...]
Select = Callable[[Context, Wanted], list[Entry]]


@dataclass(frozen=True, slots=True)
class _Passed:
    """A vertex that was looked up or made."""

    key: Digest | None
    stacks: tuple[str, ...]
    filesystem: Filesystem | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class StepReport:
    """How one step of a build went."""

    number: int
    """From 1, as it is shown."""
    name: str
    stage: str
    outcome: str
    """done, cached, failed; "" where the build did not come so far."""
    why: str = ""
    """Why it was not taken from the cache: the first input that is another one than the last time."""


class Chronicle:
    """Kept by the solver while it works. Any thread may call."""

    def __init__(self, name: str, store: Callable[[], Store], known: dict[str, Signature]) -> None:
        """`known` remembers, from build to build of one engine, what the record of each name says."""
        self._name = name
        self._store = store
        self.contexts: Mapping[str, Context] = {}
        """What COPY takes files from, once it is known."""
        self._known = known
        self._lock = threading.RLock()
        self._steps: tuple[Step, ...] = ()
        self._numbers: dict[Vertex, int] = {}
        self._passed: dict[Vertex, _Passed] = {}
        self._reasons: dict[Vertex, str] = {}
        self._said: dict[int, str] = {}
        self._record: BuildRecord | None = None
        self._before: tuple[Recipe, ...] | None = None
        self._places: dict[int, Recipe] = {}

    def begin(self, steps: Sequence[Step]) -> None:
        """These are the steps, in their order."""
        self._steps = tuple(steps)
        for number, step in enumerate(self._steps, start=1):
            if step.vertex is not None:
                self._numbers.setdefault(step.vertex, number)

    def looked_up(self, vertex: Vertex, key: Digest | None, stacks: Sequence[str]) -> None:
        """Its inputs are known."""
        self._passed[vertex] = _Passed(key, tuple(stacks))

    def finished(self, vertex: Vertex, filesystem: Filesystem | None, outcome: str) -> None:
        """It came out like this; of a failed one, the file system as it was left."""
        passed = self._passed.get(vertex, _Passed(None, ()))
        self._passed[vertex] = replace(passed, filesystem=filesystem, outcome=outcome)

    # --- why --------------------------------------------------------------------------------------

    def why(self, vertex: Vertex, *, asked: str = "") -> str:
        """Why the step has to run; "" when there was no such build before. `asked` is the flag that wants it so."""
        with self._lock:
            if not self._earlier():
                return ""
            said = asked or self._reason(vertex) or self._end_before(vertex)
            self._said[self._numbers[vertex]] = said
            return said

    def _earlier(self) -> tuple[Recipe, ...]:
        """The recipes of the last build of this name; none where it has no instruction in common with this one."""
        if self._before is None:
            self._record = self._store().builds.get(self._name)
            found = tuple(Recipe.from_json(each) for each in self._record.recipes) if self._record else ()
            names = {step.name for step in self._steps}
            self._before = found if any(each.name in names for each in found) else ()
            self._places = counterparts(self._before, self._steps)
        return self._before

    def _reason(self, vertex: Vertex) -> str:
        """The first input that differs; "" for none."""
        if vertex not in self._reasons:
            number = self._numbers[vertex]
            was = self._places.get(number)
            if was is None:
                self._reasons[vertex] = NEW_STEP
            elif isinstance(vertex.operation, Base):
                self._reasons[vertex] = self._other_base(was, vertex.operation)
            else:
                now = self._recipe(vertex, number, self._files(vertex, Context.select))
                self._reasons[vertex] = difference(was, now, lambda: self._below(vertex, was))
        return self._reasons[vertex]

    def _end_before(self, vertex: Vertex) -> str:
        """What became of the step in the last build, which was the same."""
        was = self._places.get(self._numbers[vertex])
        states = self._record.states if self._record is not None else ()
        outcome = next((state.outcome for state in states if was is not None and state.number == was.number), "")
        match outcome:
            case "done" | "cached":
                return "its result was removed"
            case "":
                return "the last build did not come so far"
            case _:
                return "it did not succeed the last time"

    def _other_base(self, was: Recipe, base: Base) -> str:
        now = base.image.digest if base.image else None
        if was.below == str(now or "scratch"):
            return ""
        old = was.below.rpartition(":")[2][:12]
        return f"the image is another: {now.short if now else 'scratch'}, was {old}"

    def _below(self, vertex: Vertex, was: Recipe) -> str:
        """Which step before it changed what it stands on, or reads."""
        stacks = self._passed[vertex].stacks
        for below, stack, old in zip(vertex.inputs, stacks, (was.below, *was.others), strict=False):
            if stack == old:
                continue
            number = self._numbers[below]
            reason = self._reason(below)
            if reason.startswith("step "):
                return reason
            if reason:
                return f"step {number} before it ({self._steps[number - 1].name[:40]}): {reason}"
            gone = [each for each in self._earlier() if each.stage == was.stage and each.number < was.number]
            kept = {each.number for each in self._places.values()}
            missing = [each for each in gone if each.number not in kept]
            if missing:
                return f"a step before it is gone: {missing[-1].name[:60]}"
            return f"step {number} before it gave something else"
        return "it reads from another stage"

    def _recipe(self, vertex: Vertex, number: int, found: Mapping[str, str]) -> Recipe:
        passed = self._passed[vertex]
        return recipe_of(number, self._steps[number - 1], vertex, passed.key, passed.stacks, found)

    def _files(self, vertex: Vertex, select: Select) -> Mapping[str, str]:
        operation = vertex.operation
        if not isinstance(operation, CopyFiles) or not operation.from_context:
            return {}
        context = self.contexts.get(operation.context)
        if context is None:
            return {}
        try:
            wanted = Wanted(operation.sources, operation.parents, operation.excludes)
            return listing(context, wanted, select(context, wanted))
        except (NbcontainError, OSError):
            # The context changes under our hands; the copy itself tells what is wrong.
            return {}

    def where_to_look(self, vertex: Vertex) -> str:
        """How to open a shell before and after a step that failed."""
        name = "" if self._name.startswith("/") else self._name.removesuffix(":latest")
        return (
            f"%container run --rm -it {name}@failed sh opens a shell in what it left behind;\n"
            f"{name}@before is what it began with (@step{self._numbers[vertex] - 1})."
        )

    # --- what is kept -----------------------------------------------------------------------------

    def keys(self) -> tuple[Digest, ...]:
        """What the results of all steps are kept under."""
        return tuple(each.key for each in self._passed.values() if each.key is not None)

    def reports(self) -> tuple[StepReport, ...]:
        """How each step went, so far."""
        found = []
        for number, step in enumerate(self._steps, start=1):
            passed = self._passed.get(step.vertex) if step.vertex is not None else None
            outcome = "done" if step.vertex is None else passed.outcome if passed else ""
            if step.vertex is not None and self._numbers[step.vertex] != number and outcome == "done":
                outcome = "cached"
            found.append(StepReport(number, step.name, step.stage, outcome, self._said.get(number, "")))
        return tuple(found)

    def close(self) -> None:
        """Keep it for the next build of this name, unless it was the same build once more."""
        signature = tuple(
            (step.name, str(self._passed[step.vertex].key or "") if step.vertex in self._passed else "")
            for step in self._steps
        )
        all_cached = all(each.outcome == "cached" for each in self._passed.values())
        if all_cached and self._known.get(self._name) == signature:
            return
        if all_cached and self._signature_of_record() == signature:
            self._store().builds.touch(self._name)
        else:
            self._store().builds.put(BuildRecord(self._name, self._recipes(), self._states(), time.time()))
        self._known[self._name] = signature

    def _signature_of_record(self) -> Signature:
        record = self._store().builds.get(self._name)
        if record is None:
            return ()
        keys = {int(each.get("number", 0)): str(each.get("key") or "") for each in record.recipes}
        names = {int(each.get("number", 0)): str(each.get("name", "")) for each in record.recipes}
        return tuple((names[number], keys[number]) for number in sorted(names))

    def _recipes(self) -> tuple[Mapping[str, Any], ...]:
        """Of all steps that the build came to. Where nothing changed, what was known is taken over."""
        self._earlier()
        found: list[Mapping[str, Any]] = []
        for number, step in enumerate(self._steps, start=1):
            vertex = step.vertex
            if vertex is None:
                found.append(Recipe(step.name, step.stage, number).to_json())
            elif vertex in self._passed:
                was, passed = self._places.get(number), self._passed[vertex]
                if was is not None and was.name == step.name and was.key and was.key == str(passed.key):
                    found.append(replace(was, number=number).to_json())
                else:
                    found.append(self._recipe(vertex, number, self._files(vertex, Context.selected)).to_json())
        return tuple(found)

    def _states(self) -> tuple[State, ...]:
        """The file system after each step, and how programs run there."""
        found: list[State] = []
        for number, step in enumerate(self._steps, start=1):
            passed = self._passed.get(step.made.vertex) if step.made is not None else None
            if step.made is None or passed is None or passed.filesystem is None:
                continue
            config = replace(step.made.image_config, history=(), created="")
            outcome = passed.outcome if step.vertex is not None else "done"
            found.append(State(number, outcome, passed.filesystem.layers, codec.config_to_json(config)))
        return tuple(found)


def config_of(state: State) -> ImageConfig:
    """How programs run at a state."""
    return replace(codec.parse_config(codec.dump_document(state.config)), diff_ids=(), history=())


def listing(context: Context, wanted: Wanted, entries: Sequence[Entry]) -> dict[str, str]:
    """Mode and content of everything in a context that a COPY takes, by its path; directories end in a slash."""
    if len(entries) > _FILES_LIMIT:
        return {f"{len(entries)} files": context.digest(wanted).hex}
    found: dict[str, str] = {}
    root_fd = context.open_fd()
    try:
        # What a source that is a symlink leads to is listed by its own name.
        for source in wanted.sources:
            link = Walk(root_fd, Ignore()).entry(source, "")
            if link is not None and link.kind == "symlink":
                found[link.path] = f"{link.mode:o} → {link.link}"
        for entry in entries:
            mode = f"{entry.mode:o}"
            if entry.kind == "file":
                found[entry.path] = f"{mode} {_content(context, root_fd, entry)}"
            elif entry.kind == "symlink":
                found[entry.path] = f"{mode} → {entry.link}"
            else:
                found[f"{entry.path}/"] = mode
    finally:
        os.close(root_fd)
    return found


def _content(context: Context, root_fd: int, entry: Entry) -> str:
    known = context.cache.get(os.path.join(context.root, entry.path), entry.stat)
    if known is None:
        with opened_file(root_fd, entry.path) as fd:
            known = content_digest(fd, entry.size)
    return known[:16]
