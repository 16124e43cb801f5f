"""From a Dockerfile to a build graph: a fold of `apply` over the instructions of each stage that is needed.

Pure but for `resolve`, which gives base images: their configs decide what the instructions after FROM mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from nbcontain.build.arguments import (
    DEFAULT_PATH,
    PROXIES,
    build_arguments,
    explain_empty,
    parse_platform,
    platform_arguments,
    sandbox_of,
)
from nbcontain.build.epoch import EPOCH, Dated, settled, undated
from nbcontain.build.graph import Base, BaseImage, BuildGraph, CopyFiles, Step, Vertex
from nbcontain.build.instructions import Scene, StageState, apply
from nbcontain.build.named import NO_CONTEXTS, Contexts, NamedContexts
from nbcontain.build.request import BuildOptions as BuildOptions
from nbcontain.build.stage import one_line, shown
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.checks import checks
from nbcontain.dockerfile.mounts import automount
from nbcontain.dockerfile.nearest import nearest
from nbcontain.dockerfile.parser import parse_trigger
from nbcontain.dockerfile.rules import CheckOptions
from nbcontain.dockerfile.words import expand
from nbcontain.errors import BadReference, DockerfileError, RegistryError, Span, StoreError, UsageError
from nbcontain.oci.image import Image, ImageConfig, Platform
from nbcontain.oci.reference import Reference
from nbcontain.options import labels_of
from nbcontain.values import replace

Resolve = Callable[[Reference, Platform], Image]
"""Gives the image of a name: a store, a registry, or a dict in a test."""


def plan(
    dockerfile: ast.Dockerfile,
    options: BuildOptions,
    resolve: Resolve,
    environ: Mapping[str, str] = os.environ,
    is_ignored: Callable[[str], bool] = lambda path: False,
    contexts: Contexts = NO_CONTEXTS,
    dated: Dated = undated,
) -> BuildGraph:
    """What there is to do for the target stage. Raises DockerfileError, placed in the source, and UsageError.

    Where `resolve` has no image, its StoreError is drawn under the FROM that asked. `is_ignored` is .dockerignore's
    word on a path, for the check CopyIgnoredFile; `dated` looks up what SOURCE_DATE_EPOCH names.
    """
    if options.network not in ("host", "none"):
        raise UsageError(f"--network {options.network} is not here yet", hint="--network host, or --network none")
    try:
        planning = Planning(dockerfile, options, resolve, environ, is_ignored, contexts)
        epoch = planning.date(dockerfile.arguments, dated)
        state = planning.run()
        wanted = CheckOptions.parse(planning.scene.build_args.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.check))
        remarks = wanted.kept((*checks(dockerfile, planning.platforms), *planning.scene.remarks), dockerfile.skipped)
        wanted.refuse(remarks)
    except DockerfileError as error:
        error.source = dockerfile.source
        raise
    config = state.image_config
    labels = {**config.labels, **labels_of(options.labels)}
    return BuildGraph(
        target=state.vertex,
        config=replace(config, labels=labels, created="", diff_ids=()),
        steps=tuple(planning.steps),
        history_steps=state.history_steps,
        remarks=remarks,
        bases=tuple(dict.fromkeys(planning.bases)),
        epoch=epoch,
    )


class Planning:
    """One plan being made: the stages that are folded already, and how one finds another."""

    def __init__(
        self,
        dockerfile: ast.Dockerfile,
        options: BuildOptions,
        resolve: Resolve,
        environ: Mapping[str, str],
        is_ignored: Callable[[str], bool],
        contexts: Contexts,
    ) -> None:
        self.contexts = NamedContexts(contexts, options.platform)
        self.stages = dockerfile.stages
        self.options = options
        self.resolve = resolve
        self.steps: list[Step] = []
        self.bases: list[BaseImage] = []
        self.states: dict[int, StageState] = {}
        self.names: dict[str, list[int]] = {}
        for index, stage in enumerate(self.stages):
            self.names.setdefault(stage.base.name, []).append(index)
        self.platforms = platform_arguments(Platform.here(), options.platform)
        self.scene = Scene(
            escape=dockerfile.escape,
            build_args=build_arguments(options.build_args, environ),
            global_args=self.platforms,
            is_ignored=is_ignored,
            network=options.network,
            sandbox=sandbox_of(options.add_hosts, options.shm_size, options.ulimits),
            added_hosts=options.add_hosts,
            source=_no_stage,
            directory=self.contexts.directory,
            aside=lambda vertex: None,
            allowed=options.allow,
            automounts=tuple(map(automount, options.automounts)),
        )
        for arg in dockerfile.arguments:
            self._declare(arg)

    def _declare(self, arg: ast.Arg) -> None:
        """An ARG before the first FROM."""
        values = dict(self.scene.global_args)
        for name, default in arg.arguments:
            self.scene.declared.add(name)
            if name in self.scene.build_args:
                values[name] = self.scene.build_args[name]
            elif default is not None:
                values[name] = self._filled(default, values, arg.span)
        self.scene = replace(self.scene, global_args=values)

    def date(self, arguments: Sequence[ast.Arg], dated: Dated) -> int | None:
        """What SOURCE_DATE_EPOCH says, which is a number for every ARG from then on."""
        self.scene, epoch = settled(self.scene, self.stages, arguments, self.contexts, dated, self._folded_aside)
        return epoch

    def _folded_aside(self, index: int) -> Vertex:
        """What a stage makes; it is folded again when the time is known."""
        before = len(self.steps)
        state = self._state_of(index)
        del self.steps[before:], self.states[index]
        return state.vertex

    def _filled(self, word: str, variables: Mapping[str, str], span: Span) -> str:
        try:
            # What has no value in here, the check UndefinedArgInFrom finds.
            return expand(word, variables, self.scene.escape, room=self.scene.room)
        except DockerfileError as error:
            error.span = span
            raise

    def run(self) -> StageState:
        target = self.target()
        # In the order of the file, so that a stage's inputs are there when it is folded.
        for index in sorted(self.needed(target)):
            self._state_of(index)
        self._check_build_args()
        return self.states[target]

    def target(self) -> int:
        """The number of the stage that is wanted. Raises UsageError."""
        wanted = self.options.target
        if not wanted:
            return len(self.stages) - 1
        index = self._stage_named(wanted, len(self.stages))
        if index is None and wanted.isdecimal() and len(wanted) < 6:
            index = int(wanted)
        if index is None or index >= len(self.stages):
            names = [name for name in self.names if name]
            near = nearest(wanted.lower(), names)
            hint = f"did you mean {near}?" if near else f"Its stages are {', '.join(names) or 'without names'}."
            raise UsageError(f"no stage {wanted!r} in this Dockerfile", hint=hint)
        return index

    def _stage_named(self, name: str, before: int) -> int | None:
        """The last stage of that name before stage number `before`."""
        found = self.names.get(name.lower(), []) if name else []
        return max((index for index in found if index < before), default=None)

    def needed(self, target: int) -> set[int]:
        """The numbers of all stages that `target` is made of; the others are never looked at."""
        needed: set[int] = set()
        pending = [target]
        while pending:
            index = pending.pop()
            if index in needed:
                continue
            needed.add(index)
            stage = self.stages[index]
            if self.contexts.key(stage.base.name) is not None:
                continue
            names = [
                (name, each.span) for each in stage.instructions for name in _sources(each)
                if self.contexts.directory(name) is None
            ]  # fmt: skip
            inputs = [self._stage_copied(name, span, index) for name, span in names]
            inputs.append(self._stage_named(self._image_name(stage.base), index))
            pending += [each for each in inputs if each is not None]
        return needed

    def _stage_copied(self, name: str, span: Span, index: int) -> int | None:
        """The stage that --from in stage number `index` names; None for the context or an image."""
        if "$" in name:
            hint = f"Give it a name of its own: FROM {name} AS source"
            raise DockerfileError(f"variables are not expanded in --from={name}", span, hint=hint)
        found = int(name) if name.isascii() and name.isdecimal() else self._stage_named(name, index)
        if found is None:
            found = self._stage_named(name, len(self.stages))
        if found is not None and found >= index:
            exists = found < len(self.stages)
            why = "a stage can copy from earlier ones only" if exists else "there is no such stage"
            raise DockerfileError(f"--from={name} is no earlier stage", span, why=why)
        return found

    def _image_name(self, base: ast.From) -> str:
        # Not `_filled`: this is asked twice, and an empty name is an error and no remark.
        try:
            name = expand(base.image, self.scene.global_args, self.scene.escape, room=self.scene.room)
        except DockerfileError as error:
            error.span = base.span
            raise
        if not name:
            raise DockerfileError(
                f"FROM {base.image} names no image",
                base.span,
                why="the variables in it have no value",
                hint="Only an ARG before the first FROM gives FROM a value: ARG NAME=default, or --build-arg too.",
            )
        return name

    def _state_of(self, index: int) -> StageState:
        """Stage number `index`, folded; once."""
        if index not in self.states:
            scene = replace(self.scene, source=partial(self._source, index), aside=partial(self._aside, index))
            stage = self.stages[index]
            state = self._begin(index, scene)
            is_given = self.contexts.key(stage.base.name) is not None
            for instruction in () if is_given else stage.instructions:
                state = self._step(instruction, state, index, scene)
            self.states[index] = state
        return self.states[index]

    def _begin(self, index: int, scene: Scene) -> StageState:
        """The state after FROM, triggers of the base image included."""
        base = self.stages[index].base
        name = base.name if self.contexts.key(base.name) is not None else self._image_name(base)
        below = self._stage_named(name, index)
        if below is not None and self.contexts.key(name) is None:
            # As in BuildKit, a stage on top of another sees its ARGs too, and fires its triggers.
            state = self._state_of(below)
            self.steps.append(Step(one_line(base.text), base.span, state.vertex, stage=self._shown(index), made=state))
            return self._triggered(replace(state, has_cmd=False), index, scene, name)
        try:
            vertex, config = self._base(name, self._platform(base), base.span, index, one_line(base.text))
        except DockerfileError as error:
            if isinstance(error.__cause__, BadReference):
                explain_empty(error, base.image, self.scene.global_args)
            raise
        env = dict(word.partition("=")[::2] for word in config.env)
        if "PATH" not in env:
            env = {"PATH": DEFAULT_PATH, **env}
        state = StageState(vertex, config, env, env)
        self.steps[-1] = replace(self.steps[-1], made=state)
        return self._triggered(state, index, scene, name)

    def _triggered(self, state: StageState, index: int, scene: Scene, name: str) -> StageState:
        """The state after the triggers that it brings along, and without them."""
        span = self.stages[index].base.span
        triggers = state.config.on_build
        state = replace(state, config=replace(state.config, on_build=()))
        for trigger in triggers:
            try:
                mine = replace(scene, is_trigger=True)
                state = self._step(parse_trigger(trigger, span), state, index, mine, prefix="ONBUILD ")
            except DockerfileError as error:
                error.why = error.why or f"the image {name} brings it along: ONBUILD {trigger}"
                raise
        return state

    def _platform(self, base: ast.From) -> Platform:
        if not base.platform:
            return self.options.platform
        text = self._filled(base.platform, self.scene.global_args, base.span)
        try:
            return parse_platform(text)
        except UsageError as error:
            raise DockerfileError(error.message, base.span, why=error.why, hint=error.hint) from error

    def _base(self, name: str, platform: Platform, span: Span, index: int, step: str) -> tuple[Vertex, ImageConfig]:
        """The vertex and config of an image; `step` is how it is shown."""
        image: Image | None = None
        config = ImageConfig(platform=platform, env=(f"PATH={DEFAULT_PATH}",), working_dir="/")
        directory = self.contexts.directory(name)
        if directory is not None:
            scratch = Vertex(Base(None), (), "FROM scratch", span)
            self._aside(index, scratch)
            copy = CopyFiles((".",), "/", from_context=True, context=directory)
            vertex = Vertex(copy, (scratch,), f"FROM {name}", span)
            self.steps.append(Step(step, span, vertex, stage=self._shown(index)))
            return vertex, config
        if not self.contexts.is_scratch(name):
            image = self._resolved(name, platform, span, index)
            # The base's own cache is of no use on top of it.
            config = replace(image.config, inline_cache="")
            here = config.platform
            if (here.os, here.architecture) != (platform.os, platform.architecture):
                self.scene.check("InvalidBaseImagePlatform", span, name, str(here), str(platform))
        vertex = Vertex(Base(image), label=f"FROM {name}", span=span)
        self.steps.append(Step(step, span, vertex, stage=self._shown(index)))
        return vertex, config

    def _resolved(self, name: str, platform: Platform, span: Span, index: int) -> Image:
        given = self.contexts.given(name)
        if isinstance(given, Image):
            self.bases.append(BaseImage(name, None, given))
            return given
        try:
            reference = given or Reference.parse(name)
            image = self.resolve(reference, platform)
            self.bases.append(BaseImage(name, reference, image))
            return image
        except (StoreError, RegistryError) as error:
            later = self._stage_named(name, len(self.stages))
            near = nearest(name.lower(), [each for each in self.names if each])
            why, hint = error.why, error.hint
            if near and later is None:
                why, hint = f"no stage of this file is called {name} either", f"did you mean {near}?"
            if later is not None and later > index:
                why, hint = f"the stage {name} comes later in this file", "A stage comes before those that use it."
            raise DockerfileError(error.message, span, why=why, hint=hint) from error

    def _source(self, index: int, name: str, span: Span) -> Vertex:
        """What --from takes from, in stage number `index`."""
        found = self._stage_copied(name, span, index)
        if found is not None:
            return self._state_of(found).vertex
        return self._base(name, self.options.platform, span, index, f"FROM {name}")[0]

    def _aside(self, index: int, vertex: Vertex) -> None:
        """A file system that an instruction needs besides its own: a step of its own, too."""
        self.steps.append(Step(vertex.label, vertex.span, vertex, stage=self._shown(index)))

    def _step(
        self, instruction: ast.Instruction, state: StageState, index: int, scene: Scene, prefix: str = ""
    ) -> StageState:
        """Apply one instruction, and note it as a step and in the history."""
        try:
            after = apply(instruction, state, scene)
        except DockerfileError as error:
            error.span = error.span or instruction.span
            raise
        vertex = after.vertex if after.vertex is not state.vertex else None
        # What is made is labelled so already.
        name = prefix + (shown(instruction) if vertex is None else vertex.label)
        # An ENV of the same name hides an ARG.
        arguments = after.arguments
        if not after.env.keys().isdisjoint(arguments):
            arguments = tuple(each for each in arguments if each not in after.env)
        step = Step(name, instruction.span, vertex, after.created_by, self._shown(index), arguments, after)
        self.steps.append(step)
        if not after.created_by:
            return after
        return replace(after, history_steps=(*after.history_steps, step), created_by="")

    def _shown(self, index: int) -> str:
        return self.stages[index].base.name or str(index)

    def _check_build_args(self) -> None:
        known = {*self.scene.declared, *PROXIES, *self.scene.global_args}
        for name in self.scene.build_args:
            if name in known or name.startswith("BUILDKIT_") or name == EPOCH:
                continue
            near = nearest(name, self.scene.declared)
            hint = f"did you mean {near}?" if near else f"Add ARG {name} where it is used."
            self.scene.remark(f"--build-arg {name} is used by no ARG", None, hint)


def _no_stage(name: str, span: Span) -> Vertex:
    raise DockerfileError(f"--from={name} before the first FROM", span)


def _sources(instruction: ast.Instruction) -> list[str]:
    """What an instruction takes from by --from: stages, contexts, images."""
    match instruction:
        case ast.Copy(from_=name) if name:
            return [name]
        case ast.Run(mounts=mounts):
            return [mount.from_ for mount in mounts if mount.from_]
    return []
