"""Deaths, reused pids, orphans, floods of output and reboots, again and again: nothing foreign is touched or left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machine import SLEEP, Machine, children_of, inside_of, is_running, said, supervisor_of, until
from nbcontain.engine import Engine
from nbcontain.errors import ContainerError
from nbcontain.events import Notice, Output
from nbcontain.runtime.container import Container
from rounds import SOAK, rounds

pytestmark = pytest.mark.timeout(7200 if SOAK else 120)


def mounts_of(machine: Machine) -> list[str]:
    """What this machine's own processes see mounted of a store."""
    root = str(machine.engine.layout.root)
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if root in line]


def groups_of(container: Container) -> list[str]:
    """The control groups that are named after a container."""
    found = []
    for where, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{where}/{name}" for name in names if container.id in name]
    return found


@pytest.mark.parametrize("victims", [("supervisor",), ("init",), ("supervisor", "init")], ids=" and ".join)
def test_who_is_killed_takes_all_along_and_how_it_ended_is_told(machine: Machine, victims: tuple[str, ...]) -> None:
    chance = random.Random(10)
    for number in rounds(100, 2):
        limits = {"memory": "64m"} if number % 2 else {}
        script = f"sleep 4242 & (trap '' TERM; exec sleep 4243) & {SLEEP}"
        container = machine.start(script, name="doomed", **limits)
        pid = container.pid
        assert pid is not None
        space, pids = os.readlink(f"/proc/{pid}/ns/pid"), {"init": pid, "supervisor": supervisor_of(pid)}
        time.sleep(chance.random() * 0.02)
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        until(lambda: not container.is_active, 2)  # noqa: B023 - asked here
        until(lambda: inside_of(space) == [] and not is_running(pids["supervisor"]), 10)  # noqa: B023 - asked here
        if victims == ("init",):
            assert (container.status, container.wait(2)) == ("exited", 137)
        elif container.status == "lost":
            with pytest.raises(ContainerError):
                container.wait(1)
        else:
            # It may have been told of init's end a moment before its own.
            assert container.wait(1) == 137
        assert mounts_of(machine) == []
        machine.engine.remove_container(container)
        assert groups_of(container) == []


@pytest.fixture
def reusing() -> Iterator[None]:
    """Where pids can be chosen (ns_last_pid): what is tested is run in a pid namespace of its own."""
    if os.geteuid():
        pytest.skip("only root may say which pid is next")
    yield


REUSE = """
import contextlib, os, signal, subprocess, sys, time
from pathlib import Path
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.handles import Container
from nbcontain.runtime.generate import RunOptions

def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def begun(pid):
    # When it began: another helper of ours may have its number at once, since that is asked for below.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]

def taking(pid):
    # Another program that has exactly this pid; None where a helper of ours, which was forked just then, has got it.
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        victim = subprocess.Popen(["sleep", "1000"])
        if victim.pid == pid:
            return victim
        victim.kill()
        victim.wait()

missed, wanted = 0, int(sys.argv[2])
with Engine(sys.argv[1]) as engine:
    for number in range(2 * wanted):
        if number - missed == wanted:
            break
        told = RunOptions(image="box", detach=True, command=("sh", "-c", "echo ready; exec sleep 100"), name="old")
        engine.run(told).result()
        held = engine.container("old")
        pid = held.pid
        supervisor = parent_of(pid)
        both = {each: begun(each) for each in (pid, supervisor)}
        os.kill(supervisor, signal.SIGKILL)
        # Nobody waits for them here but their parents, of which we are the last.
        while any(begun(each) == then for each, then in both.items()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.001)
        victims = [taking(pid), taking(supervisor)]
        if None in victims:
            missed += 1
            for each in filter(None, victims):
                each.kill()
                each.wait()
            engine.remove_container(held, force=True)
            continue
        for act in (lambda: held.stop(1), lambda: held.kill(9), lambda: held.exec(["true"]), lambda: held.stats(),
                    lambda: held.top(), lambda: held.pause(), lambda: engine.containers(["status=running"])):
            with contextlib.suppress(NbcontainError):
                assert not act(), act
        assert held.status == "lost", held.status
        engine.remove_container(engine.container("old"), force=True)
        ends = [each.poll() for each in victims]
        assert ends == [None, None], (number, ends, [each.pid for each in victims], pid, supervisor)
        for each in victims:
            state = Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state in "SR", state  # on a busy machine it may still be beginning
            each.kill()
            each.wait()
assert missed < wanted, "no pid could be taken"
print("unharmed")
"""


def test_who_has_got_a_dead_containers_pid_is_not_touched(machine: Machine, reusing: None) -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", REUSE]
    count = len(rounds(200, 2))
    ended = subprocess.run([*words, str(machine.engine.layout.root), str(count)], capture_output=True, text=True)
    assert ended.stdout == "unharmed\n", ended.stderr[-2000:]


def zombies_of(parent: int) -> int:
    """How many children of a process are dead and not waited for."""
    return list(children_of(parent).values()).count("Z")


