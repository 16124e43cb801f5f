"""A supervisor of which nobody wants anything becomes small, and whole again when somebody does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import SLEEP, Machine, children_of, helpers_of, is_small, said, supervisor_of, until
from nbcontain.errors import Cancelled, ContainerError
from nbcontain.events import Output, Record, decode, encode
from nbcontain.linux import pump_code
from nbcontain.runtime import output_lines, pump
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.idle import Idle, fall_asleep
from nbcontain.runtime.messages import connect

COUNT = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


def asleep(machine: Machine, script: str, **options: object) -> Container:
    """A container whose supervisor is idle."""
    container = machine.start(script, **options)
    supervisor = supervisor_of(container.pid)
    until(lambda: is_small(supervisor), 15)
    return container


def ending(machine: Machine, then: str, **options: object) -> Container:
    """One whose supervisor is idle, and which does this of itself and is over: it is told to from outside."""
    container = asleep(machine, f"trap '{then}' USR1; echo first; while :; do sleep 0.05; done", **options)
    pid = container.pid
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    return container


def numbers(container: Container) -> list[int]:
    return [int(word) for word in said(container).split()]


def test_the_log_has_no_gap_where_a_supervisor_fell_asleep_and_awoke(profile: str, machine: Machine) -> None:
    container = asleep(machine, COUNT)
    then = len(numbers(container))
    until(lambda: len(numbers(container)) > then + 10)
    assert container.status == "running"
    container.stop(5)
    found = numbers(container)
    assert found == list(range(1, len(found) + 1))
    assert container.state().exit_code == 3


@pytest.mark.skipif(os.uname().machine not in pump_code.CODE, reason="no code is known for this processor")
def test_an_idle_supervisor_holds_next_to_nothing(machine: Machine) -> None:
    container = asleep(machine, "echo first; sleep 1000 & trap 'echo last; exit' USR1; wait")
    supervisor = supervisor_of(container.pid)

    def held() -> int:
        return sum(int(line.split()[1]) for line in Path(f"/proc/{supervisor}/smaps_rollup").open() if "Pss:" in line)

    assert held() <= 64
    pid = container.pid
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    container.wait(10)
    assert said(container) == "first\nlast\n"


def test_where_no_little_program_can_be_executed_it_is_pythons_pump(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What is too much for the little one: a task's name, by which its lines begin.
    state = Idle(
        bundle="/a", task="0" * 600, pid=5, lock=3, pidfd=4, listener=5, journal=6, mounts=-1,
        outputs={7: "stdout"}, ids={},
    )  # fmt: skip
    executed: list[object] = []
    monkeypatch.setattr(os, "set_inheritable", lambda fd, wanted: None)
    monkeypatch.setattr(os, "execve", lambda program, words, env: executed.append(program))
    fall_asleep(state)
    assert executed == [sys.executable]


def test_a_further_program_runs_in_a_container_that_was_idle(profile: str, machine: Machine) -> None:
    container = asleep(machine, SLEEP)
    supervisor = supervisor_of(container.pid)
    script = "id -u; readlink /proc/$$/exe; ls /proc/self/fd | wc -l; exit 7"
    assert machine.execute(container, "sh", "-c", script) == (7, "0\n/bin/busybox\n4\n")
    assert not is_small(supervisor)
    until(lambda: is_small(supervisor), 15)
    assert container.status == "running"


def test_a_stage_waits_for_the_next_program_where_nobody_inside_can_see_it(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 60")
    supervisor = supervisor_of(container.pid)

    def waiting() -> list[int]:
        assert container.pid is not None
        return helpers_of(container.pid)

    # As long as somebody may want something, it does not fall asleep.
    client = connect(container.bundle.path)
    assert machine.execute(container, "sh", "-c", "exit 7")[0] == 7
    until(lambda: len(waiting()) == 1)
    (first,) = waiting()
    for name in ("pid", "mnt", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{first}/ns/{name}") == os.readlink(f"/proc/{supervisor}/ns/{name}")
    links = {int(each.name): os.readlink(each) for each in Path(f"/proc/{first}/fd").iterdir()}
    assert sorted(each.partition(":")[0] for number, each in links.items() if number > 2) == ["anon_inode", "socket"]
    script = "id -u; cat; pwd; echo $A; nothing"
    wanted = machine.execute(container, "sh", "-c", script, user="1000", cwd="/etc", env=("A=b",))
    assert wanted == (127, "1000\n/etc\nb\n")
    until(lambda: len(waiting()) == 1 and waiting() != [first])
    (second,) = waiting()
    pidfd = os.pidfd_open(second)
    os.kill(second, signal.SIGKILL)
    # While it dies it can still be told something.
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert machine.execute(container, "echo", "there")[1] == "there\n"
    client.close()
    until(lambda: is_small(supervisor))
    assert waiting() == []


def test_no_stage_waits_for_the_next_check_of_a_containers_health(machine: Machine) -> None:
    container = machine.start(SLEEP, health_cmd="true", health_interval="1s")
    until(lambda: (container.health() or {}).get("Status") == "healthy", 15)
    supervisor = supervisor_of(container.pid)
    found = []
    for _ in range(30):
        found.append([*children_of(supervisor)])
        time.sleep(0.02)
    assert [container.pid] in found


def test_an_idle_containers_own_end_is_told(profile: str, machine: Machine) -> None:
    container = ending(machine, "echo last words; exit 9")
    assert container.wait(10) == 9
    assert said(container) == "first\nlast words\n"


def test_an_idle_container_with_rm_is_forgotten_at_its_end(machine: Machine) -> None:
    container = ending(machine, "exit", remove=True)
    until(lambda: not container.bundle.path.exists(), 10)
    assert machine.engine.containers() == []


def test_nothing_is_lost_when_much_is_written_to_an_idle_supervisor(machine: Machine) -> None:
    container = ending(machine, 'head -c 8000000 /dev/zero | tr "\\0" x; echo; echo end; exit')
    assert container.wait(20) == 0
    assert said(container) == "first\n" + "x" * 8_000_000 + "\nend\n"


def test_an_idle_supervisor_that_is_killed_takes_its_container_along(machine: Machine) -> None:
    container = asleep(machine, SLEEP)
    os.kill(supervisor_of(container.pid), signal.SIGKILL)
    until(lambda: container.status == "lost", 5)
    with pytest.raises(ContainerError):
        container.wait(1)


def test_a_supervisor_stays_awake_while_somebody_waits_for_the_end(machine: Machine) -> None:
    task = machine.engine.run(RunOptions(image="box", command=("sh", "-c", SLEEP)))
    until(lambda: bool(machine.engine.containers()) and machine.engine.containers()[0].status == "running")
    container = machine.engine.containers()[0]
    time.sleep(3)
    assert not is_small(supervisor_of(container.pid))
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    assert container.status == "exited"


class Awake(Exception):
    """The pump has become the whole supervisor."""


@dataclass
class Pump:
    """Python's, in this process, of which nothing is given back."""

    words: list[str]
    program: int
    end: int
    wishing: int


