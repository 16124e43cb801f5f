"""Who waits for orders: what it is told before one comes, and by whom."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from machine import Machine, until
from nbcontain.errors import NbcontainError, UsageError
from nbcontain.runtime.messages import Channel, is_readable
from nbcontain.runtime.spares import Spare


def spares_of(machine: Machine) -> set[int]:
    """Every process that was forked from its zygote and still is what that is."""
    zygote = machine.engine.launcher._zygote
    assert zygote is not None
    found = set()
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.path.samefile(place / "exe", f"/proc/{zygote.pid}/exe"):
                found.add(int(place.name))
    return found - {zygote.pid}


class Waiting:
    """Both ends of a spare's channels, with nobody behind them."""

    def __init__(self) -> None:
        ours, self.supervisor = Channel.pair()
        self.inside, self.first = Channel.pair()
        self.spare = Spare(ours)

    def says_how(self) -> None:
        self.supervisor.send({"inside": True}, [self.inside.fileno()])
        self.inside.close()


@pytest.mark.parametrize("straight", [True, False])
def test_a_first_process_is_told_what_it_is_going_to_be_all_in_one_way_and_then_only_by_its_supervisor(
    straight: bool,
) -> None:
    """Straight, if it has said by then how; else by its supervisor, also what comes after it has said so."""
    there = Waiting()
    if straight:
        there.says_how()
    there.spare.begin({"spec": "a"})
    if not straight:
        there.says_how()
    there.spare.begin({"rootfs": []})
    hears, sleeps = (there.first, there.supervisor) if straight else (there.supervisor, there.first)
    assert not is_readable(sleeps, 0)
    told = [hears.receive()[0] for _ in range(2)]
    assert told == [{"do": "begin", "spec": "a"}, {"do": "begin", "rootfs": []}]
    there.supervisor.send({"taken": True})
    assert there.spare.order({"do": "launch"}, ())
    # Nobody but the supervisor has the other end by then.
    assert there.first.receive() == (None, [])
    assert there.supervisor.receive()[0] == {"do": "launch"}


@pytest.mark.parametrize("says", [False, True])
def test_one_that_was_told_is_gone_when_it_is_given_up(says: bool) -> None:
    there = Waiting()
    if says:
        there.says_how()
    there.spare.begin({"rootfs": []})
    ended: list[float] = []

    def supervise() -> None:
        while there.supervisor.receive()[0] is not None:
            pass
        time.sleep(0.1)
        ended.append(time.monotonic())
        there.supervisor.close()

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    there.spare.close()
    assert ended and ended[0] <= time.monotonic()
    supervisor.join()


@pytest.mark.parametrize("says", [False, True])
def test_one_that_is_dead_takes_no_order_and_hinders_nobody(says: bool) -> None:
    there = Waiting()
    if says:
        there.says_how()
    there.first.close()
    there.supervisor.close()
    there.spare.begin({"spec": "a"})
    there.spare.begin({"rootfs": []})
    assert not there.spare.order({"do": "launch"}, ())
    there.spare.close()


def test_a_spare_that_was_killed_while_it_waited_for_us_is_not_missed(machine: Machine) -> None:
    machine.run("true")
    until(lambda: machine.engine.launcher._expecting)
    time.sleep(0.3)
    killed = spares_of(machine)
    assert killed
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert machine.sh("echo still") == "still\n"
    assert machine.sh("echo again") == "again\n"


@pytest.mark.parametrize(
    "wrong", [{"ulimits": ("nonsense=1",)}, {"umask": "9"}, {"restart": "sometimes"}, {"name": "no/name"}], ids=str
)
def test_what_is_wrong_with_a_container_whose_layer_was_mounted_already_leaves_nothing(
    machine: Machine, wrong: dict[str, object]
) -> None:
    machine.run("true")
    time.sleep(0.2)
    with pytest.raises((UsageError, NbcontainError)):
        machine.run("true", **wrong)
    engine = machine.engine
    assert list(engine.store.snapshots.actives()) == []
    assert engine.containers() == []
    assert os.listdir(engine.layout.containers) == []
    assert "/active/" not in Path("/proc/self/mountinfo").read_text()
    assert machine.sh("echo well") == "well\n"
