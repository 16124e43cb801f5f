"""What it costs to have calls answered by a process: programs on the rungs that answer.

Ratios to the same program on the first rung of this user; as root that is one where the kernel answers everything.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.outcomes import RunResult
from nbcontain.runtime.generate import RunOptions

PROGRAMS = {
    "ls -lR": "ls -lR /usr /lib >/dev/null",
    "tar": "tar cf - /usr /lib /etc 2>/dev/null | cat >/dev/null",
    "cat of a tree": "for f in $(ls -d /usr/bin/* /lib/*/*.so*); do echo $f; done | xargs cat >/dev/null 2>&1",
    "100 programs": "n=0; while [ $n -lt 100 ]; do cat /dev/null; n=$((n+1)); done",
    "500 chown": "mkdir /t; cd /t; seq 500 > /list; xargs touch < /list; xargs chown 7:7 < /list",
}  # fmt: skip


def seconds(engine: Engine, script: str) -> float:
    """How long it takes, without what starting a container does."""
    run = RunOptions(image="host", command=("sh", "-c", f"date +%s%N; {script}; date +%s%N"), remove=True)
    result = engine.run(run).result()
    assert isinstance(result, RunResult)
    return (int(result.stdout.split()[-1]) - int(result.stdout.split()[0])) / 1e9


def main() -> None:
    """Measure every rung that this user can have: in turn, and the quickest of each, since machines are busy."""
    turns = int(sys.argv[1]) if sys.argv[1:] else 5
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_SCRATCH")) as root, Engine(root) as engine:
        began = time.perf_counter()
        _ = engine.profile
        print(f"finding out what can be had: {(time.perf_counter() - began) * 1000:.0f} ms")
        engine.from_host("host", ("xargs", "seq", "touch", "chown", "date", "tar")).result()
        engines = {engine.profile.name: engine}
        for rung in ("rootless-single", "root-noproc", "userns-chroot", "chroot"):
            with suppress(NbcontainError):
                other = engine.isolated(rung)
                engines[other.profile.name] = other
        best: dict[tuple[str, str], float] = {}
        for _ in range(turns):
            for (name, script), (rung, each) in product(PROGRAMS.items(), engines.items()):
                best[name, rung] = min(best.get((name, rung), 1e9), seconds(each, script))
        first, *others = engines
        print(f"{first:16}", *(f"{name} {best[name, first] * 1000:.0f} ms;" for name in PROGRAMS))
        for rung in others:
            print(f"{rung:16}", *(f"{name} ×{best[name, rung] / best[name, first]:.2f};" for name in PROGRAMS))


if __name__ == "__main__":
    main()
