"""What an idle detached container costs in memory, after the process that launched it has ended.

PSS of its supervisor (proc(5), smaps_rollup): pages that several processes share count in parts. One container
alone bears all; 50 are what docker's shim and conmon are measured with elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from measuring import private_disk

from nbcontain import BuildOptions, Engine

LIMIT_KB = 2700
LAUNCH = """
import sys
from nbcontain import Engine, RunOptions
with Engine(sys.argv[1]) as engine:
    for _ in range(int(sys.argv[2])):
        engine.run(RunOptions(image="idle", detach=True)).result()
"""


def pss_kb(pid: int) -> int:
    """A process' proportional set size."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def parent(pid: int) -> int:
    """Who waits for a process (proc(5), stat, field 4)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def main() -> None:
    """Print the table."""
    print(f"{'containers launched by one process':<44}{'KB each':>9}   at most {LIMIT_KB} of one")
    with private_disk() as disk, Engine(disk / "store") as engine:
        (disk / "context").mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", disk / "context" / "busybox")
        dockerfile = 'FROM scratch\nCOPY busybox /busybox\nCMD ["/busybox", "sleep", "1000"]\n'
        engine.build(dockerfile, BuildOptions(tags=("idle",), context=disk / "context")).result()
        engine.close()
        for count in (1, 5, 50):
            subprocess.run([sys.executable, "-c", LAUNCH, str(disk / "store"), str(count)], check=True)
            time.sleep(5)
            running = engine.containers()
            sizes = [pss_kb(parent(each.pid)) for each in running if each.pid]
            print(f"{count:<44}{sum(sizes) / len(sizes):>9.0f}")
            for each in running:
                engine.remove_container(each, force=True)


if __name__ == "__main__":
    main()
