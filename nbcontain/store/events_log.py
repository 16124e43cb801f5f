"""What happens to a store's containers, images, volumes and networks: docker's events, one JSON line each.

Anybody appends, in any process; a line is one write(2) at the end of the file, so that lines never mix. A line is kept
like all that the system has been told to write; it is not waited for until the disk has it, which would double what a
container's start takes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import StoreError
from nbcontain.store import files
from nbcontain.store.rotation import opened, rotated

SEGMENT_BYTES = 4 << 20
SEGMENTS = 4
"""So many files of that size are kept: some 60,000 events."""


def record(
    path: Path, kind: str, action: str, object_id: str, attributes: Mapping[str, str], now: float | None = None,
    then: str = "",
) -> None:  # fmt: skip
    """Append that `action` happened to an object, and `then` another one. A disk that takes no more, or is gone, keeps
    nobody from working.

    `path` is `layout.events`; `kind` is docker's Type (container, image, volume, network, builder), `action` docker's
    Action ("start", "exec_die", "health_status: healthy"), `now` seconds since the epoch.
    """
    nanoseconds = time.time_ns() if now is None else int(now * 1e9)
    actor = {"ID": object_id, "Attributes": dict(sorted(attributes.items()))}
    lines = b""
    for number, each in enumerate((action, then) if then else (action,), nanoseconds):
        event = {
            "Type": kind, "Action": each, "Actor": actor, "scope": "local", "time": number // 10**9, "timeNano": number,
        }  # fmt: skip
        lines += json.dumps(event, separators=(",", ":")).encode() + b"\n"
    with suppress(OSError, StoreError):
        fd = _held(path)
        try:
            os.write(fd, lines)
            if os.fstat(fd).st_size >= SEGMENT_BYTES:
                _rotate(path, fd)
        finally:
            os.close(fd)


def _held(path: Path) -> int:
    """The file to append to, which nobody puts aside meanwhile: a line in one that was would be read by nobody."""
    while True:
        try:
            fd = opened(path)
        except FileNotFoundError:
            # The first event of a store.
            files.make_directory(path.parent, durable=False)
            fd = opened(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _rotate(path: Path, fd: int) -> None:
    """By the last of those who write to it just now; if that goes wrong, by the next."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            os.close(rotated(path, SEGMENTS))
    except (OSError, StoreError):
        # Somebody else holds it, or the disk is full.
        return
