"""`%nbcontain shim docker`: a program `docker` for `!docker` and %%bash cells, which is this notebook's engine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.store import files

_PROGRAM = "import sys; sys.path.append({path!r}); from nbcontain.__main__ import main; sys.exit(main())"


def install(engine: Engine, words: Sequence[str]) -> str:
    """Put it on the path of this process, or with --off take it away; gives what to tell. Raises UsageError."""
    if [*words] not in (["docker"], ["docker", "--force"], ["docker", "--off"]):
        raise UsageError("shim: what there is to be had is docker", hint="%nbcontain shim docker [--force|--off]")
    directory = engine.layout.root / "bin"
    paths = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each != str(directory)]
    if "--off" in words:
        os.environ["PATH"] = os.pathsep.join(paths)
        return "!docker is what it was"
    other = shutil.which("docker", path=os.pathsep.join(paths))
    if other is not None and "--force" not in words:
        raise UsageError(f"there is a docker already: {other}", hint="%nbcontain shim docker --force puts ours first")
    program = _PROGRAM.format(path=str(Path(__file__).resolve().parents[1]))
    script = (
        f"#!/bin/sh\nNBCONTAIN_ROOT={shlex.quote(str(engine.layout.root))} exec {shlex.quote(sys.executable)} -P -c "
        f'{shlex.quote(program)} "$@"\n'
    )
    files.make_directory(directory, 0o700, durable=False)
    files.replace(directory / "docker", script.encode(), 0o755, durable=False)
    os.environ["PATH"] = os.pathsep.join([str(directory), *paths])
    return "!docker and %%bash cells with docker in them now mean nbcontain's commands"
