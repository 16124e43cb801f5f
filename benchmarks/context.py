"""Build contexts: 100 MB in 20,000 files that did not change, and COPY of many small files and of one large one.

`cp -a` of the same files is the yardstick: it copies once, COPY also names the content and makes a layer of it.
BuildKit takes six times as long as `cp -a` for the small files, and five times for the large one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from pathlib import Path

from measuring import heading, interleaved, private_disk, ratio, row, spawned

from nbcontain import BuildOptions, Engine
from nbcontain.build.context import ContentCache, Context, Wanted

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
LIMIT_MS = 150
LIMITS = {"10,000 files": 3.1, "500 MB": 1.66}
"""As ratios to cp -a: half of BuildKit's for the small ones, a third for the large one."""


def tree(root: Path, directories: int, files: int, size_bytes: int) -> Path:
    """So many directories with so many files each."""
    for number in range(directories):
        (root / f"{number}").mkdir(parents=True)
        for each in range(files):
            (root / f"{number}" / f"{each}").write_bytes(os.urandom(size_bytes))
    return root


def main() -> None:
    """Print the table."""
    with private_disk(8 << 30) as disk, Engine(disk / "store") as engine:
        unchanged = tree(disk / "unchanged", 200, 100, 5_000)
        copied = {"10,000 files": tree(disk / "small", 100, 100, 700), "500 MB": tree(disk / "large", 1, 1, 500 << 20)}
        time.sleep(2.1)  # what changed a moment ago is not trusted
        cache = ContentCache()

        def check() -> None:
            Context(unchanged, cache).digest(Wanted((".",)))

        check()
        heading("context of 100 MB in 20,000 files, unchanged")
        times = interleaved(ROUNDS, {"check": check})["check"]
        row("checked", times, f"{statistics.median(times):.0f} ms, at most {LIMIT_MS}")
        engine.warm()
        for name, source in copied.items():

            def copy(source: Path = source) -> float:
                started = time.monotonic()
                options = BuildOptions(context=source, no_cache=True)
                engine.build("FROM scratch\nCOPY . /d/\n", options).result()
                took_s = time.monotonic() - started
                for key, _ in list(engine.store.cache.walk()):
                    engine.store.cache.remove(key)
                engine.prune()
                return took_s

            def cp(source: Path = source) -> None:
                shutil.rmtree(disk / "copy", ignore_errors=True)
                spawned(["cp", "-a", str(source), str(disk / "copy")])

            times_of = interleaved(ROUNDS, {"cp": cp, "copy": copy}, disk)
            heading(f"COPY of {name}")
            row("cp -a", times_of["cp"])
            row("COPY", times_of["copy"], f"{ratio(times_of, 'copy', 'cp'):.1f} ×, at most {LIMITS[name]}")


if __name__ == "__main__":
    main()
