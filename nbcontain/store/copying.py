"""Snapshots as whole trees, where no overlay can be mounted: on another overlay, on NFS, under old kernels.

Committed ones share the files that are the same, as hard links: nobody ever writes into them. What a container
writes to is a copy, by reference where the file system can. What was changed in it is found by looking at every
file: see `tree_index`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from nbcontain.errors import StoreError
from nbcontain.linux.boot import boot_id
from nbcontain.oci.digest import ChainID
from nbcontain.oci.spec import Mount
from nbcontain.store import files, parents
from nbcontain.store.layout import Layout
from nbcontain.store.rooted_links import ROOTED, RootedLinks
from nbcontain.store.settling import Witness
from nbcontain.store.snapshots import OWNERS, Active, Changes, Snapshotter, bind, ledger_in

INDEX = "index"
_PATH_BYTES = 4096
Shown = Callable[[], tuple[bytes, ...] | None]
"""For whom trees are prepared: programs to whom alone they are the root, and these paths the machine's; else None."""


class CopyTree(Protocol):
    """Copies the tree `source` into the empty directory `target`; with an `index`, writes there what it made.

    `linked` makes hard links of the files. All of them are in the directory `root`. Symlinks are kept as `links` says.
    Gives whether no device is among what it made.
    """

    def __call__(
        self, root: Path, source: Path, target: Path, index: Path | None, *, linked: bool,
        links: RootedLinks | None = None,
    ) -> bool: ...  # fmt: skip


class CopySnapshotter(Snapshotter):
    """Each snapshot is all the files of its stack."""

    driver = "copy"
    form = "tree"

    def __init__(
        self, layout: Layout, remove_tree: Callable[[Path], None], copy_tree: CopyTree, shown: Shown = lambda: None
    ) -> None:
        super().__init__(layout, layout.trees, remove_tree)
        self._copy_tree, self._shown = copy_tree, shown

    def publish(self, directory: Path, name: ChainID, witness: Witness | None = None) -> bool:
        files.make_directory(self.shelf.actives)
        return super().publish(directory, name, witness)

    def prepare(
        self, key: str, parent: ChainID | None, *, durable: bool = False, for_programs: bool = True
    ) -> Active:
        files.make_directory(self.shelf.actives)
        return super().prepare(key, parent, durable=durable, for_programs=for_programs)

    def chain(self, name: ChainID | None) -> tuple[Path, ...]:
        if name is None:
            return ()
        directory = self._checked_to_hold(name)
        parents.read(directory)
        return (directory / "fs",)

    def view(self, name: ChainID | None) -> tuple[Mount, ...]:
        if name is None:
            raise StoreError("an image without layers has nothing to show")
        [tree] = self.chain(name)
        return bind(tree, "ro")

    def scratch(self, name: ChainID, directory: Path) -> Mount:
        made = directory / "copy"
        files.make_new_directory(made, 0o755)
        self._copy(name, made, None, linked=False)
        return bind(made, "rw")[0]

    def is_untouched(self, active: Active, stubs: Collection[str]) -> bool:
        return False

    def changes(self, active: Active, stubs: Sequence[str], *, is_used: bool) -> Changes:
        if is_used:
            return self._compared(active, "ro", {"skip": list(stubs)})
        return self._compared(active, "rw", {"stubs": list(stubs)})

    def differences(self, active: Active) -> Changes:
        return self._compared(active, "ro", {})

    def ledger(self, shown: Active | ChainID | None) -> bytes:
        if isinstance(shown, Active):
            return ledger_in(self.shelf.active(shown.key))
        return b"" if shown is None else ledger_in(self.shelf.snapshot(shown))

    def look(self, active: Active) -> tuple[Mount, ...]:
        return bind(self.upper(active), "ro")

    def rooted(self, active: Active) -> dict[str, object]:
        try:
            base = files.read(self.shelf.active(active.key) / ROOTED, _PATH_BYTES)
        except FileNotFoundError:
            return {}
        return {"rooted": os.fsdecode(base)}

    def commit(self, active: Active, name: ChainID) -> None:
        if self.rooted(active):
            # Its links are no image's: the layer is unpacked once somebody asks for it.
            self.discard(active)
        else:
            super().commit(active, name)

    # --- inside ---

    def _compared(self, active: Active, access: str, arguments: dict[str, object]) -> Changes:
        root = bind(self.upper(active), access)
        arguments = {**self.rooted(active), **arguments}
        if active.parent is None:
            return Changes(root, {"form": "tree", **arguments})
        index = self.shelf.active(active.key) / INDEX
        found = (index,) if index.exists() else ()
        told = {"form": "tree", "index": len(found), "boot": boot_id(), **arguments}
        return Changes(root, told, self.view(active.parent), found)

    def _begin(self, fs: Path, parent: ChainID | None) -> None:
        if parent is not None:
            self._copy(parent, fs, None, linked=True)
            self._copy_ledger(parent, fs.parent)

    def _furnish(self, directory: Path, parent: ChainID | None, *, for_programs: bool) -> bool:
        links = None
        if for_programs and (shown := self._shown()) is not None:
            base = os.fsencode(os.path.realpath(directory / "fs"))
            links = RootedLinks(base, shown)
            files.write_new(directory / ROOTED, base)
        if parent is None:
            return True
        is_plain = self._copy(parent, directory / "fs", directory / INDEX, linked=not for_programs, links=links)
        self._copy_ledger(parent, directory)
        return is_plain

    def _copy(
        self, name: ChainID, target: Path, index: Path | None, *, linked: bool, links: RootedLinks | None = None
    ) -> bool:
        [source] = self.chain(name)
        return self._copy_tree(self._layout.root, source, target, index, linked=linked, links=links)

    def _copy_ledger(self, parent: ChainID, directory: Path) -> None:
        if lines := ledger_in(self.shelf.snapshot(parent)):
            files.write_new(directory / OWNERS, lines)

    def _settle_under(self, directory: Path, parent: ChainID | None) -> None:
        files.sync_filesystem(directory)

    def _strip(self, directory: Path) -> None:
        files.unlink(directory / INDEX)

    def _active_mounts(self, directory: Path, parent: ChainID | None) -> tuple[Mount, ...]:
        self.chain(parent)
        return bind(directory / "fs", "rw")
