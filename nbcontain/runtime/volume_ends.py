"""What becomes of a container's volumes and scratches when it runs again or has ended for good. Run by the supervisor.

Imported by it only where a container has any: most have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NbcontainError
from nbcontain.linux.idmap import IdMap
from nbcontain.oci.spec import Mount
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.calls import call_as_root, remove_as_root
from nbcontain.runtime.mount_points import SCRATCH, WORK
from nbcontain.store import files, removal
from nbcontain.store.layout import Layout
from nbcontain.store.volumes import Volumes

_LIMIT_BYTES = 8 << 20


def release(bundle: Bundle, ids: IdMap) -> None:
    """Remove the anonymous volumes of a container that is gone (--rm), but for those that others use."""
    layout = Layout(bundle.path.parent.parent)

    def remove_tree(path: Path) -> None:
        try:
            removal.remove_tree(path)
        except PermissionError:
            remove_as_root(ids, path, bundle.info.rung)

    volumes = Volumes(layout, remove_tree)
    for name in bundle.info.anonymous_volumes:
        with suppress(NbcontainError, OSError):
            # In use: it goes with its last user, or by a prune.
            volumes.remove(name, lambda name=name: users(layout, name))  # type: ignore[misc]


def users(layout: Layout, name: str) -> list[str]:
    """The containers whose records name a volume, by name."""
    return [container for container, names in _named(layout) if name in names]


def _named(layout: Layout) -> Iterator[tuple[str, set[str]]]:
    try:
        listing = os.listdir(layout.containers)
    except FileNotFoundError:
        return
    for container_id in listing:
        with suppress(OSError, ValueError, RecursionError, AttributeError, NbcontainError):
            document = json.loads(files.read(layout.container(container_id) / "container.json", _LIMIT_BYTES))
            yield str(document["name"]), {str(each.get("Name")) for each in document.get("mounts", ())}


def renew_scratches(bundle: Bundle, ids: IdMap) -> None:
    """Before a container runs again: what was written to its scratches is gone."""
    scratch = bundle.path / SCRATCH
    try:
        overlays = os.listdir(scratch)
    except FileNotFoundError:
        return
    # The kernel has its own directory in the work directory of what was mounted once.
    if any(os.listdir(scratch / each / "work") for each in overlays):
        call_as_root(ids, bundle.info.rung, WORK, "empty_scratch", (Mount("/", "bind", str(scratch), ("bind",)),), {})

