"""Directories of the tests' own: how they are removed, and how names in them take turns."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import needs


@contextmanager
def store_directory(scratch: str = "") -> Iterator[Path]:
    """A fresh directory for a store, where overlays work; ended and removed with all that runs in it."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=scratch or needs.scratch()))
    try:
        yield directory
    finally:
        with suppress(ImportError):
            from nbcontain.engine import Engine
            from nbcontain.errors import NbcontainError

            with Engine(directory) as engine:
                for container in engine.containers():
                    engine.remove_container(container, force=True)
                engine.serving.stop()
            shutil.rmtree(directory, ignore_errors=True)
            # Files of subordinate ids, which only an engine may remove.
            if directory.exists():
                with suppress(OSError, NbcontainError), Engine(directory) as engine:
                    engine.store.snapshots.remove_tree(engine.layout.snapshots)
        shutil.rmtree(directory, ignore_errors=True)


def remove(directory: Path) -> None:
    """Remove it whole. What a store still writes out in the background may come in between, but not for long."""
    for left in reversed(range(40)):
        try:
            shutil.rmtree(directory)
            return
        except OSError:
            if not directory.exists():
                return
            if not left:
                raise
            time.sleep(0.05)


@contextmanager
def taking_turns(directory: Path, name: str, other: str) -> Iterator[None]:
    """Two files of a directory change their names with each other all the time, on a thread beside."""
    one, two, aside = directory / name, directory / other, directory / "third"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for old, new in ((one, aside), (two, one), (one, two), (aside, one)):
                os.rename(old, new)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        done.set()
        swapper.join()
