"""Kernels that are killed and cells that are interrupted, again and again: what is detached lives on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels import BUSYBOX_CELL, Kernel
from machine import children_of, supervisor_of, until
from nbcontain.engine import Engine
from rounds import SOAK, share

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not SOAK, reason="once is tested in test_kernels.py; NBCONTAIN_SOAK=1 does it by the hundred"),
]
COUNTING = "i=0; while :; do for each in 1 2 3 4 5; do echo $i; i=$((i+1)); done; sleep 0.1; done"
NAMES = ("one", "two", "three", "four", "five")
SLOW_BUILD = '%%dockerfile -t never --no-cache\nFROM box\nRUN ["sh", "-c", "echo built; sleep 9"]'
CELLS = ("%container run --rm box sleep 9", SLOW_BUILD, "%container logs -f one",
         "%%container run --rm box\nsleep 9", "%container exec one sleep 9", "%container stats one")  # fmt: skip


def begun(kernel: Kernel) -> Kernel:
    """With an image, and five containers that count."""
    kernel.check(BUSYBOX_CELL)
    for name in NAMES:
        kernel.check(f'%container run -d --name {name} box sh -c "{COUNTING}"')
    return kernel


def test_containers_live_on_whenever_their_kernel_is_killed(start_kernel: Callable[..., Kernel], root: Path) -> None:
    kills = share(range(200))
    kernel, chance, slowest_s = begun(start_kernel()), random.Random(8 + kills[0]), 0.0
    for turn in range(len(kills)):
        if turn % 40 == 39:
            # Their logs are read from the beginning in every round.
            kernel.check(f"%container rm -f {' '.join(NAMES)}")
            begun(kernel)
        attached = kernel.start(f'%container run --rm --name tied box sh -c "{COUNTING}"')
        kernel.wait_for(lambda: "1" in attached.stdout)  # noqa: B023 - asked here
        time.sleep(chance.random() * 0.05)
        # All of its group, as a terminal that is closed does, or an administrator.
        os.killpg(os.getpgid(kernel.pid), signal.SIGKILL)
        kernel.close()
        kernel = start_kernel()
        began = time.monotonic()
        listed = kernel.check("%container ps").text
        slowest_s = max(slowest_s, time.monotonic() - began)
        assert all(name in listed for name in NAMES)
        with Engine(root) as engine:
            until(lambda: "tied" not in [each.name for each in engine.containers()], 10)  # noqa: B023
            for name in NAMES:
                held = engine.container(name)
                numbers = [int(line) for line in held.logs()]
                assert held.status == "running" and numbers == list(range(len(numbers)))
    print(f"\n{len(kills)} kernels killed; all found again within {slowest_s:.2f} s")
    kernel.check(f"%container rm -f {' '.join(NAMES)}")


def test_an_interrupted_cell_ends_within_two_seconds_and_harms_nobody(
    start_kernel: Callable[..., Kernel], root: Path
) -> None:
    numbers = share(range(500))
    kernel, chance, slowest_s = begun(start_kernel()), random.Random(9 + numbers[0]), 0.0
    with Engine(root) as engine:
        supervisors = [supervisor_of(engine.container(name).pid) for name in NAMES]
        for number in numbers:
            cell = kernel.start(CELLS[number % len(CELLS)])
            # Also before anything has begun, but not before the kernel has taken it up.
            kernel.wait_for(lambda: cell.outputs or cell.is_busy)  # noqa: B023 - asked here
            time.sleep(chance.random() * 0.3)
            began = time.monotonic()
            kernel.interrupt()
            kernel.finish(cell, 10)
            slowest_s = max(slowest_s, time.monotonic() - began)
            until(lambda: sorted(each.name for each in engine.containers()) == sorted(NAMES), 5)
            assert kernel.check("6 * 7").text.strip() == "42"
        assert [supervisor_of(engine.container(name).pid) for name in NAMES] == supervisors
        assert "never" not in [str(name) for name, _ in engine.images()]
    assert "Z" not in children_of(kernel.pid).values()
    print(f"\n{len(numbers)} cells interrupted; the slowest end took {slowest_s:.2f} s")
    kernel.check(f"%container rm -f {' '.join(NAMES)}")
