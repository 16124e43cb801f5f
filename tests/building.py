"""For tests of builds: archives to build from, and what its steps and a script in the made image say."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any

from nbcontain.engine import Engine
from nbcontain.events import Output
from nbcontain.runtime.generate import RunOptions
from nbcontain.task import Task

Ran = Callable[..., str]
"""Builds `FROM box` with these lines, and gives what its steps say."""


def said(engine: Engine, script: str, image: str = "made") -> str:
    return str(engine.run(RunOptions(image=image, command=("sh", "-c", script), remove=True)).result())


def written(task: Task[Any]) -> str:
    """What the steps of a build that is over wrote, in order."""
    return b"".join(r.event.data for r in task.journal.read() if isinstance(r.event, Output)).decode()


def archive(*members: tuple[str, bytes | str], mode: str = "w") -> bytes:
    """Names with their bytes, or with where a symlink leads."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                made.addfile(info)
            else:
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