@pytest.mark.parametrize("init", [True, False], ids=["init", "no init"])
def test_orphans_by_the_thousand_are_nobodys_zombies_with_init_and_none_of_ours_without(
    machine: Machine, init: bool
) -> None:
    number = len(rounds(10_000, 300))
    # Whoever is in the way of a shell that waits: exec'd, so that pid 1 without --init knows of no children.
    made = f"i=0; while [ $i -lt {number} ]; do i=$((i+1)); (true & ) ; done"
    container = machine.start(f"echo ready; sh -c '{made}'; echo made; exec sleep 600", init=init)
    until(lambda: b"made" in b"".join(each.event.data for each in container.output()), 600)  # type: ignore[union-attr]
    pid = container.pid
    assert pid is not None
    # Init's predecessor is one for 20 ms, until it is looked for once more (`runtime.remains`).
    until(lambda: zombies_of(supervisor_of(pid)) == 0, 1)
    if init:
        until(lambda: zombies_of(pid) == 0, 10)
    container.kill(9)
    assert container.wait(30) == 137


def test_a_storm_of_further_programs_leaves_nothing(machine: Machine) -> None:
    container = machine.start(SLEEP)
    pid = container.pid
    assert pid is not None
    machine.execute(container, "true")
    supervisor = supervisor_of(pid)
    before, space = len(os.listdir(f"/proc/{supervisor}/fd")), os.readlink(f"/proc/{pid}/ns/pid")
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: machine.execute(container, "sh", "-c", f"exit {n % 7}")[0], rounds(1000, 40)))
    assert codes == [n % 7 for n in rounds(1000, 40)]
    until(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= before, 10)
    assert zombies_of(supervisor) == 0
    until(lambda: len(inside_of(space)) <= 2, 10)


def test_a_flood_of_output_is_rotated_and_every_follower_has_it_without_gaps(machine: Machine) -> None:
    size_mb, kept_mb = (1024, 10) if SOAK else (24, 1)
    lines = size_mb * 1024 * 1024 // 64
    container = machine.start(
        "trap go=1 USR1; echo ready; while [ ! $go ]; do sleep 0.05; done; "
        f"awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%063d\\n\", i }}'",
        log_opts=(f"max-size={kept_mb}m", "max-file=3"),
    )
    pid = container.pid
    assert pid is not None
    supervisor, peaks, listening = supervisor_of(pid), [], threading.Semaphore(0)

    def follow(_: int) -> tuple[int, int, int]:
        """The last number, how often some were missing and that was told, and how often it was not."""
        last, told, untold, is_told, rest = 0, 0, 0, False, b""
        for record in container.follow():
            if isinstance(record.event, Notice):
                is_told, told, rest = True, told + 1, b""
            if not isinstance(record.event, Output):
                continue
            if record.event.data == b"ready\n":
                listening.release()
                continue
            *whole, rest = (rest + record.event.data).split(b"\n")
            for line in whole:
                # The first one after a gap may be the end of a line.
                if len(line) == 63 and line.isdigit():
                    untold += int(line) != last + 1 and not is_told
                    last, is_told = int(line), False
        return last, told, untold

    def watch() -> None:
        while container.is_active:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{supervisor}/status").read_text()
                peaks.append(int(status.partition("VmRSS:")[2].split()[0]))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(5) as pool:
        following = pool.map(follow, range(5))
        # What was written and rotated away before somebody came is no gap.
        assert all(listening.acquire(timeout=30) for _ in range(5))
        os.kill(pid, signal.SIGUSR1)
        ends = list(following)
    watcher.join()
    assert container.wait(5) == 0
    assert [(last, untold) for last, _, untold in ends] == [(lines, 0)] * 5
    assert max(peaks) < 40 * 1024
    kept = [each for each in os.listdir(container.bundle.path) if each.startswith("journal.jsonl")]
    assert 1 < len(kept) <= 3
    print(f"\nflood of {size_mb} MB: gaps, all told of, {[told for _, told, _ in ends]}; peak {max(peaks)} KiB")


def test_after_a_reboot_everything_is_as_policies_and_flags_say(machine: Machine) -> None:
    """Every supervisor is dead, whatever it was about, and nobody has written anything down."""
    for _ in rounds(50, 1):
        running = machine.start(SLEEP, name="running")
        paused = machine.start(SLEEP, name="paused")
        stopping = machine.start("trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done", name="stopping")
        always = machine.start(SLEEP, name="always", restart="always")
        forgotten = machine.start(SLEEP, name="forgotten", remove=True)
        machine.engine.container("paused").pause()
        ender = subprocess.Popen(
            [sys.executable, "-m", "nbcontain", "stop", "-t", "30", "stopping"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)},
        )  # fmt: skip
        until(lambda: "asked" in said(stopping))  # noqa: B023 - asked here
        every = (running, paused, stopping, always, forgotten)
        for pid in [supervisor_of(each.pid) for each in every]:
            os.kill(pid, signal.SIGKILL)
        ender.wait(30)
        until(lambda: not any(each.is_active for each in every), 5)  # noqa: B023 - asked here
        with Engine(machine.engine.layout.root) as booted:
            assert [each.name for each in booted.life.boot()] == ["always"]
            told = {each.name: each.status for each in booted.containers()}
        assert told == {"running": "lost", "paused": "lost", "stopping": "lost", "always": "running"}
        machine.clear()
