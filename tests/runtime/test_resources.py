"""Limits that hold: memory, processors and processes of a container, looking at them, changing them, and pausing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from machine import SLEEP, Machine, until
from nbcontain import resources
from nbcontain.engine import Engine
from nbcontain.errors import ContainerError, ContainerFailed, NotRunning, SetupFailed, UsageError
from nbcontain.linux.cgroups import PARENT, Tree
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.resources import LimitOptions, limits_of
from nbcontain.store.stacks import Stacks

BUSY = "trap 'exit 3' TERM; echo ready; while :; do :; done"


@pytest.fixture
def roots(machine: Machine) -> list[Path]:
    """Where groups of ours are; the end of the test where this user gets none."""
    tree = Tree.here(is_root=machine.engine.host.is_root)
    if not machine.engine.host.is_root:
        pytest.skip("no group is handed over to this user")
    return sorted({*tree.first.values(), *([tree.second] if tree.second else [])})


def groups(roots: list[Path]) -> set[str]:
    return {
        each.name for root in roots if (root / PARENT).is_dir() for each in (root / PARENT).iterdir() if each.is_dir()
    }


def test_a_limit_of_processes_holds_and_nothing_is_left(machine: Machine, roots: list[Path]) -> None:
    script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; true"
    assert machine.exit_code("sh", "-c", script, pids_limit=10) != 0
    assert machine.exit_code("sh", "-c", script.replace("30", "5"), pids_limit=10) == 0
    assert groups(roots) == set()


def test_what_is_told_no_limit_of_processes_has_the_usual_one(machine: Machine, roots: list[Path]) -> None:
    engine = Engine(machine.engine.layout.root, {**os.environ, "NBCONTAIN_PIDS_LIMIT": "77"})
    with engine:
        made = [engine.create(RunOptions(image="box", command=("true",), pids_limit=n)) for n in (None, 5, -1)]
        limits = [each.to_dict()["HostConfig"]["PidsLimit"] for each in made]
        assert limits == [77, 5, -1]
        assert engine.run(RunOptions(image="box", command=("true",), remove=True)).result()
        engine.environ = {"NBCONTAIN_PIDS_LIMIT": "many"}
        with pytest.raises(UsageError, match="NBCONTAIN_PIDS_LIMIT=many"):
            engine.create(RunOptions(image="box", command=("true",)))


def test_too_much_memory_is_told_as_such(machine: Machine, roots: list[Path]) -> None:
    with pytest.raises(ContainerFailed, match="137") as error:
        machine.run("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1", memory="16m")
    assert "no memory left" in error.value.why and "--memory" in error.value.hint
    container = machine.start(
        "echo ready; sleep 0.1; dd if=/dev/zero of=/dev/null bs=100M count=1; exit 7", memory="16m"
    )
    assert container.wait(10) == 7
    container.settle()
    assert container.state().oom_killed
    # As the kernel counts it: nobody has looked at the right moment.
    assert 15 << 20 < container.state().memory_peak <= 16 << 20
    assert groups(roots) == set()


def test_no_processors_are_no_limit_as_with_docker() -> None:
    assert limits_of(RunOptions(image="box", cpus="0")) == limits_of(RunOptions(image="box"))
    with pytest.raises(UsageError, match=r"not between 0.01"):
        limits_of(RunOptions(image="box", cpus="-1"))


def test_a_further_program_is_limited_with_the_others(machine: Machine, roots: list[Path]) -> None:
    container = machine.start(SLEEP, memory="16m")
    assert machine.execute(container, "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")[0] == 137
    assert container.status == "running"
    container.stop(2)
    assert container.state().oom_killed


FIRST_ONLY = {
    "memory.swappiness": ("10", {"memory_swappiness": 10}),
    "memory.oom_control oom_kill_disable": ("1", {"memory": "64m", "oom_kill_disable": True}),
    "cpu.rt_runtime_us": ("2000", {"cpu_rt_runtime": 2000, "cpu_rt_period": 500_000}),
}


@pytest.mark.parametrize("file", FIRST_ONLY)
def test_limits_that_only_version_1_has_hold_there_and_are_refused_elsewhere(
    machine: Machine, roots: list[Path], file: str
) -> None:
    (wanted, options), tree = FIRST_ONLY[file], Tree.here(is_root=True)
    root = tree.first.get(file.partition(".")[0])
    if root is None:
        with pytest.raises(SetupFailed, match="version 2"):
            machine.start(SLEEP, **options)
    elif not (root / file.partition(" ")[0]).exists() and "rt_" in file:
        with pytest.raises(SetupFailed, match="this kernel has no"):
            machine.start(SLEEP, **options)
    else:
        container = machine.start(SLEEP, **options)
        assert str(machine.engine.resources.group(container).number(file)) == wanted
        found = container.to_dict()["HostConfig"]
        assert found["MemorySwappiness"] == options.get("memory_swappiness")
        assert found["OomKillDisable"] == options.get("oom_kill_disable")
        assert found["CpuRealtimeRuntime"] == options.get("cpu_rt_runtime", 0)
        kept = container.bundle.spec.linux.resources
        machine.engine.resources.update(container, LimitOptions(memory="128m", cpu_shares=100))
        now = container.bundle.spec.linux.resources
        assert all(now[name].keys() >= kept[name].keys() for name in ("memory", "cpu") if name in kept)
        assert now["memory"]["limit"] == 128 << 20


@pytest.mark.parametrize(("options", "why"), [
    ({"memory_swappiness": 101}, "between 0 and 100"), ({"oom_kill_disable": True}, "needs --memory"),
    ({"cpu_rt_runtime": 2_000_000}, "more than --cpu-rt-period"),
    ({"blkio_weight_device": ("/dev/null:100",)}, "no disk"),
    ({"blkio_weight_device": ("/dev/sda:5",)}, "no device and weight"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_made(
    machine: Machine, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        machine.run("true", **options)


def test_processors_are_shared_out(machine: Machine, roots: list[Path]) -> None:
    container = machine.start(BUSY, cpus="0.2", cpuset_cpus="0")
    assert machine.execute(container, "grep", "Cpus_allowed_list", "/proc/1/status")[1].split()[1] == "0"
    usage = lambda: machine.engine.resources.sample([container]).get(container)  # noqa: E731
    began, before = time.monotonic(), usage()
    time.sleep(1)
    after = usage()
    assert before and after
    assert (after.cpu_s - before.cpu_s) / (time.monotonic() - began) < 0.35


def test_limits_are_those_of_the_next_start_too(machine: Machine, roots: list[Path]) -> None:
    container = machine.start(SLEEP, memory="64m")
    for _ in range(2):
        # Between two sleeps of its shell's, and before the first, there is one process.
        until(lambda: machine.engine.resources.look([container])[0].after.pids == 2)
        assert machine.engine.resources.look([container])[0].after.memory_limit == 64 << 20
        machine.engine.restart(container, 1)
        until(lambda: container.status == "running")


def test_limits_are_changed_while_it_runs(machine: Machine, roots: list[Path]) -> None:
    container = machine.start(SLEEP)
    (look,) = machine.engine.resources.look([container])
    assert look.after.memory_limit is None and look.after.memory > 0
    machine.engine.resources.update(container, LimitOptions(memory="32m", pids_limit=20))
    machine.engine.resources.update(container, LimitOptions(memory="256m"))
    (look,) = machine.engine.resources.look([container])
    assert look.after.memory_limit == 256 << 20
    machine.engine.restart(container, 1)
    script = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done"
    assert machine.execute(container, "sh", "-c", script)[0] != 0
    with pytest.raises(UsageError, match="which limit"):
        machine.engine.resources.update(container, LimitOptions())


def test_whoever_may_pause_nothing_is_told_so(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    try:
        machine.engine.resources.pause(container)
    except SetupFailed as error:
        assert "nothing can be paused here" in str(error) and error.why and error.hint.startswith("start it as root")
        assert not container.is_paused
    else:
        machine.engine.resources.unpause(container)


def test_a_paused_container_does_nothing_until_it_goes_on(machine: Machine, roots: list[Path]) -> None:
    container = machine.start("while :; do date +%s%N; sleep 0.02; done")
    resources = machine.engine.resources
    resources.pause(container)
    assert container.is_paused and container.status == "running"
    time.sleep(0.1)
    written = len(list(container.output()))
    time.sleep(0.2)
    assert len(list(container.output())) == written
    with pytest.raises(ContainerError, match="paused already"):
        resources.pause(container)
    resources.unpause(container)
    until(lambda: len(list(container.output())) > written)
    with pytest.raises(ContainerError, match="not paused"):
        resources.unpause(container)
    resources.pause(container)
    machine.engine.stop(container, 0.2)
    assert container.status == "exited" and not container.is_paused
    # Whoever asked for it, everybody hears of it.
    heard = machine.engine.events.between("0", filters=["event=pause", "event=unpause"], follow=False)
    assert [each["Action"] for each in heard if each][:3] == ["pause", "unpause", "pause"]
    with pytest.raises(NotRunning):
        resources.pause(container)


def test_a_container_stands_still_while_it_is_committed(
    machine: Machine, roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = machine.start("while :; do date +%s%N; sleep 0.02; done")
    until(lambda: len(list(container.output())) > 2)
    seen: list[bool] = []
    pack = Stacks.pack_copy

    def watched(*args: Any) -> Any:
        seen.append(container.is_paused)
        return pack(*args)

    monkeypatch.setattr(Stacks, "pack_copy", watched)
    machine.engine.archives.commit(container, "still", pause=True).result()
    assert seen == [True] and not container.is_paused
    written = len(list(container.output()))
    until(lambda: len(list(container.output())) > written)
    machine.engine.resources.pause(container)
    machine.engine.archives.commit(container, "still", pause=True).result()
    assert container.is_paused
    machine.engine.remove_container(container, force=True)


def test_a_paused_container_can_be_removed(machine: Machine, roots: list[Path]) -> None:
    container = machine.start(SLEEP)
    machine.engine.resources.pause(container)
    machine.engine.remove_container(container, force=True)
    assert groups(roots) == set()


def test_who_gets_no_group_hears_why(profile: str, machine: Machine) -> None:
    if profile == "root":
        pytest.skip("root gets one")
    with pytest.raises(SetupFailed) as error:
        machine.run("true", memory="64m")
    assert "limit" in error.value.message and error.value.hint.startswith("start it without the limit")
    assert machine.left() == []


def test_what_others_use_can_be_looked_at_without_groups(profile: str, machine: Machine) -> None:
    container = machine.start(BUSY)
    (look,) = machine.engine.resources.look([container])
    assert look.after.pids == 1 and look.after.memory > 0 and look.cpu_percent > 5
    container.stop(1)
    assert machine.engine.resources.look([container]) == []
    assert os.path.exists(container.bundle.path)


def test_the_terminal_tells_of_memory_and_of_all_power(machine: Machine, roots: list[Path]) -> None:
    def told(*words: str) -> str:
        command = [sys.executable, "-m", "nbcontain", "run", "--rm", *words]
        environment = os.environ | {"NBCONTAIN_ROOT": str(machine.engine.layout.root)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False).stderr

    assert "no memory left" in told("-m", "16m", "box", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    assert "privileged: nothing protects this machine" in told("--privileged", "box", "true")
    assert told("box", "true") == ""


def test_where_namespaces_are_hidden_a_containers_processes_are_the_heirs_of_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in gVisor of 2022, where a namespace has another number each time that one looks."""
    own, numbers = os.stat, count(1)

    def stat(path: Any, **words: Any) -> Any:
        return SimpleNamespace(st_ino=next(numbers)) if str(path).endswith("/ns/pid") else own(path, **words)

    monkeypatch.setattr(resources.os, "stat", stat)
    script = "sleep 60 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        try:
            assert resources._Processes().of(first.pid) == sorted([first.pid, child])
        finally:
            os.kill(child, signal.SIGKILL)
    assert resources._Processes().of(first.pid) == []
