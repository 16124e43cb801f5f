"""FROM, COPY --link and WORKDIR: file systems that are there already, laid on each other, and one directory more."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.build.graph import Base, MakeDirectory, StackLayers
from nbcontain.build.operations.workshop import Filesystem, Workshop, execute
from nbcontain.store.snapshots import Active


@execute.register
def _(operation: Base, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    return Filesystem(operation.image.layers if operation.image else ())


@execute.register
def _(operation: StackLayers, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    below, above = inputs
    return Filesystem((*below.layers, *above.layers))


@execute.register
def _(operation: MakeDirectory, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    if not workshop.can_enter:
        from nbcontain.build.operations.straight import with_directory

        return with_directory(operation, inputs, workshop)

    def make(active: Active) -> Sequence[str]:
        with workshop.ledger(active) as ledger:
            arguments = {"path": operation.path, "user": operation.user, "ledgers": list(range(len(ledger)))}
            workshop.launcher.call("make_directory", active.mounts, arguments, ledger)
        return ()

    return workshop.change(inputs[0], make)
