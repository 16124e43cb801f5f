"""RUN: the program, and what it sees besides the stage's files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial

from nbcontain.build.arguments import proxy_environment
from nbcontain.build.graph import (
    Base,
    BindMount,
    CacheMount,
    CopyFiles,
    DocumentMount,
    ExecOp,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
    Vertex,
)
from nbcontain.build.stage import Scene, StageState, absolute, apply, argv_of, shell_of, shown
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.mounts import run_mount
from nbcontain.errors import DockerfileError


@apply.register
def _(run: ast.Run, state: StageState, scene: Scene) -> StageState:
    if run.security == "insecure":
        raise DockerfileError(
            "RUN --security=insecure is refused",
            run.span,
            why="it would give the step power over this machine; nothing here has that",
        )
    mounting = _Mounting(run, state, scene)
    argv = _command(run, state, mounting)
    for mount in scene.automounts:
        mounting.take(mount)
    for flag in run.mounts:
        mounting.take(run_mount(flag, partial(scene.expand, state=state, span=run.span)))
    # Proxies that the Dockerfile does not declare reach the program, and change nothing about what is built.
    proxies = {name: value for name, value in scene.build_args.items() if name not in state.variables}
    operation = ExecOp(
        args=argv,
        env=state.environment,
        cwd=state.working_dir,
        user=state.config.user,
        network=_network(run, scene),
        mounts=tuple(mounting.mounts),
        hostname=scene.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
        platform=str(state.config.platform).removeprefix("linux/amd64"),
        sandbox=scene.sandbox,
        devices=tuple(_devices(run, scene)),
        added_hosts=scene.added_hosts,
        secret_env=proxy_environment(proxies),
        architecture=state.config.platform.architecture,
    )
    given = [f"{name}={state.variables.get(name, '')}" for name in state.arguments]
    arguments = [f"|{len(given)}", *given] if given else []
    created_by = "RUN " + " ".join((*arguments, *argv)) + " # buildkit"
    return state.then(created_by, operation, *mounting.inputs, label=shown(run), span=run.span)


def _network(run: ast.Run, scene: Scene) -> str:
    if run.network == "default":
        return scene.network
    if run.network == "host" and scene.network != "host" and "network.host" not in scene.allowed:
        raise DockerfileError(
            "RUN --network=host is more than this build was given",
            run.span,
            why=f"it has --network {scene.network}",
            hint="--allow network.host permits it",
        )
    return run.network


def _devices(run: ast.Run, scene: Scene) -> Iterator[tuple[str, bool]]:
    for device in run.devices:
        if not {"device", f"device={device.name}"} & set(scene.allowed):
            raise DockerfileError(
                f"RUN --device={device.name} is more than this build was given",
                run.span,
                why="a device is this machine's, and a step could do with it what it likes",
                hint=f"--allow device permits it; --allow device={device.name} this one alone",
            )
        yield device.name, device.is_required


def _command(run: ast.Run, state: StageState, mounting: _Mounting) -> tuple[str, ...]:
    if isinstance(run.command, ast.ExecForm):
        argv = argv_of(run.command, state)
        if not argv:
            raise DockerfileError("RUN [] names no program", run.span)
        return argv
    if run.is_document and run.heredocs[0].text.startswith("#!"):
        path = f"/dev/pipes/{run.heredocs[0].name}"
        mounting.mounts.append(DocumentMount(path, run.heredocs[0].text))
        return (*shell_of(state), path)
    return (*shell_of(state), run.script)


class _Mounting:
    """The mounts of one RUN being read."""

    def __init__(self, run: ast.Run, state: StageState, scene: Scene) -> None:
        self.run = run
        self.state = state
        self.scene = scene
        self.mounts: list[RunMount] = []
        self.inputs: list[Vertex] = []

    def take(self, mount: ast.RunMount) -> None:
        match mount.type:
            case "bind":
                self.mounts.append(self._bind(mount))
            case "cache":
                self.mounts.append(self._cache(mount))
            case "tmpfs":
                self.mounts.append(self._tmpfs(mount))
            case "secret":
                self.mounts.append(self._secret(mount))
            case _:
                self.mounts.append(self._ssh(mount))

    def _target(self, mount: ast.RunMount) -> str:
        target = absolute(self.state.working_dir, mount.target)
        if not mount.target or target == "/":
            raise DockerfileError(
                f"--mount=type={mount.type} has no place",
                self.run.span,
                why="target is /" if mount.target else "target is missing",
                hint=f"--mount=type={mount.type},target=/some/directory",
            )
        return target

    def _input(self, vertex: Vertex) -> int:
        """The number of an input of the step, of which the file system that it changes is number 0."""
        self.inputs.append(vertex)
        return len(self.inputs)

    def _bind(self, mount: ast.RunMount) -> BindMount:
        target = self._target(mount)
        source = absolute("/", mount.source)
        directory = self.scene.directory(mount.from_) if mount.from_ else ""
        if directory is None:
            vertex = self.scene.source(mount.from_, self.run.span)
        else:
            # What is mounted is a copy: nothing that the step or a symlink does can reach the user's own files.
            relative = source.lstrip("/") or "."
            copy = CopyFiles((_literal(relative),), source, from_context=True, context=directory)
            scratch = Vertex(Base(None), (), "FROM scratch", self.run.span)
            vertex = Vertex(copy, (scratch,), f"context {mount.from_} {relative}".replace("  ", " "), self.run.span)
            self.scene.aside(scratch)
            self.scene.aside(vertex)
        return BindMount(target, self._input(vertex), source, not mount.read_only)

    def _cache(self, mount: ast.RunMount) -> CacheMount:
        target = self._target(mount)
        namespace = self.scene.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        at = self._input(self.scene.source(mount.from_, self.run.span)) if mount.from_ else 0
        return CacheMount(
            target=target,
            id=f"{namespace}/{mount.id or target}",
            sharing="private" if mount.sharing == "private" else "locked" if mount.sharing == "locked" else "shared",
            at=at,
            source=absolute("/", mount.source),
            is_readonly=mount.read_only,
            mode=0o755 if mount.mode is None else mount.mode & 0o7777,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
        )

    def _tmpfs(self, mount: ast.RunMount) -> TmpfsMount:
        return TmpfsMount(self._target(mount), mount.size_bytes)

    def _secret(self, mount: ast.RunMount) -> SecretMount:
        name = mount.id or mount.source or posixpath.basename(mount.target)
        if self.scene.is_trigger and mount.required and "onbuild.secrets" not in self.scene.allowed:
            raise DockerfileError(
                f"the base image asks for the secret {name}",
                self.run.span,
                why="secrets are for the steps of this Dockerfile",
                hint="--allow onbuild.secrets gives them to the base image's ONBUILD too",
            )
        target = mount.target or ("" if mount.env else f"/run/secrets/{posixpath.basename(name)}")
        return SecretMount(
            # A name that no --secret has: an image that one builds on does not get what it was not meant to have.
            id="" if self.scene.is_trigger and "onbuild.secrets" not in self.scene.allowed else name,
            target=absolute(self.state.working_dir, target) if target else "",
            env=mount.env,
            is_required=mount.required,
            mode=0o400 if mount.mode is None else mount.mode & 0o7777,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
        )

    def _ssh(self, mount: ast.RunMount) -> SshMount:
        number = sum(isinstance(each, SshMount) for each in self.mounts)
        return SshMount(
            id="" if self.scene.is_trigger and "onbuild.secrets" not in self.scene.allowed else mount.id or "default",
            target=absolute(self.state.working_dir, mount.target or f"/run/buildkit/ssh_agent.{number}"),
            is_required=mount.required,
            mode=0o600 if mount.mode is None else mount.mode & 0o777,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
        )


def _literal(path: str) -> str:
    """A path as a COPY source that matches itself only."""
    return "".join("\\" + char if char in "*?[\\" else char for char in path)
