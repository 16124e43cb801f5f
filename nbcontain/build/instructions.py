"""What each instruction does to a stage: `apply`, one case per instruction, with BuildKit's meaning
(frontend/dockerfile/dockerfile2llb)."""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

from nbcontain.build.arguments import DEFAULT_PATH, proxy_environment
from nbcontain.build.graph import CopyFiles, ExecOp, MakeDirectory, Operation, Step, Vertex
from nbcontain.build.values import exposed_ports, mode_of, stop_signal
from nbcontain.dockerfile import ast, words
from nbcontain.dockerfile.arguments import refuse_feature
from nbcontain.errors import DockerfileError, Span
from nbcontain.oci.image import Healthcheck, ImageConfig

_SHELL = ("/bin/sh", "-c")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_REMOTE = re.compile(r"https?://|git@|git://|ssh://")


@dataclass(frozen=True, slots=True)
class StageState:
    """What the fold carries through one stage."""

    vertex: Vertex
    config: ImageConfig
    """The image's, but for its environment, which is `env`."""
    env: Mapping[str, str]
    variables: Mapping[str, str]
    """ENV and ARG as seen at this line; what came later counts."""
    arguments: tuple[str, ...] = ()
    """Names of the ARGs, those of the stages below included."""
    has_cmd: bool = False
    """This stage has a CMD of its own."""
    created_by: str = ""
    """What the last instruction writes into the history; "" for nothing."""
    history_steps: tuple[Step, ...] = ()

    def with_config(self, created_by: str, **changes: Any) -> StageState:
        """Other metadata, and nothing else."""
        return replace(self, config=replace(self.config, **changes), created_by=created_by)

    def with_variables(self, values: Mapping[str, str]) -> StageState:
        return replace(self, variables={**self.variables, **values})

    def then(self, created_by: str, operation: Operation, *others: Vertex, label: str, span: Span) -> StageState:
        """Another file system: this one, changed by `operation`."""
        vertex = Vertex(operation, (self.vertex, *others), label, span)
        return replace(self, vertex=vertex, created_by=created_by)

    @property
    def image_config(self) -> ImageConfig:
        """The image's config, were this the last line."""
        # Not kept up to date line by line: with thousands of ENVs that would take the square of their number.
        return replace(self.config, env=tuple(f"{name}={value}" for name, value in self.env.items()))

    @property
    def environment(self) -> tuple[str, ...]:
        """NAME=value for programs; there is always a PATH."""
        return tuple(f"{name}={value}" for name, value in ({"PATH": DEFAULT_PATH} | dict(self.variables)).items())

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"


@dataclass(frozen=True, slots=True)
class Scene:
    """What an instruction can ask beside the state: the same for all instructions of a stage."""

    escape: str
    build_args: Mapping[str, str]
    global_args: Mapping[str, str]
    """ARGs before the first FROM, and those of the platforms."""
    network: str
    copied: Callable[[ast.Copy], Vertex]
    """The file system that COPY --from names. Raises DockerfileError."""
    declared: set[str] = field(default_factory=set)
    """Every ARG met so far."""
    remarks: list[ast.Remark] = field(default_factory=list)

    def remark(self, message: str, span: Span | None, hint: str = "") -> None:
        self.remarks.append(ast.Remark(message, span, hint))

    def expand(self, word: str, state: StageState, span: Span) -> str:
        """The word with its variables filled in; one without a value is remarked on, unless it is a known ARG."""
        return self.filled(word, state.variables, span, state.arguments)

    def filled(self, word: str, variables: Mapping[str, str], span: Span, known: tuple[str, ...] = ()) -> str:
        """Like `expand`, where there is no stage yet."""
        missing: set[str] = set()
        value = words.expand(word, variables, self.escape, missing)
        self._missing(missing - set(known), variables, span)
        return value

    def split(self, word: str, state: StageState, span: Span) -> list[str]:
        """Like `expand`, split at unquoted spaces."""
        missing: set[str] = set()
        found = words.split(word, state.variables, self.escape, missing)
        self._missing(missing - set(state.arguments), state.variables, span)
        return found

    def pairs(self, pairs: ast.Pairs, state: StageState, span: Span) -> dict[str, str]:
        """Names and values expanded, all with the variables from before the instruction."""
        expanded = {self.expand(name, state, span): self.expand(value, state, span) for name, value in pairs}
        if "" in expanded:
            raise DockerfileError("a name that is empty", span, why="the variables in it have no value")
        if any("=" in name or "\0" in name + value for name, value in expanded.items()):
            raise DockerfileError("a name with = in it", span)
        return expanded

    def _missing(self, missing: set[str], variables: Mapping[str, str], span: Span) -> None:
        for name in sorted(missing):
            near = difflib.get_close_matches(name, variables, 1)
            hint = f"did you mean ${near[0]}?" if near else f"Give it one before: ARG {name}=…, or ENV."
            self.remark(f"${name} has no value here", span, hint)