@pytest.fixture
def pumping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pump:
    output, program = os.pipe()
    ended, end = os.pipe()
    wish, wishing = os.pipe()
    journal = os.open(tmp_path / "journal", os.O_WRONLY | os.O_CREAT)
    words = ["/package", "0123", str(journal), f"{output}:stdout", f"{ended} {wish}", "0", "", "0", "{}"]
    monkeypatch.setattr(pump, "give_back", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["-c", *words])
    return Pump(words, program, end, wishing)


def test_a_pump_that_cannot_become_whole_goes_on_pumping_and_tries_again(
    pumping: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.write(pumping.program, b"one")
    os.write(pumping.wishing, b"!")
    tries: list[list[str]] = []

    def awaken(words: list[str]) -> None:
        tries.append(words)
        os.write(pumping.program, b"two")
        raise Awake if len(tries) == 2 else OSError("no memory")

    monkeypatch.setattr(pump, "awaken", awaken)
    monkeypatch.setattr(pump.time, "sleep", lambda seconds: None)
    with pytest.raises(Awake):
        pump.main()
    assert tries == [pumping.words, pumping.words]
    written = [decode(each).event for each in (tmp_path / "journal").read_bytes().splitlines()]
    assert written == [Output("0123", "stdout", b"one"), Output("0123", "stdout", b"two")]


def test_a_pump_that_cannot_become_whole_ends_with_its_container_whatever_else_is_wanted(
    pumping: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.write(pumping.wishing, b"!")
    os.write(pumping.end, b"!")

    def awaken(words: list[str]) -> None:
        raise OSError("no memory")

    def sleep(seconds: float) -> None:
        raise AssertionError("it waits for a container that has ended")

    monkeypatch.setattr(pump, "awaken", awaken)
    monkeypatch.setattr(pump.time, "sleep", sleep)
    pump.main()


def test_only_mappings_of_files_without_pages_of_ones_own_are_given_back() -> None:
    smaps = """\
1000-2000 r-xp 00000000 08:01 77                         /lib/a.so
Anonymous:             0 kB
2000-3000 r--p 00001000 08:01 77                         /lib/a.so
Anonymous:             4 kB
3000-4000 rw-p 00002000 08:01 77                         /lib/a.so
Anonymous:             0 kB
4000-5000 r--p 00000000 00:00 0
Anonymous:             0 kB
5000-6000 r--p 00000000 08:01 78                         /a b
VmFlags: rd mr
Anonymous:             0 kB
"""
    assert pump.unchanged(smaps) == [(0x1000, 0x2000), (0x5000, 0x6000)]


TEXT = st.sampled_from(
    [b'a "word" of C:\\text\r\n', "hält\u2028\udcff".encode("utf-8", "surrogateescape"), bytes(range(256))]
)


@given(st.binary() | TEXT, st.integers(0, 800), st.sampled_from(["stdout", "stderr"]), st.floats(0, 4e9))
def test_output_is_written_as_the_lines_that_everybody_else_writes(
    data: bytes, times: int, stream: str, now: float
) -> None:
    data *= times
    pieces = [data[start : start + 8192] for start in range(0, len(data), 8192)]
    wanted = b"".join(encode(Record(now, Output("0123abcd", stream, each))) for each in pieces)  # type: ignore[arg-type]
    assert b"".join(output_lines.parts(now, "0123abcd", stream, data)) == wanted


@given(st.binary(min_size=1, max_size=20), st.integers(1, 2000), st.integers(0, 99))
def test_output_that_a_full_disk_cut_off_is_counted_as_what_no_whole_line_has(
    data: bytes, times: int, per_cent: int
) -> None:
    data *= times
    said = b"".join(lines := output_lines.parts(1.0, "0123", "stdout", data))
    written = len(said) * per_cent // 100
    kept = b"".join(decode(each).event.data for each in said[:written].split(b"\n")[:-1])  # type: ignore[union-attr]
    assert output_lines.missing(lines, len(data), written) == len(data) - len(kept)
    assert output_lines.missing(lines, len(data), len(said)) == 0


def test_what_a_supervisor_remembers_survives_as_words() -> None:
    state = Idle(
        bundle="/a b/{}", task="0123", pid=5, lock=3, pidfd=4, listener=5, journal=6, mounts=-1,
        outputs={7: "stdout", 8: "stderr"}, ids={"uids": [[0, 0, 1]], "gids": [[0, 0, 1]]}, lost=7, wake=12.5, limit=9,
    )  # fmt: skip
    assert Idle.of(state.words()) == state


def test_the_pump_imports_next_to_nothing() -> None:
    place = str(Path(pump.__file__).parent)
    program = (
        "import sys; old = {*sys.modules}; sys.path.append(sys.argv[1]); import pump; print(*({*sys.modules} - old))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, place], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= {"pump", "output_lines", "select"}
