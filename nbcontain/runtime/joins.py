"""Namespaces and memory of another container, found when a container starts. Everything here runs in the supervisor.

A pid may be somebody else's by the time that it is used: what was opened counts only if the donor's first process still
began when its record says.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NbcontainError, SetupFailed
from nbcontain.linux.starts import start_time
from nbcontain.oci.spec import Linux, Spec
from nbcontain.runtime import stage
from nbcontain.runtime.annotations import JOINS
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.namespaces import FLAGS, flags_of
from nbcontain.values import replace


def of(spec: Spec) -> dict[str, str]:
    """The ids of the containers whose namespaces are joined, by the namespaces' names."""
    words = spec.annotations.get(JOINS, "")
    return dict(word.partition("=")[::2] for word in words.split(",") if word)


def resolved(bundle: Bundle, spec: Spec) -> Linux:
    """The spec's namespaces with those of other containers as they are now. Raises SetupFailed if one does not run."""
    paths = dict(spec.linux.paths)
    for name, container_id in of(spec).items():
        donor = _running(bundle.path.parent / container_id, name)
        paths[name] = f"/proc/{donor.state().pid}/ns/{name}"
    return replace(spec.linux, paths=paths)


def check(bundle: Bundle, spec: Spec) -> None:
    """Whether what was opened by those paths is theirs: they run still. Raises SetupFailed."""
    for name, container_id in of(spec).items():
        _running(bundle.path.parent / container_id, name)


def _running(path: Path, what: str) -> Bundle:
    donor = Bundle(path)
    # It may end while it is looked at.
    with suppress(OSError, ValueError, NbcontainError):
        state = donor.state()
        if donor.is_alive() and state.status == "running" and start_time(state.pid) == state.pid_start:
            return donor
    try:
        name = donor.info.name
    except (OSError, ValueError, NbcontainError):
        name = path.name[:12]
    raise SetupFailed(
        f"cannot join {what.upper()} of a non running container: {name}", hint=f"%container start {name} first"
    )


def tree_of(container: str, path: str, attributes: int) -> int:
    """A detached copy of the memory that is mounted at `path` in another container, with MOUNT_ATTR_… `attributes`.

    `container` is the path of its bundle. Raises SetupFailed.
    """
    donor = _running(Path(container), "ipc")
    pidfd = os.pidfd_open(donor.state().pid)
    try:
        _running(donor.path, "ipc")
        flags = flags_of(donor.spec.linux.namespaces, FLAGS["user"] | FLAGS["mount"])
        return stage.tree_inside(pidfd, flags, path, attributes)
    finally:
        os.close(pidfd)
