"""What containers cost while they run: a further program in one, many that start at once, and what they write.

*exec* is Engine.exec(…).result() in a warm process, against a C program that enters the same namespaces, forks and
executes. *50 at once* is as many detached containers from one warm process, each asked for by a thread of its own,
until all of them run; beside it podman's client processes, all at once, and bare clones in C. *Output* is what a
program writes as fast as it can, until all of it is in the journal and its container has ended, which waits for the
disk, since overlayfs writes out all that is dirty there when it is unmounted; and the same until the last of it is in
the journal. All of it is then read back. The *lag* is how long after it was written a follower has a line, while a
program writes 10,000 of them in a second.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from measuring import heading, interleaved, private_disk, ratio, row, spawned
from start import make_image

from nbcontain import Container, Engine, RunOptions
from nbcontain.events import Output
from nbcontain.runtime.generate import ExecOptions

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
AT_ONCE = 50
MEGABYTES = 512
EXEC_LIMIT, PODMAN_LIMIT, OUTPUT_LIMIT_MB, LAG_LIMIT_MS = 3.0, 5.0, 200, 20
LINES = 10_000
LIKE_OURS = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""podman raises limits otherwise, which not every machine allows."""
WRITER = f"i=0; while [ $i -lt {MEGABYTES // 16} ]; do cat /text; i=$((i+1)); done"
TELLER = "i=0; while [ $i -lt 100 ]; do cat /lines; i=$((i+1)); usleep 9000; done"
"""A hundred lines a hundredth of a second; what takes time besides makes it slower, never faster."""


def compiled(name: str, disk: Path) -> str:
    program = str(Path(tempfile.mkdtemp(dir=disk), name))
    subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name(f"{name}.c"))], check=True)
    return program


def of_exec(engine: Engine, disk: Path) -> None:
    sleeper = detached(engine, "sleeper", "sleep", "1000")
    options = ExecOptions(name="sleeper", command=("true",))
    nsexec = compiled("nsexec", disk)
    cases: dict[str, Callable[[], float | None]] = {
        "nsexec": lambda: spawned([nsexec, str(sleeper.pid), "/bin/true"]),
        "exec": lambda: engine.exec(options).result() and None,
    }
    try:
        times = interleaved(ROUNDS * 2, cases)
    finally:
        engine.remove_container(sleeper, force=True)
    row("nsexec (C: enter, fork, execute)", times["nsexec"])
    row("exec", times["exec"], f"{ratio(times, 'exec', 'nsexec'):.2f} x nsexec, at most {EXEC_LIMIT:.0f}")


def detached(engine: Engine, name: str, *command: str, volumes: tuple[str, ...] = ()) -> Container:
    options = RunOptions(
        image="busybox", command=command, name=name, detach=True, network="none", volumes=volumes
    )
    container = engine.run(options).result()
    assert isinstance(container, Container)
    return container


