"""Restart policies and health checks: docker's meanings, kept by the supervisor alone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from machine import SLEEP, Machine, said, supervisor_of, until
from nbcontain.errors import ContainerError, UsageError
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.restarts import Policy, delay_s

COUNT = "echo run; n=$(wc -l < /log 2>/dev/null || echo 0); echo x >> /log; "


def health(container: Container) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((container.bundle.path / "health.json").read_text())
    except FileNotFoundError:
        return {"Status": "none", "Log": []}
    return found


def runs_anew(container: Container, first: int | None) -> bool:
    """Whether it runs with another first process: told by one look, for between two it may have ended."""
    now = container.state()
    return now.status == "running" and now.pid != first


# --- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "count", "again"),
    [
        ("no", 1, 0, False), ("always", 0, 99, True), ("always", 1, 0, True), ("unless-stopped", 0, 5, True),
        ("on-failure", 0, 0, False), ("on-failure", 3, 1000, True), ("on-failure:2", 3, 1, True),
        ("on-failure:2", 3, 2, False), ("on-failure:0", 3, 2, True),
    ],
)  # fmt: skip
def test_a_policy_is_dockers(text: str, code: int, count: int, again: bool) -> None:
    assert Policy.parse(text).restarts(code, count) is again


def test_the_delay_doubles_to_a_minute_and_a_long_run_forgets_it() -> None:
    delays = [0.0]
    for _ in range(12):
        delays.append(delay_s(delays[-1], 1.0))
    assert delays[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert delay_s(25.6, 10.0) == 0.1
    assert delay_s(25.6, 9.9) == 51.2


@pytest.mark.parametrize("text", ["sometimes", "always:3", "on-failure:x", "on-failure:-1"])
def test_a_policy_that_makes_no_sense_is_refused(machine: Machine, text: str) -> None:
    with pytest.raises(UsageError, match="--restart"):
        machine.engine.create(RunOptions(image="box", restart=text))


def test_a_container_that_is_forgotten_cannot_be_started_again(machine: Machine) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        machine.engine.create(RunOptions(image="box", restart="always", remove=True))


def test_on_failure_starts_it_again_until_it_succeeds(profile: str, machine: Machine) -> None:
    began = time.monotonic()
    container = machine.start(COUNT + "[ $n -ge 2 ] && exit 0; exit 7", restart="on-failure")
    until(lambda: container.status == "exited")
    assert (container.state().exit_code, container.state().restart_count) == (0, 2)
    assert said(container).count("run") == 3
    assert time.monotonic() - began >= 0.1 + 0.2


def test_on_failure_gives_up_after_so_many_times(machine: Machine) -> None:
    container = machine.start(COUNT + "exit 7", restart="on-failure:2")
    until(lambda: container.status == "exited")
    assert (container.state().exit_code, container.state().restart_count) == (7, 2)
    assert said(container).count("run") == 3


def test_between_two_runs_it_is_restarting_and_a_stop_ends_that(machine: Machine) -> None:
    container = machine.start("echo run; exit 5", restart="always")
    until(lambda: container.state().restart_count >= 2)
    until(lambda: container.status == "restarting" and container.pid is None)
    machine.engine.stop(container, 1)
    assert (container.status, container.state().exit_code) == ("exited", 5)
    count = container.state().restart_count
    time.sleep(0.5)
    assert (container.status, container.state().restart_count) == ("exited", count)
    assert not container.bundle.is_alive()


def test_stop_and_kill_end_a_policy_and_a_crash_does_not(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, restart="always")
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: runs_anew(container, first))
    assert container.state().restart_count == 1
    until(lambda: said(container).count("ready") == 2)
    machine.engine.stop(container, 5)
    assert (container.status, container.state().exit_code) == ("exited", 3)
    machine.engine.start(container)
    assert container.state().restart_count == 0
    until(lambda: said(container).count("ready") == 3)
    container.kill(signal.SIGKILL)
    assert container.wait(30) == 137
    time.sleep(0.3)
    assert container.status == "exited"


def test_a_signal_that_ends_nothing_leaves_the_policy_alone(machine: Machine) -> None:
    container = machine.start("trap 'exit 4' HUP; echo ready; while :; do sleep 0.05; done", restart="on-failure")
    container.kill(signal.SIGHUP)
    until(lambda: container.state().restart_count == 1 and container.status == "running")


def test_everybody_who_waits_hears_of_the_first_end(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 0.3; exit 6", restart="always")
    assert container.wait(30) == 6


def test_an_idle_supervisor_awakes_to_start_it_again(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, restart="always")
    supervisor = supervisor_of(container.pid)
    until(lambda: "pump" in Path(f"/proc/{supervisor}/cmdline").read_text(), 15)
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: runs_anew(container, first))
    assert supervisor_of(container.pid) == supervisor
    until(lambda: said(container).count("ready") == 2)
    assert machine.execute(container, "cat", "/proc/1/comm")[1].strip() == "sh"


def test_its_network_namespace_is_the_same_one_after_a_restart(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, restart="always", network="none")
    before = os.stat(f"/proc/{container.pid}/ns/net").st_ino
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: runs_anew(container, first))
    assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == before
    assert machine.execute(container, "ip", "addr", "show", "lo")[1].count("127.0.0.1") == 1


def test_a_policy_can_be_changed_while_it_runs(machine: Machine) -> None:
    container = machine.start(SLEEP, network="none")
    machine.engine.life.change_restart(container, "always")
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: runs_anew(container, first))
    machine.engine.life.change_restart(container, "no")
    second = container.pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    until(lambda: container.status == "exited")


def test_what_cannot_be_started_again_is_given_up(machine: Machine) -> None:
    container = machine.start("echo run; rm /bin/sh; exit 1", restart="always")
    until(lambda: container.status == "exited")
    assert container.state().exit_code == 127
    assert "sh" in container.state().error


# --- health ---------------------------------------------------------------------------------------

SOON = {"health_interval": "100ms"}


def test_a_container_becomes_healthy_and_unhealthy(profile: str, machine: Machine) -> None:
    began = time.time()
    container = machine.start(
        SLEEP, health_cmd="echo looked; test -e /well", health_retries=2, health_start_period="30s",
        health_start_interval="50ms", **SOON,
    )  # fmt: skip
    assert health(container)["Status"] == "starting"
    until(lambda: len(health(container)["Log"]) >= 3)
    # In its start period failures do not count.
    assert (health(container)["Status"], health(container)["FailingStreak"]) == ("starting", 0)
    machine.execute(container, "touch", "/well")
    until(lambda: health(container)["Status"] == "healthy")
    machine.execute(container, "rm", "/well")
    until(lambda: health(container)["Status"] == "unhealthy")
    assert health(container)["FailingStreak"] >= 2
    last = health(container)["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (1, "looked\n")
    assert len(health(container)["Log"]) <= 5
    statuses = ["health_status: healthy", "health_status: unhealthy"]
    told = lambda: machine.engine.events.between(str(began), filters=["event=health_status"], follow=False)  # noqa: E731
    until(lambda: [each["Action"] for each in told() if each] == statuses)
    container.stop(5)


def test_a_check_that_takes_too_long_is_ended_and_counts_as_failed(machine: Machine) -> None:
    container = machine.start(
        SLEEP, health_cmd="echo slow; sleep 60", health_interval="50ms", health_timeout="200ms", health_retries=1
    )
    until(lambda: health(container)["Status"] == "unhealthy")
    last = health(container)["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"] == "Health check exceeded timeout (200ms): slow\n"
    # The next one may have begun by now; between two there is none.
    until(lambda: "sleep 60" not in machine.execute(container, "ps")[1])
    container.stop(5)


def test_a_container_that_ends_while_a_check_begins_has_its_exit_code(machine: Machine) -> None:
    for turn in range(10):
        container = machine.start(SLEEP, health_cmd="true", health_interval="1ms", health_retries=1)
        time.sleep(0.1 + turn / 1000)
        assert container.pid is not None
        os.kill(container.pid, signal.SIGKILL)
        assert container.wait(20) == 137


def test_a_check_that_says_much_is_cut_and_one_that_is_missing_told(machine: Machine) -> None:
    loud = machine.start(SLEEP, health_cmd="yes | head -c 100000; exit 3", health_retries=1, **SOON)
    until(lambda: len(health(loud)["Log"]) > 0)
    assert len(health(loud)["Log"][0]["Output"]) == 4096 + len("...")
    machine.build('FROM box\nHEALTHCHECK --interval=50ms --retries=1 CMD ["/missing"]\n', "sick")
    container = machine.start(SLEEP, image="sick")
    until(lambda: health(container)["Status"] == "unhealthy")
    assert health(container)["Log"][0]["ExitCode"] == -1
    assert "/missing" in health(container)["Log"][0]["Output"]


def test_an_idle_supervisor_awakes_to_check(machine: Machine) -> None:
    container = machine.start(SLEEP, health_cmd="true", health_interval="5s")
    supervisor = supervisor_of(container.pid)
    until(lambda: "pump" in Path(f"/proc/{supervisor}/cmdline").read_text(), 15)
    assert health(container)["Status"] == "starting"
    until(lambda: health(container)["Status"] == "healthy", 15)
    until(lambda: "pump" in Path(f"/proc/{supervisor}/cmdline").read_text(), 15)
    container.stop(5)


def test_a_check_can_be_asked_for_and_is_refused_where_there_is_none(machine: Machine) -> None:
    container = machine.start(SLEEP, health_cmd="test -e /well", health_interval="1h")
    assert container.check()["Status"] == "starting"
    machine.execute(container, "touch", "/well")
    assert container.check() | {"Start": "", "End": ""} == {
        "Status": "healthy", "ExitCode": 0, "Output": "", "Start": "", "End": "",
    }  # fmt: skip
    other = machine.start(SLEEP)
    with pytest.raises(ContainerError, match="no health check"):
        other.check()


def test_what_an_image_says_of_health_can_be_overruled(machine: Machine) -> None:
    machine.build("FROM box\nHEALTHCHECK --interval=10s --retries=5 CMD exit 1\n", "checked")
    create = lambda **options: machine.engine.create(RunOptions(image="checked", **options))  # noqa: E731
    assert create().info.health == {
        "Test": ["CMD-SHELL", "exit 1"], "args": ["/bin/sh", "-c", "exit 1"], "Interval": 10**10, "Retries": 5,
    }  # fmt: skip
    assert create(no_healthcheck=True).info.health == {}
    changed = create(health_cmd="true", health_timeout="1m30s").info.health
    assert (changed["args"], changed["Timeout"], changed["Retries"]) == (["/bin/sh", "-c", "true"], 90 * 10**9, 5)
    with pytest.raises(UsageError, match="conflicts"):
        create(no_healthcheck=True, health_cmd="true")
