"""The program of an idle supervisor's does what Python's pump does, on each machine that can be tried."""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbcontain.events import Output, decode
from nbcontain.linux import little_programs, pump_code
from nbcontain.linux.little_pump import Execution, LittlePump

TASK = "0123abcd"
SCRIPT = '#!/bin/sh\n{ for each; do echo "<$each>"; done; echo $KEPT; readlink $0 || :; } > $OUT\n'
HOSTILE = [
    b'a "word" of C:\\text\r\n', "hält\u2028 \U0001f600".encode(), bytes(range(256)), b"\xe2\x82", b"\xed\xa0\x80\0",
    b"\x1b]0;title\x07", b"x" * 20_000 + b"\n", b"\xff" * 20_000,
]  # fmt: skip


class Pumped:
    """One of them at work: two outputs of a program that the test is, and two things that it waits for besides."""

    def __init__(self, machine: str, directory: Path) -> None:
        if machine not in pump_code.CODE:
            pytest.skip("no code is known for it")
        self.before: list[str] = []
        if machine != platform.machine():
            emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
            if emulator is None:
                pytest.skip(f"neither {machine} nor QEMU for it is here")
            self.before = [emulator]
        self.machine, self.directory = machine, directory
        self.pipes = {name: os.pipe() for name in ("stdout", "stderr", "end", "wish")}
        self.journal = directory / "journal"
        self.program = directory / "whole"
        self.program.write_text(SCRIPT)
        self.running: subprocess.Popen[bytes] | None = None

    def begin(self, journal: int | None = None, limit: int = 0, wake: float = 0.0, other: str = "/nowhere") -> None:
        journal = journal or os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        ends = {self.pipes[name][0]: name for name in ("stdout", "stderr")}
        names, lost = " ".join(f"{fd}:{name}" for fd, name in ends.items()), "0" * 20
        env = {"KEPT": "kept", "OUT": str(self.directory / "out")}
        pump = LittlePump(
            outputs={
                fd: f',"kind":"output","task":"{TASK}","stream":"{name}","data":'.encode() for fd, name in ends.items()
            },
            names=names, lost=lost, watched=(self.pipes["end"][0], self.pipes["wish"][0]), journal=journal,
            limit_bytes=limit, wake=wake, whole=Execution(str(self.program), ("whole", names, lost), env),
            other=Execution(other, ("other", names, lost), env),
        )  # fmt: skip
        file = self.directory / "pump"
        with file.open("wb") as writing:
            for place, data in pump.program(self.machine).items():
                writing.seek(place)
                writing.write(data)
        file.chmod(0o755)
        fds = (journal, *(reading for reading, _ in self.pipes.values()))
        self.running = subprocess.Popen([*self.before, str(file)], pass_fds=fds)
        for fd in fds:
            os.close(fd)

    def write(self, name: str, data: bytes) -> None:
        os.write(self.pipes[name][1], data)

    def close(self, name: str) -> None:
        os.close(self.pipes.pop(name)[1])

    def said(self) -> list[Output]:
        found = [decode(line).event for line in self.journal.read_bytes().splitlines()]
        return [each for each in found if isinstance(each, Output)]

    def after(self) -> list[str]:
        """What the program that it became wrote."""
        assert self.running is not None
        assert self.running.wait(5) == 0
        return (self.directory / "out").read_text().splitlines()

    def end(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.wait()
        for _, writing in self.pipes.values():
            os.close(writing)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=little_programs.MACHINES)
def pumped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pumped]:
    made = Pumped(request.param, tmp_path)
    yield made
    made.end()


def test_output_is_written_as_it_comes_and_a_wish_executes_the_whole_from_a_sealed_copy(pumped: Pumped) -> None:
    pumped.begin()
    began = time.time()
    pumped.write("stdout", b"one\n")
    until(lambda: pumped.journal.read_bytes().count(b"\n") == 1)
    pumped.write("stderr", b"two\n")
    until(lambda: pumped.journal.read_bytes().count(b"\n") == 2)
    assert pumped.said() == [Output(TASK, "stdout", b"one\n"), Output(TASK, "stderr", b"two\n")]
    times = [json.loads(line)["time"] for line in pumped.journal.read_text().splitlines()]
    assert began - 0.001 <= times[0] <= times[1] <= time.time()
    pumped.write("stdout", b"last")
    pumped.write("wish", b"!")
    names, lost, kept, program = pumped.after()
    assert pumped.said()[-1].data == b"last"
    assert (names.split(":")[1], lost, kept) == ("stdout " + names.split()[1].split(":")[0], f"<{'0' * 20}>", "kept")
    assert program == "/memfd:python (deleted)"


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_output_is_kept_as_it_is(data: bytes, pumped: Pumped) -> None:
    pumped.begin()
    pumped.write("stderr", data)
    pumped.close("stderr")
    until(lambda: sum(len(each.data) for each in pumped.said()) == len(data))
    assert b"".join(each.data for each in pumped.said()) == data
    assert all(len(each.data) <= 8192 for each in pumped.said())


