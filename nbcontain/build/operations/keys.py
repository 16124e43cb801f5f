"""The cache key of each kind of operation: what its result depends on, and what of that lies elsewhere by now.

A build that is all cached imports nothing of what would execute the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbcontain.build.graph import Base, CopyFiles, ExecOp, MakeDirectory, RemoteFile, Repository, StackLayers
from nbcontain.build.operations.workshop import Filesystem, Workshop, cache_key, key_of, stack_of
from nbcontain.build.selection import ANOTHER_CONTEXT, Wanted
from nbcontain.errors import BuildError
from nbcontain.events import Progress
from nbcontain.oci.digest import Digest

if TYPE_CHECKING:
    from nbcontain.build.context import Context
    from nbcontain.build.http import Fetched

_MUCH_BYTES = 1 << 20


@cache_key.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return None


@cache_key.register
def _(operation: StackLayers, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return None


@cache_key.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return key_of("mkdir", stack_of(inputs[0]), operation.path, operation.user)


@cache_key.register
def _(operation: ExecOp, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return key_of(
        "exec", [stack_of(each) for each in inputs], operation.args, operation.env, operation.cwd, operation.user,
        operation.network, operation.hostname, [repr(each) for each in operation.mounts],
        *([repr(operation.sandbox)] if operation.sandbox else []),
        *([operation.platform] if operation.platform else []),
        *([repr(operation.devices)] if operation.devices else []),
    )  # fmt: skip


@cache_key.register
def _(operation: CopyFiles, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    wanted = Wanted(operation.sources, operation.parents, operation.excludes)
    if not operation.sources:
        source = ""
    elif operation.from_context:
        source = str(context_of(operation, workshop).digest(wanted, on_read=_reading(workshop)))
    else:
        source = stack_of(inputs[-1])
    return key_of(
        "copy", stack_of(inputs[0]), source, () if operation.from_context else operation.sources,
        operation.destination, operation.chown, operation.chmod, operation.into_directory, operation.parents,
        operation.excludes, operation.unpack, operation.unpack_remote,
        [_remote_key(each, workshop) for each in operation.remotes], operation.remote_places,
        [(each.name, each.text) for each in operation.documents],
    )  # fmt: skip


def _reading(workshop: Workshop) -> Callable[[int], None]:
    """Told of what is read of a context, now and then: where a cancellation strikes.

    Files that have to be read are hardly ever those of a step that is done already: what does steps gets ready.
    """
    total = 0

    def read(size_bytes: int) -> None:
        nonlocal total
        workshop.emit(Progress("", size_bytes))
        if total < _MUCH_BYTES <= total + size_bytes:
            workshop.expect()
        total += size_bytes

    return read


def _remote_key(remote: RemoteFile | Repository, workshop: Workshop) -> object:
    """What is there now."""
    if isinstance(remote, RemoteFile):
        found = fetched(remote, workshop)
        return ["http", remote.name, str(found.digest), found.modified]
    return ["git", commit_of(remote, workshop), remote.subdir, remote.keeps_git_dir, remote.without_submodules]


def fetched(remote: RemoteFile, workshop: Workshop) -> Fetched:
    """The file of a server, as the step's key has it."""
    from nbcontain.build import http

    found = workshop.remotes.get(remote)
    if not isinstance(found, http.Fetched):
        found = workshop.remotes[remote] = http.fetched(
            remote, workshop.store.layout, workshop.access, workshop.emit
        )
    return found


def commit_of(remote: Repository, workshop: Workshop) -> str:
    """The commit of a repository that the step's key has."""
    from nbcontain.build import git

    found = workshop.remotes.get(remote)
    if not isinstance(found, str):
        found = workshop.remotes[remote] = git.commit_of(
            remote, workshop.access, workshop.emit, workshop.store.layout.tmp
        )
    return found


def context_of(operation: CopyFiles, workshop: Workshop) -> Context:
    """The context that this COPY takes files from. Raises BuildError if the build was given none."""
    if operation.context not in workshop.contexts:
        raise BuildError("COPY needs files, and this build was given no context", hint=ANOTHER_CONTEXT)
    return workshop.contexts[operation.context]
