"""How long it takes to list, name and look into 1,000 images and 1,000 containers, in a process that did so before.

`images`, `ps -a`, `tag` and `inspect` are the commands themselves, drawn as text, without what a terminal's process
takes to start; *after a change*, somebody else has just tagged an image. The peer is docker's whole client process over
as many images, where it is installed and this process is root: its start is counted too.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import heading, interleaved, private_disk, row

from nbcontain import Engine, RunOptions
from nbcontain.commands import parse_words
from nbcontain.display.table import Table

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "conformance")]

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
LIMITS_MS = {"images": 40, "images after a change": 40, "ps -a": 60, "tag": 5, "inspect an image": 5,
             "inspect a container": 5}  # fmt: skip


def command(engine: Engine, *words: str) -> Callable[[], None]:
    """A terminal's command, drawn; what it would print is not."""

    def run() -> None:
        found, options = parse_words("", words)
        value = found.function(engine, options)
        if isinstance(value, Table):
            assert len(value.text()) > 0
        else:
            repr(value)

    return run


def filled(engine: Engine, archive: Path) -> None:
    """The archive's images, and as many containers that were never started; --rm, so that none is synced."""
    _archive(archive)
    engine.archives.load(str(archive)).result()
    for number in range(COUNT):
        engine.create(RunOptions(image="many:0", name=f"c{number}", command=("true",), remove=True))


def main() -> None:
    """Print the table."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(private_disk())
        engine = stack.enter_context(Engine(disk / "store"))
        archive = disk / "many.tar"
        filled(engine, archive)
        tags = iter(range(1 << 30))

        def after_a_change() -> float:
            with Engine(disk / "store") as other:
                other.tag("many:7", f"again:{next(tags) % 3}")
            began = time.perf_counter()
            command(engine, "images")()
            return time.perf_counter() - began

        cases: dict[str, Callable[[], float | None]] = {
            "images": command(engine, "images"),
            "images after a change": after_a_change,
            "ps -a": command(engine, "ps", "-a"),
            "tag": lambda: command(engine, "tag", "many:5", f"other:{next(tags) % 3}")(),
            "inspect an image": command(engine, "image", "inspect", f"many:{COUNT // 2}"),
            "inspect a container": command(engine, "container", "inspect", f"c{COUNT // 2}"),
        }
        cases |= peers(disk, archive, stack)
        times = interleaved(ROUNDS, cases)
        heading(f"{COUNT} images, {COUNT} containers")
        for name, found in times.items():
            row(name, found, *([f"at most {LIMITS_MS[name]}"] if name in LIMITS_MS else []))


def peers(disk: Path, archive: Path, stack: contextlib.ExitStack) -> dict[str, Callable[[], float | None]]:
    """docker's and podman's listing of as many images."""
    if os.geteuid():
        return {}
    found: dict[str, Callable[[], float | None]] = {}
    import peers as others
    import pytest

    with contextlib.suppress(pytest.skip.Exception, others.Refused):
        tempfile.tempdir = str(disk)
        docker = stack.enter_context(others.docker(disk / "docker"))
        docker("load", "-q", "-i", str(archive))
        found["docker images (client process)"] = lambda: docker("images") and None
    return found


def _archive(path: Path) -> None:
    """A docker archive of as many images over one layer."""
    import hashlib
    import io
    import tarfile

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        add("layer.tar", layer.getvalue())
        manifest = []
        for number in range(COUNT):
            config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"number": str(number)}},
                      "rootfs": {"type": "layers", "diff_ids": [diff_id]}}  # fmt: skip
            add(f"{number}.json", json.dumps(config).encode())
            manifest.append({"Config": f"{number}.json", "RepoTags": [f"many:{number}"], "Layers": ["layer.tar"]})
        add("manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main()