@singledispatch
def apply(instruction: ast.Instruction, state: StageState, scene: Scene) -> StageState:
    """The state after this instruction. Raises DockerfileError."""
    raise TypeError(f"no meaning for {instruction!r}")


@apply.register
def _(arg: ast.Arg, state: StageState, scene: Scene) -> StageState:
    shown: list[str] = []
    for name, default in arg.arguments:
        scene.declared.add(name)
        value = scene.build_args.get(name)
        if value is None and default is not None:
            value = scene.expand(default, state, arg.span)
        elif value is None:
            value = scene.global_args.get(name)
        if _SECRET.search(name) and "public" not in name.lower():
            scene.remark(f"ARG {name} looks like a secret", arg.span, "Arguments can be read in the image's history.")
        if value is not None:
            state = state.with_variables({name: value})
        state = replace(state, arguments=(*(each for each in state.arguments if each != name), name))
        shown.append(name if value is None else f"{name}={value}")
    return replace(state, created_by="ARG " + " ".join(shown))


@apply.register
def _(env: ast.Env, state: StageState, scene: Scene) -> StageState:
    values = scene.pairs(env.pairs, state, env.span)
    for name in values:
        if _SECRET.search(name) and "public" not in name.lower():
            scene.remark(f"ENV {name} looks like a secret", env.span, "It can be read in the image by whoever has it.")
    created_by = "ENV " + " ".join(f"{name}={value}" for name, value in values.items())
    return replace(state.with_variables(values), env={**state.env, **values}, created_by=created_by)


@apply.register
def _(label: ast.Label, state: StageState, scene: Scene) -> StageState:
    values = scene.pairs(label.pairs, state, label.span)
    created_by = "LABEL " + " ".join(f"{name}={value}" for name, value in values.items())
    return state.with_config(created_by, labels={**state.config.labels, **values})


@apply.register
def _(run: ast.Run, state: StageState, scene: Scene) -> StageState:
    argv = _argv(run.command, state)
    if not argv:
        raise DockerfileError("RUN [] names no program", run.span)
    # Proxies that the Dockerfile does not declare reach the program, and change nothing about what is built.
    proxies = {name: value for name, value in scene.build_args.items() if name not in state.variables}
    operation = ExecOp(
        args=argv,
        env=state.environment,
        cwd=state.working_dir,
        user=state.config.user,
        network=scene.network if run.network == "default" else run.network,
        secret_env=proxy_environment(proxies),
    )
    given = [f"{name}={state.variables.get(name, '')}" for name in state.arguments]
    shown = [f"|{len(given)}", *given] if given else []
    return state.then("RUN " + " ".join((*shown, *argv)), operation, label=one_line(run.text), span=run.span)


@apply.register
def _(copy: ast.Copy, state: StageState, scene: Scene) -> StageState:
    for source in copy.sources:
        if _REMOTE.match(source):
            raise DockerfileError(
                f"COPY cannot take {source}", copy.span, why="COPY takes files of the context or a stage"
            )
    if not copy.from_:
        return _copied(copy, "COPY", state, scene)
    return _copied(copy, "COPY", state, scene, scene.copied(copy))


@apply.register
def _(add: ast.Add, state: StageState, scene: Scene) -> StageState:
    for source in add.sources:
        if _REMOTE.match(scene.expand(source, state, add.span)):
            kind = "a git repository" if "git@" in source or source.endswith(".git") else "a URL"
            refuse_feature(f"ADD of {kind}", add.span, hint="Download it with Python, or in a RUN, and COPY it.")
    return _copied(add, "ADD", state, scene)


def _copied(
    copy: ast.Copy | ast.Add, keyword: str, state: StageState, scene: Scene, stage: Vertex | None = None
) -> StageState:
    named = [scene.expand(source, state, copy.span) for source in copy.sources]
    sources = tuple(_source(source, copy, stage is None) for source in named)
    given = scene.expand(copy.destination, state, copy.span)
    chown = scene.expand(copy.chown, state, copy.span)
    chmod = scene.expand(copy.chmod, state, copy.span)
    operation = CopyFiles(
        sources=sources,
        destination=_absolute(state.working_dir, given),
        from_context=stage is None,
        chown=chown,
        chmod=mode_of(chmod, copy.span) if chmod else None,
        into_directory=len(sources) > 1 or given in ("", ".", "..") or given.endswith(("/", "/.", "/..")),
        is_add=keyword == "ADD",
    )
    flags = [f"--{name}={value}" for name, value in (("chown", chown), ("chmod", chmod)) if value]
    created_by = " ".join((keyword, *flags, *named, given))
    others = () if stage is None else (stage,)
    return state.then(created_by, operation, *others, label=one_line(copy.text), span=copy.span)


