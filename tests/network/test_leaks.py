"""Thousands of containers that come and go, in all the ways there are: the machine is then as it was before."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lan import Lan, picture
from machine import Machine, is_small, supervisor_of, until
from nbcontain.commands.table import parse_words
from nbcontain.errors import NbcontainError
from nbcontain.networks import NetworkRequest
from rounds import SOAK, rounds

pytestmark = pytest.mark.timeout(20_000 if SOAK else 120)

WAYS = (
    "--network none", "--network lab -p 8080:80", "--network host", "", "-v kept:/data", "-v /anonymous",
    "--tmpfs /tmp --read-only", "--memory 64m --pids-limit 20", "--init", "-u app", "--log-driver none",
    "--health-cmd true --health-interval 1s", "--privileged", "--network container:anchor", "--stop-timeout 1",
    "--userns auto",
)
PROGRAMS = (("true",), ("false",), ("no-such",), ("sh", "-c", "kill -9 $$"), ("sh", "-c", "sleep 9 & exit 3"))
FAILURES = (
    "-u nobody-knows", "-w /etc/passwd", "-v /etc:/x:bad", "--sysctl kernel.no_such=1", "--device /dev/no-such",
    "--network no-such", "-p 99999:1", "--ip 10.250.250.250 --network lab", "--memory 1k", "--cap-add NO_SUCH",
    "--mount type=bind,src=/no/such,dst=/x", "--name anchor", "--entrypoint /no/such",
)
"""One for each stage of a start that can fail."""


def do(machine: Machine, *words: str) -> object:
    """A command's outcome, as in a terminal. Raises NbcontainError."""
    command, options = parse_words("", words)
    value = command.function(machine.engine, options)
    return value.task.result() if getattr(value, "task", None) is not None else value


def belongings(machine: Machine) -> dict[str, object]:
    """What there is of a store in the kernel and on the disk."""
    root = str(machine.engine.layout.root)
    processes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if root.encode() in Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes():
                processes.append(Path(f"/proc/{pid}/comm").read_text().strip())
    groups = [names for where, names, _ in os.walk("/sys/fs/cgroup") if where.endswith("/nbcontain")]
    return {
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if root in line],
        "networks": picture(),
        "processes": sorted(processes),
        "groups": sorted(name for names in groups for name in names if name in told),
        "runs": sorted(os.listdir(machine.engine.layout.network_sandboxes)),
        "left": machine.left(),
        "volumes": sorted(each.name for each in machine.engine.volumes),
    }


def descriptors() -> Iterator[str]:
    """What this process has open, but for the listing itself."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield re.sub(r"\[\d+\]", "", os.readlink(f"/proc/self/fd/{fd}"))


told: set[str] = set()
"""The ids of all containers that there were: others' groups are nobody's business here."""


def test_whatever_comes_and_goes_leaves_nothing(machine: Machine, lan: Lan) -> None:
    chance, engine = random.Random(12), machine.engine
    engine.networks.create(NetworkRequest(name="lab"))
    anchor = machine.start("echo ready; sleep 100000", name="anchor")
    told.add(anchor.id)

    def one(number: int) -> None:
        kind, turn = number % 6, number // 6
        if kind == 5:
            # All of them in three turns: so many there are in the suite.
            for failing in FAILURES[turn % 3 :: 3]:
                with pytest.raises(NbcontainError):
                    do(machine, "run", "--rm", *failing.split(), "box", "true")
            return
        name = f"n{number}"
        words = ("run", "--name", name, *chance.choice(WAYS).split())
        if kind < 4:
            with contextlib.suppress(NbcontainError):
                do(machine, *words, "--rm", "box", *chance.choice(PROGRAMS))
            return
        do(machine, *words, "-d", "box", "sleep", "60")
        told.add(engine.container(name).id)
        do(machine, "exec", name, "true")
        do(machine, "rm", "-f", "-v", name)

    def settled() -> dict[str, object]:
        engine.networks.settle()
        until(lambda: len(machine.left()) == 2)
        # Only then its words name the store: however long the rounds took, it is counted.
        until(lambda: is_small(supervisor_of(anchor.pid)))
        return belongings(machine)

    for number in rounds(60, 18):
        one(number)
    before, opened, size_kib = settled(), Counter(descriptors()), rss_kib()
    for number in rounds(10_000, 18):
        one(number)
    until(lambda: settled() == before, 10, lambda: str(changes(before, settled())))
    # Fewer may be: a container is not always ready beforehand.
    assert Counter(descriptors()) - opened == Counter()
    assert rss_kib() - size_kib < 20 * 1024
    print(f"\ngrown by {rss_kib() - size_kib} KiB")
    machine.clear()
    engine.networks.remove("lab")


def changes(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """What is not as it was."""
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def rss_kib() -> int:
    """What this process, which starts them all, holds."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
