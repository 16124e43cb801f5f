"""Images that take a while to be made, and are not what a test is about: built once per checkout and Dockerfile."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def archive(name: str, dockerfile: str) -> Path:
    """Where the image of this Dockerfile is kept, or will be."""
    return CACHE / f"{name}-{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}.tar"


def provide(engine: Engine, name: str, dockerfile: str) -> None:
    """Let there be an image of this name: loaded where it was kept, else built and kept."""
    path = archive(name, dockerfile)
    if path.exists():
        engine.archives.load(str(path)).result()
        return
    with tempfile.TemporaryDirectory() as context:
        engine.build(dockerfile, BuildOptions(tags=(name,), context=Path(context))).result()
    path.parent.mkdir(exist_ok=True)
    # It appears whole, whoever else makes it now.
    engine.archives.save([name], str(path)).result()
