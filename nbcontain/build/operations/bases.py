"""FROM, COPY --link and WORKDIR: file systems that are there already, laid on each other, and one directory more."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.build.graph import Base, MakeDirectory, StackLayers
from nbcontain.build.operations.workshop import Filesystem, Workshop, cache_key, execute, key_of, stack_of
from nbcontain.oci.digest import Digest
from nbcontain.store.snapshots import Active


@cache_key.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return None


@execute.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    return Filesystem(operation.image.layers if operation.image else ())


@cache_key.register
def _(operation: StackLayers, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return None


@execute.register
def _(operation: StackLayers, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    below, above = inputs
    return Filesystem((*below.layers, *above.layers))


@cache_key.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Digest | None:
    return key_of("mkdir", stack_of(inputs[0]), operation.path, operation.user)


@execute.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    workshop.require("WORKDIR")

    def make(active: Active) -> Sequence[str]:
        with workshop.ledger(active) as ledger:
            arguments = {"path": operation.path, "user": operation.user, "ledgers": list(range(len(ledger)))}
            workshop.launcher.call("make_directory", active.mounts, arguments, ledger)
        return ()

    return workshop.change(inputs[0], make)
