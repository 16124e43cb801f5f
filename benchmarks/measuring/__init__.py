"""How the benchmarks measure: on a disk of their own, in interleaved rounds, as ratios of one and the same round."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

DISK_BYTES = 8 << 30
WHERE = "NBCONTAIN_BENCH_DIR"
"""The environment's word for a directory on a journaled disk that has little else to do."""
# Compiled modules stay on disk, as they do where the package is installed: also for programs that are started with an
# environment that is put together before anything is measured.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Networks have a benchmark of their own; elsewhere their processes would hold the disk and run beside what is measured.
os.environ.setdefault("NBCONTAIN_NETWORK", "host")
# What is measured is this checkout, whatever is installed: whoever imports nbcontain does so after this.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

_QUIET_S = 0.02
_PATIENCE_S = 2.0


@contextmanager
def private_disk(size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A directory on a journaled ext4 of its own; only a temporary directory where this process may not mount.

    An ext4 without a journal, as virtual machines have, creates files many times slower for minutes after
    files were removed; and any other disk has others' writes to wait for. $NBCONTAIN_BENCH_DIR names a directory that
    is on such a disk already: then there is no file system in a file between, and each byte is written once.
    """
    if os.environ.get(WHERE):
        with _temporary(os.environ[WHERE]) as place:
            yield place
        return
    with _temporary(None) as place:
        directory = place / "disk"
        directory.mkdir()
        image = place / "disk.img"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        try:
            subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, stderr=subprocess.DEVNULL)
            subprocess.run(["mount", "-o", "loop", str(image), str(directory)], check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            print(f"no disk of its own (not root?): measured in {place}, take the ratios loosely")
            yield directory
            return
        try:
            yield directory
        finally:
            # Containers that just ended may take a moment to let go of it.
            for _ in range(50):
                _unmount_below(directory)
                if subprocess.run(["umount", str(directory)], stderr=subprocess.DEVNULL).returncode == 0:
                    break
                time.sleep(0.1)


@contextmanager
def _temporary(where: str | None) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="nbcontain-bench-", dir=where))
    try:
        yield place
    finally:
        _unmount_below(place)
        shutil.rmtree(place, ignore_errors=True)
        if place.exists():
            # A user's stores hold files of his subordinate ids, which are his in a user namespace only.
            subprocess.run(["unshare", "--map-root-user", "--map-auto", "rm", "-rf", str(place)], check=True)


def _unmount_below(directory: Path) -> None:
    """Take away what others have left mounted there, as podman does its storage over itself."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for place in reversed([line.split()[4] for line in lines]):
        if place.startswith(f"{directory.resolve()}/"):
            subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)


def interleaved(
    rounds: int, cases: Mapping[str, Callable[[], float | None]], disk: Path | None = None
) -> dict[str, list[float]]:
    """Milliseconds of each case in each round. A case gives its own seconds, or None to be timed from outside.

    The order rotates from round to round, each measurement waits for a quiet machine, and the first round is
    not counted. With a `disk`, each begins when all that the one before left to be written there is written: who
    returns before that, as docker does, would have the next one wait for it.
    """
    with suppress(OSError):
        os.nice(-10)
    names = list(cases)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if disk is not None:
                subprocess.run(["sync", "-f", str(disk)], check=True)
            wait_for_quiet()
            began = time.perf_counter()
            seconds = cases[name]()
            passed = time.perf_counter() - began
            if number:
                found[name].append((passed if seconds is None else seconds) * 1e3)
    return found


def ratio(times: Mapping[str, list[float]], name: str, yardstick: str) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(times[name], times[yardstick], strict=True))


def wait_for_quiet() -> bool:
    """Wait until the processors are idle for a moment; False if they never are."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        busy, total = _processor_time()
        time.sleep(_QUIET_S)
        busy_then, total_then = _processor_time()
        if busy_then - busy <= 0.1 * (total_then - total):
            return True
    return False


def _processor_time() -> tuple[int, int]:
    """Clock ticks of all processors: busy, and all (proc(5), /proc/stat)."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def row(label: str, times: list[float], *more: str) -> None:
    """One line of a table: median, best, worst, and what else there is to say."""
    median, best, worst = statistics.median(times), min(times), max(times)
    print(f"{label:<44}{median:>9.1f}{best:>9.1f}{worst:>9.1f}   {'   '.join(more)}")


def heading(label: str, unit: str = "ms") -> None:
    """The line above the rows."""
    print(f"{label:<44}{'median':>9}{'best':>9}{'worst':>9}   ({unit})")


def spawned(arguments: list[str]) -> None:
    """Run a program as a whole client process: vfork, exec, wait. Raises RuntimeError if it fails."""
    pid = os.posix_spawnp(arguments[0], arguments, os.environ)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
