"""Putting right what `check` found. Nothing intact is destroyed: what is damaged is set aside, in quarantine/.

Under the store's exclusive lock. Each repair is one rename, or may be done twice: a repair that is
killed half-way is finished by the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import StoreError
from nbcontain.oci.image import REF_NAME, Descriptor, Layer
from nbcontain.store import files
from nbcontain.store.check import Check, Finding, recovered
from nbcontain.store.layout import FORMAT_VERSION
from nbcontain.store.store import OCI_LAYOUT
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.store.store import Store


def repair(store: Store, check: Check, findings: Sequence[Finding], unpack: Callable[[Sequence[Layer]], None]) -> None:
    """Put right what can be, in the order in which one thing rests on another. `unpack` makes snapshots of layers."""
    for finding in findings:
        match finding.meaning.remedy:
            case "close":
                files.set_mode(finding.path, 0o700)
            case "quarantine" if finding.kind != "snapshot-on-nothing":
                set_aside(store, finding.path)
            case "remove":
                store.overlays.remove_tree(finding.path)
            case "rewrite":
                _rewrite(store, check, finding)
            case _:
                pass
    _drop(store, findings)
    if any(finding.kind in ("snapshot-damaged", "snapshot-on-nothing", "layer-on-nothing") for finding in findings):
        _unpack_again(store, check, unpack)
    for finding in findings:
        if finding.kind == "snapshot-on-nothing" and not _stands(store, finding):
            set_aside(store, finding.path)


def set_aside(store: Store, path: Path) -> None:
    """Move it to quarantine/, under a name that says what it was. Idempotent."""
    files.make_directory(store.layout.quarantine)
    try:
        files.publish(path, store.layout.quarantine / f"{path.name}-{os.urandom(4).hex()}")
    except FileNotFoundError:
        return


def _rewrite(store: Store, check: Check, finding: Finding) -> None:
    layout = store.layout
    if finding.path == layout.version:
        files.replace(layout.version, f"{FORMAT_VERSION}\n".encode())
    elif finding.path == layout.oci_layout:
        files.replace(layout.oci_layout, OCI_LAYOUT, 0o644)
    elif finding.path == layout.index:
        # A copy is kept: people may find the names in it.
        files.make_directory(layout.quarantine)
        if layout.index.is_file():
            with open(layout.index, "rb") as damaged:
                files.replace(layout.quarantine / f"index.json-{os.urandom(4).hex()}", damaged.read(64 << 20))
        else:
            set_aside(store, layout.index)
        store.images.rebuild(_named(check.manifests()))
    else:
        files.make_directory(finding.path)


def _named(manifests: Iterable[Descriptor]) -> list[Descriptor]:
    return [replace(each, annotations={REF_NAME: recovered(each.digest)}) for each in manifests]


def _drop(store: Store, findings: Sequence[Finding]) -> None:
    """Take away the names of images that are not whole, and all but the last entry of a name."""
    bad = {each.digest for each in findings if each.meaning.remedy == "drop" and each.digest is not None}
    if bad:
        store.images.drop(bad)
    if any(finding.kind == "name-twice" for finding in findings):
        store.images.untwin()


def _unpack_again(store: Store, check: Check, unpack: Callable[[Sequence[Layer]], None]) -> None:
    for image in check.whole_images():
        if not store.snapshots.has_all(image.layers):
            try:
                unpack(image.layers)
            except StoreError:
                # Its blob is bad after all: the next full check says so.
                continue
    # Containers that were kept stand on them, and what is kept is on the disk first.
    store.snapshots.settle()


def _stands(store: Store, finding: Finding) -> bool:
    try:
        text = files.read(finding.path / "parent", 256).decode("ascii", "replace").strip()
    except (OSError, StoreError):
        return False
    return (finding.path.parent / text.partition(":")[2]).is_dir()
