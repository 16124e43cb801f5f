"""Builds side by side with docker (BuildKit) and buildah: what a builder costs beside what it runs and copies.

Each with its store on one disk of their own, in interleaved rounds, as whole client processes; ours also in a process
that has built before, as a notebook's kernel has. Needs root, docker.io and buildah. What may be cached is made
invalid by --no-cache, so that docker, which sends only changed files, has the context already. None of them
waits for the disk: a row more says what docker takes until all is there. `python benchmarks/builds.py ROUNDS WORD…`
measures the cases that have one of these words in their name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import heading, interleaved, private_disk, ratio, row

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "conformance")]

import peers  # noqa: E402
import pytest  # noqa: E402

from nbcontain import BuildOptions, Engine  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
DISK_BYTES = 20 << 30
BIG_BYTES = 500_000_000
TEN = (
    "FROM base\nENV A=b\nLABEL c=d\n"
    + "".join(f"RUN echo {n} > /{n}\n" for n in range(6))
    + "COPY few /few\nCMD true\n"
)
TRUE = "FROM base\n" + "".join(f"RUN true {n}\n" for n in range(10))
FEW, MANY, BIG = "few", "many", "big"


class Bench:
    """The three builders on one disk."""

    def __init__(self, disk: Path, docker: peers.Docker, busybox: Path) -> None:
        self.disk, self.docker = disk, docker
        docker.import_base(busybox)
        self.buildah = peers.Buildah(disk / "buildah", busybox)
        (disk / "ours").mkdir()
        ours = peers.Ours(disk / "ours", busybox)
        self.engine: Engine = ours.engine
        self.contexts = {name: disk / f"context-{name}" for name in (FEW, MANY, BIG)}
        self._contexts()

    def _contexts(self) -> None:
        for name, count in ((FEW, 20), (MANY, 10_000)):
            top = self.contexts[name] / name
            for number in range(count):
                if number % 100 == 0:
                    (top / str(number // 100)).mkdir(parents=True, exist_ok=True)
                (top / str(number // 100) / f"{number}.txt").write_bytes(b"%1000d" % number)
        self.contexts[BIG].mkdir()
        with (self.contexts[BIG] / BIG).open("wb") as file:
            for _ in range(BIG_BYTES // 1_000_000):
                file.write(os.urandom(1_000_000))

    def _change(self, top: Path) -> None:
        """Make it content that no store has: what is there already would neither be stored nor be waited for."""
        file = top / "0" / "0.txt" if top.is_dir() else top
        with file.open("r+b") as changed:
            changed.write(os.urandom(16))

    def cases(self, text: str, context: str, *, cold: bool) -> dict[str, Callable[[], float | None]]:
        """One build by each; only the build itself is timed."""
        where = self.contexts[context]
        file = self.disk / f"Dockerfile.{abs(hash(text))}"
        file.write_text(text)
        flags = ["--no-cache"] if cold else []

        def timed(build: Callable[[], object]) -> Callable[[], float]:
            def run() -> float:
                if cold:
                    self._change(where / context)
                began = time.perf_counter()
                build()
                return time.perf_counter() - began

            return run

        options = BuildOptions(context=where, no_cache=cold, network="none")
        argv = [
            sys.executable,
            "-m",
            "nbcontain",
            "build",
            "-q",
            "--network",
            "none",
            "-f",
            str(file),
            *flags,
            str(where),
        ]
        env = dict(os.environ) | {"NBCONTAIN_ROOT": str(self.disk / "ours" / "store"), "PYTHONPATH": str(CHECKOUT)}

        def written_out() -> None:
            self.docker.build(where, file, "bench", *flags)
            peers._run(["sync", "-f", str(self.disk)])

        cases = {
            "here, warm kernel": timed(lambda: self.engine.build(text, options).result()),
            "here, terminal": timed(lambda: peers._run(argv, env)),
            "docker build": timed(lambda: self.docker.build(where, file, "bench", *flags)),
            "buildah bud": timed(lambda: self.buildah.build(where, file, "localhost/bench", "--layers", *flags)),
        }
        return cases | {"docker build, then sync": timed(written_out)} if context != FEW else cases


def main() -> None:
    """Print a table for each kind of build."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    with contextlib.ExitStack() as stack:
        try:
            if os.geteuid():
                raise peers.Refused("dockerd and buildah run only as root here")
            disk = stack.enter_context(private_disk(DISK_BYTES))
            tempfile.tempdir = str(disk)
            docker = stack.enter_context(peers.docker(disk / "docker"))
            bench = Bench(disk, docker, busybox)
        except (pytest.skip.Exception, peers.Refused) as why:
            print(f"skipped: {why}")
            return
        stack.callback(bench.engine.close)
        stack.callback(bench.buildah.close)
        words = sys.argv[2:]
        for label, text, context, cold, rounds in (
            ("ten instructions, all cached", TEN, FEW, False, ROUNDS),
            ("ten RUN true, cold", TRUE, FEW, True, ROUNDS),
            ("COPY of 10,000 files, cold", "FROM base\nCOPY many /many\n", MANY, True, max(3, ROUNDS // 2)),
            ("COPY of 500 MB, cold", "FROM base\nCOPY big /big\n", BIG, True, max(2, ROUNDS // 2)),
        ):
            if words and not any(word in label for word in words):
                continue
            times = interleaved(rounds, bench.cases(text, context, cold=cold), disk)
            heading(label)
            for name, found in times.items():
                more = (
                    []
                    if name == "here, warm kernel"
                    else [f"{ratio(times, name, 'here, warm kernel'):.1f}x warm kernel"]
                )
                row(name, found, *more)
            bench.engine.prune()
        tempfile.tempdir = None


if __name__ == "__main__":
    main()
