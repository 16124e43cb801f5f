"""For tests of builds: archives to build from, and what a script says in the image that was made."""

from __future__ import annotations

import io
import tarfile

from nbcontain.engine import Engine
from nbcontain.runtime.generate import RunOptions


def said(engine: Engine, script: str, image: str = "made") -> str:
    return str(engine.run(RunOptions(image=image, command=("sh", "-c", script), remove=True)).result())


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
