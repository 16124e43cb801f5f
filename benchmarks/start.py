"""What starting a container costs: from a warm kernel, from a cold one, and in memory.

The yardstick is `nsrun.c`, a C program that does the kernel work and nothing else. All rows are
interleaved in one run, and each figure is the median of the ratios round by round: read the ratios,
since the milliseconds depend on the machine and what else it does.

    python benchmarks/start.py [ROUNDS]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nbcontain import Engine, RunOptions
from nbcontain.runtime.container import Container

HERE = Path(__file__).resolve().parent
WARM_LIMIT, COLD_LIMIT_MS, MEMORY_LIMIT_KB = 2.5, 80.0, 5 * 1024


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def prepare(directory: Path) -> tuple[Path, Path]:
    """nsrun, compiled, and a directory with busybox in it; a tar of that beside it."""
    nsrun, root = directory / "nsrun", directory / "root"
    subprocess.run(["cc", "-O2", "-o", nsrun, HERE / "nsrun.c"], check=True)
    (root / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("busybox is not installed (Debian package busybox-static)")
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("true", "sh", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    with tarfile.open(directory / "root.tar", "w") as archive:
        archive.add(root, ".")
    return nsrun, root


def pss_kb(pid: int) -> int:
    """What a process has of its own in memory, with its share of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def supervisor_of(container: Container) -> int:
    """The parent of a container's first process."""
    stat = Path(f"/proc/{container.pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def main(rounds: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="nbcontain-bench-") as name:
        directory = Path(name)
        nsrun, root = prepare(directory)
        as_user = [] if os.geteuid() == 0 else ["-u"]

        def limit(*flags: str) -> float:
            words = [nsrun, *as_user, *flags, root, directory / "scratch", "/bin/true"]
            return timed(lambda: subprocess.run(words, check=True, close_fds=False))

        with Engine(directory / "store") as engine:
            engine.import_image(str(directory / "root.tar"), "busybox").result()

            def run(network: str, using: Engine = engine) -> float:
                options = RunOptions(image="busybox", command=("true",), remove=True, network=network)
                return timed(lambda: using.run(options).result())

            def cold() -> float:
                with Engine(directory / "store") as fresh:
                    fresh.host  # known since the first engine; not part of a start
                    return run("none", fresh)

            container = engine.run(RunOptions(image="busybox", command=("sleep", "1000"), detach=True)).result()
            assert isinstance(container, Container)

            def execute() -> float:
                return timed(lambda: container.exec(("true",)))

            rows: dict[str, list[float]] = {}
            for _ in range(rounds):
                for label, work in (
                    ("limit", lambda: limit("-n")),
                    ("limit, host network", limit),
                    ("run --rm, --network none", lambda: run("none")),
                    ("run --rm", lambda: run("host")),
                    ("run --rm, cold", cold),
                    ("exec", execute),
                ):
                    time.sleep(0.05)
                    rows.setdefault(label, []).append(work())
            memory = pss_kb(supervisor_of(container))
            container.kill(9)
            container.wait(10)

    def ratio(label: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(rows[label], rows[to], strict=True))

    print(f"{'':28} {'median ms':>10} {'min ms':>8} {'x limit':>8}")
    for label, times in rows.items():
        to = "limit, host network" if label in ("limit, host network", "run --rm") else "limit"
        print(f"{label:28} {statistics.median(times):10.1f} {min(times):8.1f} {ratio(label, to):8.2f}")
    over = statistics.median(c - w for c, w in zip(rows["run --rm, cold"], rows["run --rm, --network none"], strict=True))
    print(f"cold over warm {over:.1f} ms (limit {COLD_LIMIT_MS:.0f}); warm limit {WARM_LIMIT} x")
    print(f"supervisor of an idle container: {memory} kB PSS (limit {MEMORY_LIMIT_KB})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
