"""Snapshots as overlayfs' layers: a container's changes are its upper directory, over those of its image."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.oci.codec import LAYER_LIMIT
from nbcontain.oci.digest import ChainID
from nbcontain.oci.spec import Mount
from nbcontain.store import files
from nbcontain.store.changes import is_untouched
from nbcontain.store.layout import Layout
from nbcontain.store.snapshots import Active, Changes, Snapshotter, bind, ledger_in
from nbcontain.store.whiteouts import is_opaque, opaque_xattr


class OverlaySnapshotter(Snapshotter):
    """Each snapshot is one layer. `userxattr` is for mounts in a user namespace (overlayfs.rst#userxattr)."""

    driver = "overlay"
    form = "overlay"

    def __init__(self, layout: Layout, remove_tree: Callable[[Path], None], userxattr: bool) -> None:
        super().__init__(layout, layout.overlays, remove_tree)
        self.userxattr = userxattr

    def chain(self, name: ChainID | None) -> tuple[Path, ...]:
        found: list[Path] = []
        xattr = opaque_xattr(userxattr=self.userxattr)
        while name is not None:
            directory = self._checked_to_hold(name)
            found.append(directory / "fs")
            if len(found) > LAYER_LIMIT:
                raise StoreError(f"more than {LAYER_LIMIT} layers under {found[0]}", why="the store is damaged")
            name = self.parent(name)
            if name is not None and is_opaque(os.fsencode(found[-1]), xattr):
                # Overlayfs does not look at a layer's root for this; so the stack ends here.
                break
        return tuple(found)

    def view(self, name: ChainID | None) -> tuple[Mount, ...]:
        match self.chain(name):
            case ():
                raise StoreError("an image without layers has nothing to show")
            case (only,):
                return bind(only, "ro")
            case lowers:
                return (self._overlay(lowers),)

    def scratch(self, name: ChainID, directory: Path) -> Mount:
        upper, work = directory / "upper", directory / "work"
        files.make_new_directory(upper, 0o755)
        files.make_new_directory(work)
        return self._overlay(self.chain(name), f"upperdir={upper}", f"workdir={work}")

    def is_untouched(self, active: Active, stubs: Collection[str]) -> bool:
        return is_untouched(self.upper(active), stubs)

    def changes(self, active: Active, stubs: Sequence[str], *, is_used: bool) -> Changes:
        if is_used:
            return Changes(bind(self.upper(active), "ro"), {"form": "overlay", "skip": list(stubs)})
        # To tell the directories that are here only since a stub was made in them.
        below = self.view(active.parent) if stubs and active.parent else ()
        arguments = {"form": "overlay", "stubs": list(stubs), "opens_root": True}
        return Changes(bind(self.upper(active), "rw"), arguments, below)

    def differences(self, active: Active) -> Changes:
        lowers = [f"/{lower.relative_to(self.shelf.root)}" for lower in self.chain(active.parent)]
        upper = f"/{self.upper(active).relative_to(self.shelf.root)}"
        return Changes(bind(self.shelf.root, "ro"), {"form": "overlay", "upper": upper, "lowers": lowers})

    def ledger(self, shown: Active | ChainID | None) -> bytes:
        directories = []
        if isinstance(shown, Active):
            directories.append(self.shelf.active(shown.key))
            shown = shown.parent
        directories += [each.parent for each in self.chain(shown)]
        return b"".join(ledger_in(each) for each in reversed(directories))

    def look(self, active: Active) -> tuple[Mount, ...]:
        upper, lowers = self.upper(active), self.chain(active.parent)
        return (self._overlay((upper, *lowers)),) if lowers else bind(upper, "ro")

    # --- inside ---

    def _begin(self, fs: Path, parent: ChainID | None) -> None:
        """A layer is unpacked into an empty directory."""

    def _furnish(self, directory: Path, parent: ChainID | None, *, for_programs: bool) -> bool:
        files.make_new_directory(f"{directory}/work")
        return False

    def _settle_under(self, directory: Path, parent: ChainID | None) -> None:
        self._settling.settle(each.parent for each in self.chain(parent))

    def _strip(self, directory: Path) -> None:
        self.remove_tree(directory / "work")

    def _active_mounts(self, directory: Path, parent: ChainID | None) -> tuple[Mount, ...]:
        lowers = self.chain(parent)
        if not lowers:
            return bind(directory / "fs", "rw")
        return (self._overlay(lowers, f"upperdir={directory}/fs", f"workdir={directory}/work"),)

    def _overlay(self, lowers: tuple[Path, ...], *more: str) -> Mount:
        # What the kernel turns on by itself would leave marks in the upper directory that are no OCI layer's.
        # With userxattr it knows that.
        options = ("userxattr",) if self.userxattr else ("redirect_dir=off", "metacopy=off", "index=off")
        return Mount("/", "overlay", "overlay", ("lowerdir=" + ":".join(map(str, lowers)), *more, *options))
