"""The networks' processes on disk and by pid, without any network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lan import Lan
from nbcontain.errors import NetworkError
from nbcontain.network import links, rooms, uplink
from nbcontain.network.records import Records
from nbcontain.store import files
from nbcontain.store.layout import Layout


def directories(layout: Layout) -> set[str]:
    return {name for name in os.listdir(layout.network_places) if name != "lock"}


def served(layout: Layout, place: str, role: str) -> int:
    """A process of another namespace, alive: it holds its lock."""
    directory = layout.network_process(place, role)
    files.make_directory(directory, durable=False)
    (directory / "control.sock").touch()
    lock = files.try_lock(directory / "lock")
    assert lock is not None
    return lock


@pytest.mark.parametrize("role", ["worker", "names", "space"])
def test_a_directory_that_nobody_holds_goes_and_one_that_somebody_holds_stays(tmp_path: Path, role: str) -> None:
    layout = Layout(tmp_path)
    lock = served(layout, "41", role)
    rooms.clear(layout, "40", ())
    assert directories(layout) == {"41"}
    os.close(lock)
    rooms.clear(layout, "40", ["41"])
    assert directories(layout) == {"41"}
    rooms.clear(layout, "40", ())
    assert directories(layout) == set()


def test_no_directory_goes_while_a_worker_begins(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    os.close(served(layout, "41", "names"))
    with files.lock(layout.network_places / "lock", exclusive=False):
        rooms.clear(layout, "40", ())
        assert directories(layout) == {"41"}
    lock = rooms.taken(layout, "40")
    assert lock is not None and rooms.taken(layout, "40") is None
    os.close(lock)


def test_a_worker_takes_its_own_directory_along(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    worker = rooms.taken(layout, "40")
    assert worker is not None
    os.close(served(layout, "40", "names"))
    rooms.leave(layout, "40")
    assert directories(layout) == set()
    # Nobody is let in until its process has ended.
    assert files.try_lock(layout.network_places / "lock", exclusive=False) is None
    os.close(worker)


def test_what_a_killed_worker_was_about_to_write_goes_and_what_another_writes_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    files.make_directory(layout.network_sandboxes)
    for directory in (layout.networks, layout.network_sandboxes):
        (directory / ".tmp-0123456789abcdef").touch()
    with files.temporary(layout.networks) as (written, _):
        Records(layout).sweep()
        assert sorted(os.listdir(layout.networks)) == [written.name, "sandboxes"]
    assert os.listdir(layout.network_sandboxes) == []


Ways = Callable[[], list[tuple[str, str, int]]]


class Ending:
    """Outside, where every program has ended, and was waited for, before anybody can look at it."""

    relay = None

    def leads_out_by_ipv6(self) -> bool:
        return False

    def spawn(self, words: list[str], log: int) -> int:
        os.write(log, b"no such device\n")
        child = subprocess.Popen(["true"])
        child.wait()
        return child.pid


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ways:
    """Gives what leads out when it is looked for twice, where the one program there is ends at once."""
    monkeypatch.setattr(uplink, "missing", lambda: "")
    monkeypatch.setattr(uplink, "there", lambda: {"pasta": "/bin/pasta"})
    monkeypatch.setattr(uplink, "_FIRST_AGAIN_S", 0.0)

    def asked() -> list[tuple[str, str, int]]:
        made = uplink.Uplink(tmp_path / "uplink", Ending())  # type: ignore[arg-type]
        found = []
        for _ in range(2):
            made.be(os.getpid(), wanted=True)
            found.append((made.way, made.refusal, made.ending))
        return found

    def elsewhere() -> list[tuple[str, str, int]]:
        # pyroute2 has a loop of its own, and a browser's may run in this thread.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asked).result()

    return elsewhere


def test_where_a_program_ends_at_once_and_there_is_no_link_either_connections_leave_and_that_is_told(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: object) -> None:
        raise NetworkError("no link either")

    monkeypatch.setattr(links.Links, "lay_out", refused)
    assert ways() == [("socket swap", "pasta: no such device", -1)] * 2
    assert json.loads((tmp_path / "uplink" / "way.json").read_text())["unrelayed"] == "no link either"


def test_a_program_that_never_led_out_is_in_nobodys_way(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links.Links, "lay_out", lambda *_: None)
    monkeypatch.setattr(uplink.Uplink, "_be_relay", lambda *_, **__: None)
    assert ways() == [("socket swap", "pasta: no such device", -1)] * 2


def test_a_holder_that_has_ended_is_replaced_by_whoever_finds_it(tmp_path: Path) -> None:
    program = f"""
import os, select, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from types import SimpleNamespace
from nbcontain.channel import Channel
from nbcontain.linux.starts import start_of
from nbcontain.network.own import Own, Vigil
from nbcontain.network.space import Space
dead = os.fork() or os._exit(0)
os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
space = Space(Path({str(tmp_path)!r}), dead, is_new=False)
kept, _ = ends = Channel.pair()
Vigil(select.epoll(), Own(space, SimpleNamespace(channel=kept), None))
print(space.holder != dead and start_of(space.holder) > 0)
space.end()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "True\n"


def test_a_way_is_laid_out_where_there_is_no_ipv6(lan: Lan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a namespace of its own: what is laid out there stays."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    monkeypatch.setattr(links, "_CONF6", tmp_path)
    addresses = [("198.19.211.100", 24, "198.19.211.2"), ("fd6e:6263:6f6e::100", 64, "fd6e:6263:6f6e::2")]

    def laid_out() -> None:
        links.Links("").lay_out(("near", "02:00:00:00:00:01"), ("far", "02:00:00:00:00:02"), addresses)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(laid_out).result()
    shown = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert "default via 198.19.211.2 dev near" in shown
