"""SOURCE_DATE_EPOCH: how old an image says it is (reproducible-builds.org; BuildKit's dockerfile2llb/epoch.go).

Given as --build-arg, by the environment, or by an ARG before the first FROM: in seconds since 1970, as `context`, or
as a stage that does nothing but ADD one file of a server, or one repository, whose age it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from nbcontain.build.graph import CopyFiles, RemoteFile, Repository, Vertex
from nbcontain.build.stage import Scene
from nbcontain.dockerfile import ast
from nbcontain.errors import DockerfileError, Span, UsageError
from nbcontain.values import replace

EPOCH = "SOURCE_DATE_EPOCH"
CONTEXT = "context"

Dated = Callable[[str | RemoteFile | Repository], int | None]
"""When something last changed, in seconds since 1970: what an ADD gets, the build context (CONTEXT), or one of those
that have names. None if that is not known, as it is not of a directory."""


def undated(what: str | RemoteFile | Repository) -> int | None:
    """Nothing's age is known."""
    return None


def with_epoch(build_args: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The build arguments, with the environment's SOURCE_DATE_EPOCH if they have none."""
    is_given = any(each.partition("=")[0] == EPOCH for each in build_args)
    return build_args if is_given or not environ.get(EPOCH) else (*build_args, f"{EPOCH}={environ[EPOCH]}")


def seconds_of(value: str) -> int | None:
    """The value as a number; None if it is none."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 11 else None


def no_time(value: str, span: Span | None) -> DockerfileError | UsageError:
    """The error for a value that means nothing; `span` is the ARG it comes from."""
    message = f"{EPOCH}={value} is no time"
    why = "it is no number, and no stage is called so"
    hint = "Seconds since 1970, as of: git log -1 --format=%ct"
    return DockerfileError(message, span, why=why, hint=hint) if span else UsageError(message, why=why, hint=hint)


def checked_stage(stage: ast.Stage) -> None:
    """Raises DockerfileError unless the stage gets one thing from elsewhere and does nothing else."""
    others = [each for each in stage.instructions if not isinstance(each, ast.Arg)]
    if stage.base.image == "scratch" and len(others) == 1 and isinstance(others[0], ast.Add):
        return
    wrong = next((each for each in others if not isinstance(each, ast.Add)), stage.base)
    raise DockerfileError(
        f"the stage {stage.base.name} cannot say when {EPOCH} is",
        wrong.span,
        why="it may only be FROM scratch, ARG, and one ADD of a URL or a git repository",
    )


def remote_of(vertex: Vertex) -> RemoteFile | Repository | None:
    """What the only step of such a stage gets; None if that lies in the context."""
    operations = [each.operation for each in (vertex, *vertex.inputs)]
    found = [each for each in operations if isinstance(each, CopyFiles)]
    if len(found) != 1 or found[0].sources or found[0].documents or len(found[0].remotes) != 1:
        return None
    return found[0].remotes[0]


def settled(
    scene: Scene,
    stages: Sequence[ast.Stage],
    arguments: Sequence[ast.Arg],
    contexts: Container[str],
    dated: Dated,
    made: Callable[[int], Vertex],
) -> tuple[Scene, int | None]:
    """The scene in which SOURCE_DATE_EPOCH is a number or "", and the number.

    `arguments` stand before the first FROM; `made` folds a stage. Raises DockerfileError and UsageError.
    """
    declared = [each.span for each in arguments if any(name == EPOCH for name, _ in each.arguments)]
    value = (scene.global_args if declared else scene.build_args).get(EPOCH, "")
    if not value:
        return scene, None
    epoch = seconds_of(value)
    if epoch is None:
        index = next((index for index, stage in enumerate(stages) if stage.base.name == value.lower()), None)
        if value == CONTEXT or value in contexts:
            epoch = dated(value)
        elif index is not None:
            epoch = dated(_only_remote(stages[index], index, made))
        else:
            raise no_time(value, None if EPOCH in scene.build_args else declared[-1])
    said = {EPOCH: "" if epoch is None else str(epoch)}
    global_args = {**scene.global_args, **said} if declared else scene.global_args
    return replace(scene, build_args={**scene.build_args, **said}, global_args=global_args), epoch


def _only_remote(stage: ast.Stage, index: int, made: Callable[[int], Vertex]) -> RemoteFile | Repository:
    checked_stage(stage)
    remote = remote_of(made(index))
    if remote is None:
        add = next(each for each in stage.instructions if isinstance(each, ast.Add))
        raise DockerfileError(f"{EPOCH} takes the time of one remote file", add.span, why="that is no URL")
    return remote
