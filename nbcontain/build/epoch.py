"""SOURCE_DATE_EPOCH: how old an image says it is (reproducible-builds.org; BuildKit's dockerfile2llb/epoch.go).

Given as --build-arg, by the environment, or by an ARG before the first FROM: in seconds since 1970, as `context`, or
as a stage that does nothing but ADD one file of a server, or one repository, whose age it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbcontain.build.graph import CopyFiles, RemoteFile, Repository, Vertex
from nbcontain.dockerfile import ast
from nbcontain.errors import DockerfileError, Span, UsageError

EPOCH = "SOURCE_DATE_EPOCH"
CONTEXT = "context"

Dated = Callable[[str | RemoteFile | Repository], int | None]
"""When something last changed, in seconds since 1970: what an ADD gets, or the build context (CONTEXT). None if that
is not known, as it is not of a directory."""


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
