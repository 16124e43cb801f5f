"""What it costs to have calls answered by a process: programs on the rungs that answer.

Ratios to the same program on the first rung of this user; as root that is one where the kernel answers everything.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.outcomes import RunResult
from nbcontain.runtime.generate import RunOptions

PROGRAMS = {
    "ls -lR": "ls -lR /usr /lib >/dev/null",
    "cat of a tree": "for f in $(ls -d /usr/bin/* /lib/*/*.so*); do echo $f; done | xargs cat >/dev/null 2>&1",
    "100 programs": "n=0; while [ $n -lt 100 ]; do cat /dev/null; n=$((n+1)); done",
    "500 chown": "mkdir /t; cd /t; seq 500 > /list; xargs touch < /list; xargs chown 7:7 < /list",
}  # fmt: skip


def seconds(engine: Engine, script: str) -> float:
    """The quickest of three, without what starting a container takes."""
    found = []
    for _ in range(3):
        run = RunOptions(image="host", command=("sh", "-c", f"date +%s%N; {script}; date +%s%N"), remove=True)
        result = engine.run(run).result()
        assert isinstance(result, RunResult)
        first, last = map(int, (result.stdout.split()[0], result.stdout.split()[-1]))
        found.append((last - first) / 1e9)
    return min(found)


def main() -> None:
    """Measure every rung that this user can have."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("NBCONTAIN_SCRATCH")) as root, Engine(root) as engine:
        began = time.perf_counter()
        _ = engine.profile
        print(f"finding out what can be had: {(time.perf_counter() - began) * 1000:.0f} ms")
        programs = ("xargs", "seq", "touch", "chown", "date")
        engine.from_host("host", programs).result()
        native = {name: seconds(engine, script) for name, script in PROGRAMS.items()}
        print(f"{engine.profile.name:16}", *(f"{name} {took * 1000:.0f} ms;" for name, took in native.items()))
        for rung in ("rootless-single", "root-noproc", "userns-chroot", "chroot"):
            other = engine.isolated(rung)
            try:
                _ = other.profile
                ratios = {name: seconds(other, script) / native[name] for name, script in PROGRAMS.items()}
            except NbcontainError:
                continue
            print(f"{rung:16}", *(f"{name} ×{ratio:.2f};" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
