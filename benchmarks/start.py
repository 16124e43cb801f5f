"""How long `run --rm IMAGE true` takes, against a C program that does the same work of the kernel.

*warm* is Engine.run(…).result() in a process whose zygote stands ready, from the call until the exit code
and all output are there; the container's directories are removed meanwhile, or just after it.
*cold* is the same in a fresh process, whose zygote has to be started: counted are the store's opening, the
profile (its facts are on disk), the start of the zygote with its imports, and the run. Not counted are the
start of that process and `import nbcontain`, which imports.py measures.
*nsrun* is the whole client process, from vfork to wait, with a writable layer made and removed.
*limited* is the same with limits of memory and processes, beside `crun run` of a bundle with the same limits, the
container's directory as it is for its root, and no overlay.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import heading, interleaved, private_disk, ratio, row, spawned

from nbcontain import BuildOptions, Engine, RunOptions

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
NETWORKS = ("none", "host")
WARM_LIMIT = 2.0
COLD_LIMIT_MS = 80
LIMITED: dict[str, Any] = {"memory": "64m", "pids_limit": 50}
HIDDEN = """
controllers=/sys/fs/cgroup/unified/cgroup.controllers
[ ! -e $controllers ] || mount --bind /dev/null $controllers
exec "$@"
"""
LOOP = """
import sys, time
from measuring import spawned
for _ in sys.stdin:
    began = time.perf_counter()
    spawned(sys.argv[1:])
    print(time.perf_counter() - began, flush=True)
"""
BUSYBOX = """
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
"""
COLD = """
import sys, time
from nbcontain import Engine, RunOptions
began = time.perf_counter()
with Engine(sys.argv[1]) as engine:
    engine.run(RunOptions(image="busybox", command=("true",), remove=True, network=sys.argv[2])).result()
    print(time.perf_counter() - began)
"""


def make_image(engine: Engine, scratch: Path) -> Path:
    """An image of busybox alone, and its only layer as a directory for nsrun."""
    context = scratch / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", context / "busybox")
    engine.build(BUSYBOX, BuildOptions(tags=("busybox",), context=context)).result()
    return context


@contextmanager
def crun(disk: Path) -> Iterator[Callable[[], float] | None]:
    """Runs a bundle with the limits of LIMITED once, and gives the seconds; None where there is no crun.

    In a mount namespace where version 2 has no controllers: crun refuses machines that have both versions otherwise.
    """
    if shutil.which("crun") is None or os.geteuid():
        yield None
        return
    bundle = disk / "bundle"
    (bundle / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", bundle / "rootfs" / "bin" / "true")
    subprocess.run(["crun", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["process"].pop("rlimits", None)
    config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    (bundle / "config.json").write_text(json.dumps(config))
    words = ["crun", "--root", str(disk / "crun"), "--cgroup-manager=cgroupfs", "run", "-b", str(bundle), "bench"]
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-c", HIDDEN, "sh"]
    command = [*inside, sys.executable, "-c", LOOP, *words]
    here = Path(__file__).parent
    with subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loop:
        asking, answers = loop.stdin, loop.stdout
        assert asking is not None and answers is not None

        def once() -> float:
            print(file=asking, flush=True)
            return float(answers.readline())

        yield once


def main() -> None:
    """Print the table."""
    with private_disk() as disk, crun(disk) as peer, Engine(disk / "store") as engine:
        make_image(engine, disk)
        program = str(Path(tempfile.mkdtemp(dir=disk), "nsrun"))
        subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name("nsrun.c"))], check=True)
        lowers = ":".join(map(str, engine.store.snapshots.chain(engine.image("busybox").chain_id)))

        def nsrun(*flags: str) -> Callable[[], None]:
            return lambda: spawned([program, *flags, lowers, str(disk / "scratch"), "/bin/true"])

        def warm(network: str) -> Callable[[], None]:
            options = RunOptions(image="busybox", command=("true",), remove=True, network=network)
            return lambda: engine.run(options).result() and None

        def limited() -> None:
            engine.run(RunOptions(image="busybox", command=("true",), remove=True, network="none", **LIMITED)).result()

        def cold(network: str) -> Callable[[], float]:
            script = [sys.executable, "-c", COLD, str(disk / "store"), network]
            return lambda: float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)

        user = [] if engine.host.is_root else ["-u"]
        cases: dict[str, Callable[[], float | None]] = {}
        for network in NETWORKS:
            net = [*user, *(["-n"] if network == "none" else [])]
            cases |= {
                f"nsrun {network}": nsrun(*net),
                f"nsrun {network}, only /proc mounted": nsrun("-p", *net),
                f"warm {network}": warm(network),
                f"cold {network}": cold(network),
            }
        if peer is not None:
            cases |= {"limited": limited, "crun": peer}
        times = interleaved(ROUNDS, cases)

    heading("start and end of /bin/true")
    for network in NETWORKS:
        yardstick = f"nsrun {network}"
        least = f"{yardstick}, only /proc mounted"
        warm_ratio = ratio(times, f"warm {network}", yardstick)
        over = statistics.median(a - b for a, b in zip(times[f"cold {network}"], times[yardstick], strict=True))
        row(yardstick, times[yardstick])
        row(least, times[least])
        row(
            f"warm {network}", times[f"warm {network}"], f"{warm_ratio:.2f} x nsrun, at most {WARM_LIMIT}",
            f"({ratio(times, f'warm {network}', least):.2f} x with only /proc)",
        )  # fmt: skip
        row(f"cold {network}", times[f"cold {network}"], f"{over:.0f} ms over nsrun, at most {COLD_LIMIT_MS}")
    if "crun" in times:
        row("warm none, limited", times["limited"], f"{ratio(times, 'crun', 'limited'):.2f} x as fast as crun")
        row("crun run, the same limits", times["crun"])


if __name__ == "__main__":
    main()
