"""What each instruction does to a stage that only says something about the image, with BuildKit's meaning and its words
for the history (frontend/dockerfile/dockerfile2llb). RUN, COPY and ADD are in `runs` and `copies`."""

from __future__ import annotations

import json

from nbcontain.build import copies, runs
from nbcontain.build.graph import MakeDirectory
from nbcontain.build.stage import Scene, StageState, absolute, apply, argv_of, one_line
from nbcontain.build.values import exposed_ports, go_duration, stop_signal
from nbcontain.dockerfile import ast
from nbcontain.errors import DockerfileError
from nbcontain.oci.image import Healthcheck
from nbcontain.values import replace

__all__ = ["Scene", "StageState", "apply", "copies", "runs"]


@apply.register
def _(arg: ast.Arg, state: StageState, scene: Scene) -> StageState:
    shown: list[str] = []
    variables, arguments = state.variables, state.arguments
    for name, default in arg.arguments:
        scene.declared.add(name)
        value = scene.build_args.get(name)
        if value is None and default is not None:
            value = scene.filled(default, variables, arg.span, arguments)
        elif value is None:
            value = scene.global_args.get(name)
        if value is not None:
            variables = {**variables, name: value}
        arguments = (*(each for each in arguments if each != name), name)
        shown.append(name if value is None else f"{name}={value}")
    return replace(state, variables=variables, arguments=arguments, created_by="ARG " + " ".join(shown))


@apply.register
def _(env: ast.Env, state: StageState, scene: Scene) -> StageState:
    values = scene.pairs(env.pairs, state, env.span)
    created_by = "ENV " + " ".join(f"{name}={value}" for name, value in values.items())
    variables, lasting = {**state.variables, **values}, {**state.env, **values}
    return replace(state, variables=variables, env=lasting, created_by=created_by)


@apply.register
def _(label: ast.Label, state: StageState, scene: Scene) -> StageState:
    values = scene.pairs(label.pairs, state, label.span)
    created_by = "LABEL " + " ".join(f"{name}={value}" for name, value in values.items())
    return state.with_config(created_by, labels={**state.config.labels, **values})


@apply.register
def _(workdir: ast.Workdir, state: StageState, scene: Scene) -> StageState:
    given = scene.expand(workdir.path, state, workdir.span)
    if not state.has_workdir and not given.startswith("/"):
        scene.check("WorkdirRelativePath", workdir.span, given, hint=f"WORKDIR /{given}")
    path = absolute(state.working_dir, given)
    after = replace(state.with_config(f"WORKDIR {path}", working_dir=path), has_workdir=True)
    if path == "/":
        return after
    operation = MakeDirectory(path, state.config.user)
    return after.then(after.created_by, operation, label=one_line(workdir.text), span=workdir.span)


@apply.register
def _(user: ast.User, state: StageState, scene: Scene) -> StageState:
    # As in BuildKit, what its variables leave empty is as if there had been no USER yet; the check UndefinedVar tells.
    name = scene.expand(user.user, state, user.span)
    return state.with_config(f"USER {name}", user=name)


@apply.register
def _(cmd: ast.Cmd, state: StageState, scene: Scene) -> StageState:
    argv = argv_of(cmd.command, state)
    return replace(state.with_config(f"CMD {_go_list(argv)}", cmd=argv), has_cmd=True)


@apply.register
def _(entrypoint: ast.Entrypoint, state: StageState, scene: Scene) -> StageState:
    argv = argv_of(entrypoint.command, state)
    # A CMD that was meant for the base's program would become the arguments of this one.
    cmd = state.config.cmd if state.has_cmd else None
    return state.with_config(f"ENTRYPOINT {_go_list(argv)}", entrypoint=argv or None, cmd=cmd)


@apply.register
def _(shell: ast.DefaultShell, state: StageState, scene: Scene) -> StageState:
    return state.with_config(f"SHELL [{' '.join(shell.argv)}]", shell=shell.argv)


@apply.register
def _(expose: ast.Expose, state: StageState, scene: Scene) -> StageState:
    given = [port for word in expose.ports for port in scene.split(word, state, expose.span)]
    for port in given:
        host, _, container = port.rpartition(":")
        if host:
            scene.check("ExposeInvalidFormat", expose.span, port, hint=f"EXPOSE {container}")
        if container != container.lower():
            scene.check("ExposeProtoCasing", expose.span, port, hint=f"EXPOSE {container.lower()}")
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
    fields = {
        "Test": f"[{' '.join(test)}]",
        "Interval": go_duration(check.interval_ns),
        "Timeout": go_duration(check.timeout_ns),
        "StartPeriod": go_duration(check.start_period_ns),
        "StartInterval": go_duration(check.start_interval_ns),
        "Retries": str(check.retries),
    }
    created_by = "HEALTHCHECK {" + " ".join(f"{name}:{value}" for name, value in fields.items()) + "}"
    return state.with_config(created_by, healthcheck=healthcheck)


@apply.register
def _(maintainer: ast.Maintainer, state: StageState, scene: Scene) -> StageState:
    return state.with_config(f"MAINTAINER {maintainer.name}", author=maintainer.name)


@apply.register
def _(on_build: ast.OnBuild, state: StageState, scene: Scene) -> StageState:
    return state.with_config("", on_build=(*state.config.on_build, on_build.trigger))


def _go_list(argv: tuple[str, ...]) -> str:
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in argv) + "]"