def _source(path: str, copy: ast.Copy | ast.Add, from_context: bool) -> str:
    """A source relative to its root, "." for the root itself."""
    relative = posixpath.normpath(path.lstrip("/") or ".")
    if from_context and relative.split("/")[0] == "..":
        raise DockerfileError(
            f"{path} is outside the build context",
            copy.span,
            why="COPY sees the context's directory and what is below it",
            hint="Choose a higher directory with --context.",
        )
    # In another stage's root there is nothing above /.
    return posixpath.normpath("/" + relative).lstrip("/") or "."


@apply.register
def _(workdir: ast.Workdir, state: StageState, scene: Scene) -> StageState:
    path = _absolute(state.working_dir, scene.expand(workdir.path, state, workdir.span))
    after = state.with_config(f"WORKDIR {path}", working_dir=path)
    if path == "/":
        return after
    operation = MakeDirectory(path, state.config.user)
    return after.then(after.created_by, operation, label=one_line(workdir.text), span=workdir.span)


@apply.register
def _(user: ast.User, state: StageState, scene: Scene) -> StageState:
    name = scene.expand(user.user, state, user.span)
    if not name:
        raise DockerfileError("USER names nobody", user.span, why=f"{user.user} is empty here")
    return state.with_config(f"USER {name}", user=name)


@apply.register
def _(cmd: ast.Cmd, state: StageState, scene: Scene) -> StageState:
    argv = _argv(cmd.command, state)
    return replace(state.with_config(f"CMD {_go_list(argv)}", cmd=argv), has_cmd=True)


@apply.register
def _(entrypoint: ast.Entrypoint, state: StageState, scene: Scene) -> StageState:
    argv = _argv(entrypoint.command, state)
    # A CMD that was meant for the base's program would become the arguments of this one.
    cmd = state.config.cmd if state.has_cmd else None
    return state.with_config(f"ENTRYPOINT {_go_list(argv)}", entrypoint=argv or None, cmd=cmd)


@apply.register
def _(shell: ast.DefaultShell, state: StageState, scene: Scene) -> StageState:
    return state.with_config(f"SHELL [{' '.join(shell.argv)}]", shell=shell.argv)


@apply.register
def _(expose: ast.Expose, state: StageState, scene: Scene) -> StageState:
    given = [port for word in expose.ports for port in scene.split(word, state, expose.span)]
    ports = exposed_ports(given, expose.span)
    merged = tuple(sorted({*state.config.exposed_ports, *ports}))
    return state.with_config(f"EXPOSE [{' '.join(ports)}]", exposed_ports=merged)


@apply.register
def _(volume: ast.Volume, state: StageState, scene: Scene) -> StageState:
    paths = tuple(scene.expand(path, state, volume.span) for path in volume.paths)
    if "" in paths:
        raise DockerfileError("VOLUME needs a path", volume.span, why="the variables in it have no value")
    merged = tuple(sorted({*state.config.volumes, *paths}))
    return state.with_config(f"VOLUME [{' '.join(paths)}]", volumes=merged)


@apply.register
def _(stop: ast.StopSignal, state: StageState, scene: Scene) -> StageState:
    signal = stop_signal(scene.expand(stop.signal, state, stop.span), stop.span)
    return state.with_config(f"STOPSIGNAL {signal}", stop_signal=signal)


@apply.register
def _(check: ast.HealthCheck, state: StageState, scene: Scene) -> StageState:
    match check.command:
        case None:
            test: tuple[str, ...] = ("NONE",)
        case ast.ShellForm(text):
            test = ("CMD-SHELL", text)
        case ast.ExecForm(argv):
            test = ("CMD", *argv)
    healthcheck = Healthcheck(
        test=test,
        interval_ns=check.interval_ns,
        timeout_ns=check.timeout_ns,
        start_period_ns=check.start_period_ns,
        start_interval_ns=check.start_interval_ns,
        retries=check.retries,
    )
    return state.with_config(one_line(check.text), healthcheck=healthcheck)


@apply.register
def _(maintainer: ast.Maintainer, state: StageState, scene: Scene) -> StageState:
    return state.with_config(f"MAINTAINER {maintainer.name}", author=maintainer.name)


@apply.register
def _(on_build: ast.OnBuild, state: StageState, scene: Scene) -> StageState:
    return state.with_config("", on_build=(*state.config.on_build, on_build.trigger))


def _argv(command: ast.CommandForm, state: StageState) -> tuple[str, ...]:
    match command:
        case ast.ShellForm(text):
            return (*(state.config.shell or _SHELL), text)
        case ast.ExecForm(argv):
            return argv


def _absolute(working_dir: str, path: str) -> str:
    # POSIX lets two slashes in front mean something else, and so normpath keeps them.
    return "/" + posixpath.normpath(posixpath.join(working_dir, path)).lstrip("/")


def _go_list(argv: tuple[str, ...]) -> str:
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in argv) + "]"


def one_line(text: str) -> str:
    """An instruction for display: its keyword in capitals, its continuations' indentation gone."""
    keyword, _, rest = re.sub(r"[\t\n ]+", " ", text).partition(" ")
    return f"{keyword.upper()} {rest}".strip()
