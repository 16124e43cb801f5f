"""What each operation of a build graph does: its cache key, and its execution.

Operations run in the same sandbox as containers, or in `Launcher.call`, which is that sandbox with a
function of ours as the program. Nothing here follows a path of an image with the host's eyes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any

from nbcontain.build.context import Context
from nbcontain.build.graph import Base, CopyFiles, ExecOp, MakeDirectory, Operation
from nbcontain.errors import BuildError, SetupFailed, StepFailed
from nbcontain.events import Emit, Finished, Notice, Output, Progress, Record
from nbcontain.host import Host
from nbcontain.oci.digest import ChainID, Digest, chain_id, chain_id_of
from nbcontain.oci.image import ImageConfig, Layer
from nbcontain.runtime.bundle import Bundle, ContainerInfo
from nbcontain.runtime.container import Container, Launcher, Leash
from nbcontain.runtime.generate import RunOptions, generate
from nbcontain.store import Store
from nbcontain.store.snapshots import Active
from nbcontain.store.stacks import Stacks

_OPERATIONS_VERSION = 1
"""Part of every cache key: raise it when an operation begins to do something else."""

_TAIL_LINES = 10


@dataclass(frozen=True, slots=True)
class Filesystem:
    """What a solved vertex yields: a stack of layers, lowest first, whose chain ID names the snapshot."""

    layers: tuple[Layer, ...] = ()

    @property
    def chain_id(self) -> ChainID | None:
        """None is scratch."""
        return chain_id_of(layer.diff_id for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Workshop:
    """All that an operation may touch while it runs."""

    store: Store
    launcher: Launcher
    host: Host
    require: Callable[[str], None]
    """Raises Unavailable, for what is named, where this host cannot run containers."""
    can_run: bool = True
    context: Context | None = None
    emit: Emit = field(default=lambda event: None)
    leash: Leash | None = None
    """Let go when the build is cancelled, so that a silent program ends too."""

    def for_step(self, emit: Emit) -> Workshop:
        return replace(self, emit=emit)

    @property
    def stacks(self) -> Stacks:
        return Stacks(self.store, self.launcher, self.host.ids.is_single)

    def unpack(self, layers: Sequence[Layer]) -> None:
        """Make the snapshots of this stack exist. Idempotent; what another process unpacks meanwhile is taken."""
        self.stacks.unpack(layers)

    def change(self, parent: Filesystem, do: Callable[[Active], Sequence[str]]) -> Filesystem:
        """`parent` with what `do` changed in an active snapshot on top of it, as one more layer; none if nothing.

        `do` gives the paths that were made as mount points only: they are no part of the layer.
        """
        self.unpack(parent.layers)
        active = self.store.snapshots.prepare(f"build-{secrets.token_hex(8)}", parent.chain_id)
        try:
            stubs = do(active)
            layer = self.stacks.pack(active, stubs)
            if layer is None:
                self.store.snapshots.discard(active)
                return parent
            self.store.snapshots.commit(active, chain_id(parent.chain_id, layer.diff_id))
        except BaseException:
            self.store.snapshots.discard(active)
            raise
        return Filesystem((*parent.layers, layer))


def _key(*parts: object) -> Digest:
    return Digest.of(json.dumps([_OPERATIONS_VERSION, *parts], sort_keys=True, default=str).encode())


def _stack(filesystem: Filesystem) -> str:
    return str(filesystem.chain_id or "scratch")


@singledispatch
def cache_key(operation: Operation, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    """The name of what this operation makes of these file systems; None where there is nothing to keep."""
    raise TypeError(f"no cache key for {operation!r}")


@singledispatch
def execute(operation: Operation, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    """Do it. Raises BuildError or what the store and the runtime raise; nothing is left behind then."""
    raise TypeError(f"cannot execute {operation!r}")


# --- FROM -------------------------------------------------------------------------------------


@cache_key.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return None


@execute.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    return Filesystem(operation.image.layers if operation.image else ())


# --- RUN --------------------------------------------------------------------------------------


@cache_key.register
def _(operation: ExecOp, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return _key(
        "exec", _stack(inputs[0]), operation.args, operation.env, operation.cwd, operation.user, operation.network
    )


@execute.register
def _(operation: ExecOp, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    workshop.require("RUN")

    def run(active: Active) -> Sequence[str]:
        config = ImageConfig(
            env=(*operation.env, *operation.secret_env), working_dir=operation.cwd, user=operation.user,
            entrypoint=operation.args,
        )  # fmt: skip
        options = RunOptions(image="", network=operation.network)
        with workshop.store.bundle_directory() as path:
            spec = generate(config, options, workshop.host, files=path, hostname="buildkitsandbox")
            info = ContainerInfo(id=active.key, name=active.key, image="", command=operation.args, build_step=True)
            bundle = Bundle.write(path, spec, active.mounts, info)
            container = Container(bundle)
            with closing(container.follow()) as records:
                try:
                    container.launch(workshop.launcher, leash=workshop.leash, start=True)
                    _follow(records, workshop.emit)
                finally:
                    # Nobody may write into the layer any more when it is packed, or thrown away.
                    container.settle()
            return bundle.stubs()

    try:
        return workshop.change(inputs[0], run)
    except SetupFailed as error:
        raise BuildError(error.message, why=error.why, hint=error.hint) from error


def _follow(records: Iterable[Record], emit: Emit) -> None:
    """Pass the program's output on; raise StepFailed unless it ends well."""
    tail = b""
    for record in records:
        match record.event:
            case Output(stream=stream, data=data):
                tail = (tail + data)[-8192:]
                emit(Output("", stream, data))
            case Notice(message=message, hint=hint):
                emit(Notice("", message, hint))
            case Finished(outcome=outcome, exit_code=code) if code != 0:
                emit(Progress("", 0))  # strikes if this is the end of a cancelled build
                lines = tail.decode(errors="replace").splitlines()[-_TAIL_LINES:]
                if code is None:
                    raise BuildError(f"the program was {outcome}", output=tuple(lines), why=record.event.detail)
                raise StepFailed(
                    f"the program ended with exit code {code}", code, output=tuple(lines), why=_exit_meaning(code)
                )