def test_an_output_that_has_ended_is_no_more_known(pumped: Pumped) -> None:
    pumped.begin()
    pumped.close("stdout")
    pumped.write("stderr", b"still here")
    until(lambda: len(pumped.said()) == 1)
    pumped.close("end")
    names = pumped.after()[0]
    assert names.strip("<>").split() == [f"{names.split(':')[0].split()[-1]}:stderr"]


def test_output_that_a_full_disk_has_no_room_for_is_counted(pumped: Pumped) -> None:
    pumped.begin(os.open("/dev/full", os.O_WRONLY))
    pumped.write("stdout", b"x" * 10_000)
    pumped.write("wish", b"!")
    # The rest is read by whoever comes after it, unless it was read already.
    assert pumped.after()[1] in (f"<{8192:020}>", f"<{10_000:020}>")


def test_a_line_after_half_a_line_begins_on_its_own(pumped: Pumped) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    pumped.begin(writing)
    room = 1 << 16
    for _ in range(room // 8192):
        pumped.write("stdout", b"x" * 8192)
    found = b""
    until(lambda: bool(is_ready(reading)))
    # Filled up, but for what is read here only once all has been taken.
    time.sleep(1)
    found += os.read(reading, 2 * room)
    pumped.write("stdout", b"whole again")
    until(lambda: bool(is_ready(reading)))
    found += os.read(reading, room)
    pumped.write("wish", b"!")
    lost = int(pumped.after()[1].strip("<>"))
    kept = []
    for line in found.split(b"\n"):
        try:
            kept.append(decode(line).event)
        except ValueError:
            continue
    assert [each for each in kept if isinstance(each, Output)][-1].data == b"whole again"
    assert sum(len(each.data) for each in kept if isinstance(each, Output)) + lost == room + len(b"whole again")
    assert lost >= 8192
    os.close(reading)


def is_ready(fd: int) -> list[int]:
    return select.select([fd], [], [], 0.01)[0]


def test_a_journal_that_is_large_enough_has_it_execute_the_whole(pumped: Pumped) -> None:
    pumped.begin(limit=300)
    pumped.write("stdout", b"little")
    until(lambda: len(pumped.said()) == 1)
    assert pumped.running is not None and pumped.running.poll() is None
    pumped.write("stdout", b"much" * 100)
    assert pumped.after()[2] == "kept"
    assert [each.data for each in pumped.said()] == [b"little", b"much" * 100]


def test_it_awakes_at_its_time(pumped: Pumped) -> None:
    began = time.monotonic()
    pumped.begin(wake=began + 1.25)
    assert pumped.after()[2] == "kept"
    assert time.monotonic() - began >= 1.25


def test_where_no_copy_can_be_made_the_other_program_is_executed(pumped: Pumped) -> None:
    pumped.program.unlink()
    other = pumped.directory / "other"
    other.write_text(SCRIPT)
    other.chmod(0o755)
    pumped.begin(other=str(other))
    pumped.write("wish", b"!")
    assert pumped.after()[2] == "kept"


def test_where_nothing_can_be_executed_it_goes_on_until_the_containers_end(pumped: Pumped) -> None:
    pumped.program.unlink()
    pumped.begin()
    pumped.write("wish", b"!")
    time.sleep(0.2)
    pumped.write("stdout", b"still here")
    until(lambda: len(pumped.said()) == 1)
    assert pumped.running is not None and pumped.running.poll() is None
    pumped.close("end")
    assert pumped.running.wait(5) == 0
    assert not (pumped.directory / "out").exists()


def test_too_much_for_it_is_refused() -> None:
    whole = Execution("/a", (), {})
    pump = LittlePump({1: bytes(513)}, "1:stdout", (2,), 3, 0, 0.0, "0" * 20, whole, whole)
    with pytest.raises(OSError, match="room"):
        pump.program("x86_64")
    with pytest.raises(OSError, match="processor"):
        pump.program("sparc")