def of_many(engine: Engine, disk: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool, podman(disk) as peer:

        def ours() -> float:
            began = time.perf_counter()
            made = list(pool.map(lambda n: detached(engine, f"many{n}", "sleep", "1000"), range(AT_ONCE)))
            passed = time.perf_counter() - began
            list(pool.map(lambda each: engine.remove_container(each, force=True), made))
            return passed

        def theirs() -> float:
            words = [*peer, "run", "-d", *LIKE_OURS, "busybox", "sleep", "1000"]
            began = time.perf_counter()
            running = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(AT_ONCE)]
            assert not any(each.wait() for each in running)
            passed = time.perf_counter() - began
            subprocess.run([*peer, "rm", "-fa", "-t", "0"], check=True, stdout=subprocess.DEVNULL)
            return passed

        cases: dict[str, Callable[[], float | None]] = {"ours": ours, **({"podman": theirs} if peer else {})}
        times = interleaved(max(2, ROUNDS // 5), cases)
    beside = f"podman / ours {ratio(times, 'podman', 'ours'):.1f}, at least {PODMAN_LIMIT:.0f}" if peer else ""
    row(f"{AT_ONCE} detached at once", times["ours"], beside)
    if peer:
        row(f"podman: {AT_ONCE} run -d at once", times["podman"])


@contextmanager
def podman(disk: Path) -> Iterator[list[str]]:
    """podman's command with a store of its own that has the image; nothing where there is none, or for other users."""
    program = shutil.which("podman")
    if program is None or os.geteuid():
        yield []
        return
    # Its path may not be longer than 50 characters.
    runroot = tempfile.mkdtemp(prefix="bench-", dir="/run")
    words = [program, "--root", str(disk / "podman"), "--runroot", runroot, "--storage-driver",
             "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]  # fmt: skip
    if runc := shutil.which("runc"):
        # Debian's crun refuses machines that have both versions of control groups.
        words += ["--runtime", runc]
    busybox = shutil.which("busybox") or "/bin/busybox"
    with tempfile.TemporaryDirectory(dir=disk) as context:
        shutil.copy(busybox, Path(context, "sleep"))
        Path(context, "Dockerfile").write_text("FROM scratch\nCOPY sleep /bin/sleep\nENV PATH=/bin\n")
        done = subprocess.run([*words, "build", "-q", "-t", "busybox", context], capture_output=True, text=True)
        done = done if done.returncode else subprocess.run(
            [*words, "run", "--rm", *LIKE_OURS, "busybox", "sleep", "0"], capture_output=True, text=True
        )  # fmt: skip
    try:
        if done.returncode:
            print(f"podman does not run here: {done.stderr.strip()[-200:]}")
            yield []
            return
        yield words
    finally:
        # Whoever attended a container has podman clean up after it, and mount its storage for that, when it is gone.
        deadline = time.monotonic() + 10
        while is_named(runroot) and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(runroot, ignore_errors=True)


def is_named(word: str) -> bool:
    """Whether a process has been told of this."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in each.read_bytes():
                return True
    return False


def of_output(engine: Engine, disk: Path) -> None:
    rates, until_there, lags = [], [], []
    text = disk / "text"
    text.write_text("".join(f"a line of text as programs write them, number {n:08}\n" for n in range(1 << 18)))
    for _ in range(max(2, ROUNDS // 5)):
        began, began_at = time.perf_counter(), time.time()
        container = detached(engine, "writer", "sh", "-c", WRITER, volumes=(f"{text}:/text:ro",))
        container.wait()
        passed = time.perf_counter() - began
        kept, last_at = 0, 0.0
        for each in container.follow():
            if isinstance(each.event, Output):
                kept, last_at = kept + len(each.event.data), each.time
        assert kept == (MEGABYTES // 16) * text.stat().st_size, f"{kept} bytes"
        engine.remove_container(container, force=True)
        rates.append(kept / passed / 1e6)
        until_there.append(kept / (last_at - began_at) / 1e6)
        lags += lag(engine, disk)
    for what, found in (("output to the journal, nothing lost", rates), ("until the last of it is there", until_there)):
        middle = statistics.median(found)
        print(f"{what:<44}{middle:>9.0f}{max(found):>9.0f}{min(found):>9.0f}   MB/s, at least {OUTPUT_LIMIT_MB}")
    lags.sort()
    last = lags[int(len(lags) * 0.99)]
    row("lag of a follower", lags, f"99 of 100 lines within {last:.1f} ms, at most {LAG_LIMIT_MS}")


def lag(engine: Engine, disk: Path) -> list[float]:
    """Milliseconds from the journal's stamp of each piece of output to its arrival at a follower."""
    lines = disk / "lines"
    lines.write_text("".join(f"line {number:03} of a hundred\n" for number in range(100)))
    container = detached(engine, "teller", "sh", "-c", TELLER, volumes=(f"{lines}:/lines:ro",))
    found, told = [], 0
    for record in container.follow():
        if isinstance(record.event, Output):
            found.append((time.time() - record.time) * 1e3)
            told += record.event.data.count(b"\n")
    assert told == LINES, f"{told} lines of {LINES}"
    engine.remove_container(container, force=True)
    return found


def main() -> None:
    """Print the table."""
    with private_disk() as disk, Engine(disk / "store") as engine:
        make_image(engine, disk)
        heading("containers while they run")
        of_exec(engine, disk)
        of_many(engine, disk)
        of_output(engine, disk)


if __name__ == "__main__":
    main()