def _exit_meaning(code: int) -> str:
    known = {
        126: "126: the command cannot be executed",
        127: "127: the command was not found",
        137: "137: it was killed (SIGKILL)",
    }
    return known.get(code, "")


# --- COPY -------------------------------------------------------------------------------------


@cache_key.register
def _(operation: CopyFiles, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    if operation.from_context:
        context = _context(workshop)
        entries = context.select(operation.sources, refuse_archives=operation.is_add)
        # Reading a large context takes a while; each word is where a cancellation strikes.
        source = str(context.digest(entries, on_read=lambda size_bytes: workshop.emit(Progress("", size_bytes))))
    else:
        source = _stack(inputs[1])
    return _key(
        "copy", _stack(inputs[0]), source, () if operation.from_context else operation.sources,
        operation.destination, operation.chown, operation.chmod, operation.into_directory,
    )  # fmt: skip


@execute.register
def _(operation: CopyFiles, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    workshop.require("COPY")
    arguments: dict[str, Any] = {
        "destination": operation.destination, "chown": operation.chown, "chmod": operation.chmod,
        "into_directory": operation.into_directory,
    }  # fmt: skip

    def from_context(active: Active) -> Sequence[str]:
        context = _context(workshop)
        selected = context.select(operation.sources, refuse_archives=operation.is_add)
        entries = [entry.to_json() for entry in selected]
        fd = context.open_fd()
        try:
            workshop.launcher.call("copy_files", active.mounts, {**arguments, "entries": entries}, (fd,))
        finally:
            os.close(fd)
        return ()

    def from_stage(active: Active) -> Sequence[str]:
        workshop.unpack(inputs[1].layers)
        chain = inputs[1].chain_id
        source = workshop.store.snapshots.view(chain) if chain else ()
        workshop.launcher.call(
            "copy_from", active.mounts, {**arguments, "sources": list(operation.sources)}, (), source=source
        )
        return ()

    return workshop.change(inputs[0], from_context if operation.from_context else from_stage)


def _context(workshop: Workshop) -> Context:
    if workshop.context is None:
        raise BuildError("COPY needs files, and this build was given no context", hint="--context DIR")
    return workshop.context


# --- WORKDIR ----------------------------------------------------------------------------------


@cache_key.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return _key("mkdir", _stack(inputs[0]), operation.path, operation.user)


@execute.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    workshop.require("WORKDIR")

    def make(active: Active) -> Sequence[str]:
        workshop.launcher.call("make_directory", active.mounts, {"path": operation.path, "user": operation.user}, ())
        return ()

    return workshop.change(inputs[0], make)


def timestamp() -> str:
    """Now, as the image specification writes it (RFC 3339, UTC)."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
