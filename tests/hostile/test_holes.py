"""Small ways out and views in that were open once (E14, E9): the reaper's words, life after the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from machine import SLEEP, Machine, supervisor_of, until
from nbcontain.linux.starts import start_time


def test_the_reaper_shows_nothing_of_the_host(machine: Machine) -> None:
    container = machine.start(SLEEP, init=True)
    script = (
        "tr -d '\\0' < /proc/1/cmdline; for f in environ maps; do cat /proc/1/$f 2>&1; done; ls -l /proc/1/exe 2>&1"
    )
    said = machine.execute(container, "sh", "-c", script)[1]
    assert said.startswith("nbcontain-init")
    assert "/usr" not in said and "python" not in said and "memfd" not in said
    assert said.count("ermission denied") == 3


def test_an_orphan_is_ended_before_anything_else_uses_its_layer(machine: Machine) -> None:
    """A program that cleared its PR_SET_PDEATHSIG, played by a process of ours that the state names."""
    container = machine.start(SLEEP)
    supervisor = supervisor_of(container.pid)
    state = container.state()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: container.status == "lost")
    orphan = subprocess.Popen(["sleep", "60"])
    other = subprocess.Popen(["sleep", "60"])
    try:
        container.bundle.write_state(replace(state, pid=orphan.pid, pid_start=start_time(orphan.pid)))
        machine.engine.start(container)
        assert orphan.wait(5) == -signal.SIGKILL
        assert container.status == "running"
        # One whose number is somebody else's by now is left alone.
        os.kill(supervisor_of(container.pid), signal.SIGKILL)
        until(lambda: container.status == "lost")
        container.bundle.write_state(replace(state, pid=other.pid, pid_start=start_time(other.pid) - 1))
        machine.engine.remove_container(container)
        assert other.poll() is None
    finally:
        for process in (orphan, other):
            process.kill()
            process.wait()


def test_the_heat_of_processors_is_hidden(machine: Machine, tmp_path: Path) -> None:
    script = "for d in /sys/devices/system/cpu/cpu*/thermal_throttle; do test -d $d && ls -A $d; done; true"
    assert machine.sh(script) == ""


@pytest.mark.parametrize("count", [1, 40])
def test_many_directories_are_hidden_by_one_empty_one(machine: Machine, tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "secret").touch()
    words = "mask=" + ":".join(f"/data/d{number}" for number in range(count))
    script = "find /data -name secret; touch /data/d0/new 2>&1"
    seen = machine.sh(script + "; true", volumes=(f"{tmp_path}:/data",), security_opt=(words,))
    assert "secret" not in seen and "Read-only" in seen


@pytest.mark.of_mounts
@pytest.mark.parametrize("place", ["/dev/disk", "/disk", "/dev/shm/disk", "/tmp/disk"])
def test_a_node_that_is_made_inside_opens_nothing(machine: Machine, place: str) -> None:
    """With CAP_MKNOD one may make nodes; what they stand for is the machine's."""
    number = os.stat("/dev/kmsg").st_rdev
    script = f"mknod {place} c {os.major(number)} {os.minor(number)} && echo made; "
    script += f"dd if={place} of=/dev/null bs=1 count=1 2>&1; echo x > /dev/null"
    seen = machine.sh(script, cap_add=("MKNOD",), tmpfs=("/tmp",))
    assert seen.startswith("made\n") and "Permission denied" in seen
