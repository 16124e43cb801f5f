"""Locks tell who lives; nothing else does. And hosts that are not as one would like."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbcontain import host
from nbcontain.engine import Engine
from nbcontain.errors import StoreError
from nbcontain.host import Ability
from nbcontain.linux.probe import KILLED
from nbcontain.runtime.bundle import State
from nbcontain.store import Store, files, gc, removal
from reliability import deeds


@pytest.fixture
def root(template: Path, place: Path) -> Path:
    return deeds.copied(template, place / "locks")


def test_two_collections_at_once_both_come_to_an_end(root: Path) -> None:
    ends: list[BaseException | int] = []

    def collect() -> None:
        try:
            with Engine(root) as engine:
                ends.append(engine.prune())
        except BaseException as error:  # noqa: BLE001 - looked at below
            ends.append(error)

    threads = [threading.Thread(target=collect) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert [each for each in ends if isinstance(each, BaseException)] == []
    assert len(ends) == 4


def test_a_collection_waits_for_a_process_that_is_suspended(root: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from nbcontain.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "with store.shared():\n"
        "    store.snapshots.prepare('build-asleep', None)\n"
        "    print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    store.snapshots.active('build-asleep')\n"
    )
    sleeper = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE)
    assert sleeper.stdout is not None
    sleeper.stdout.readline()
    store = Store.open(root)
    assert gc.collect(store, list, wait=False) == gc.Collected()
    assert "build-asleep" in set(store.snapshots.actives())
    while "State:\tT" not in Path(f"/proc/{sleeper.pid}/status").read_text():
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(20) == 0


def test_a_clock_that_jumps_harms_nothing_but_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with Engine(root) as engine:
        names = {str(name) for name, _ in engine.images()}
        for years in (-10, 10):
            monkeypatch.setattr(time, "time", lambda years=years: now + years * 365 * 86400.0)
            engine.prune()
            assert {str(name) for name, _ in engine.images()} == names
            assert engine.soundness.look(full=True).is_clean


def test_a_pid_that_lives_again_as_another_does_not_make_a_container_alive(root: Path) -> None:
    with Engine(root) as engine:
        container = engine.container("going")
        # This very process, which is no container of ours.
        container.bundle.write_state(State("running", os.getpid(), 1))
        assert container.status == "lost"
        assert {each.kind for each in engine.soundness.look().findings} == {"container-lost"}
        engine.remove_container(container, force=True)
    assert os.getpid()


def test_a_sweeper_that_takes_a_directory_before_it_is_locked_hinders_nobody(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            for path in files.sweep(tmp_path):
                removal.remove_tree(path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(300):
            with files.temporary_directory(tmp_path) as directory:
                (directory / "here").touch()
            removal.remove_tree(directory)
            with files.temporary(tmp_path) as (path, fd):
                files.write(fd, b"x")
                assert path.exists()
    finally:
        stop.set()
        sweeper.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_by_one_clear_message(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match="without locks") as raised:
        Store.open(tmp_path / "store")
    assert "NBCONTAIN_ROOT" in raised.value.hint


@pytest.mark.parametrize("mask", [0o077, 0o000, 0o777])
def test_no_umask_opens_or_closes_the_store(mask: int, inputs: Path, place: Path) -> None:
    root = place / f"umask-{mask:o}"

    def body() -> None:
        os.umask(mask)
        deeds.template(root, inputs)
        assert deeds.problems(root, fix=False) == []
        with Engine(root) as engine:
            assert (engine.layout.index.stat().st_mode & 0o777) == 0o644
            blobs = list((engine.layout.blobs / "sha256").iterdir())
            assert {path.stat().st_mode & 0o777 for path in blobs} == {0o444}

    ended = deeds.elsewhere(body)
    assert ended.status == 0, ended.words


def test_sixty_four_file_descriptors_are_enough(root: Path, inputs: Path) -> None:
    def body() -> None:
        # Less the three standard ones, and beside whatever the tests before this one still hold.
        held = {int(fd) for fd in os.listdir("/proc/self/fd")}
        limit = sorted(set(range(len(held) + 64)) - held)[61]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        with Engine(root) as engine:
            deeds.build(engine, inputs)
            deeds.import_(engine, inputs)
            deeds.run(engine, inputs)
            # Its supervisor removes its files after it has told of the end.
            deadline = time.monotonic() + 20
            while not (report := engine.soundness.look(full=True)).is_clean and time.monotonic() < deadline:
                time.sleep(0.1)
            assert report.is_clean, report

    ended = deeds.elsewhere(body)
    assert ended.status == 0, ended.words


def test_a_place_that_cannot_be_written_is_one_clear_message(place: Path) -> None:
    with pytest.raises(StoreError, match="no store can be at") as raised:
        Store.open(Path("/proc/nbcontain"))
    assert raised.value.hint


@pytest.mark.parametrize("why", [KILLED, f"/store/tmp: {os.strerror(errno.ENOSPC)}"])
def test_what_a_killed_or_starved_trial_found_is_not_remembered(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, list[object]] = {each.name: [True, ""] for each in Ability}
    monkeypatch.setattr(host, "_probed", lambda root, name: answers | {"OVERLAY": [False, why]})
    assert not host.Host.detect(tmp_path, tmp_path / "host.json").can(Ability.OVERLAY)
    monkeypatch.setattr(host, "_probed", lambda root, name: answers)
    assert host.Host.detect(tmp_path, tmp_path / "host.json").can(Ability.OVERLAY)


def test_what_is_remembered_of_a_machine_is_not_taken_for_what_holds_where_less_is_allowed(tmp_path: Path) -> None:
    """As in a container that sees the same store."""
    cache = tmp_path / "host.json"
    host.Host.detect(tmp_path, cache)
    remembered = cache.read_text()
    cache.write_text(remembered.replace('"KERNEL": [true', '"KERNEL": [false'))
    assert not host.Host.detect(tmp_path, cache).can(Ability.KERNEL)
    script = (
        "import sys; from pathlib import Path; from nbcontain.linux import syscalls;"
        " from nbcontain.host import Ability, Host;"
        " syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1);"
        " print(Host.detect(Path(sys.argv[1]), Path(sys.argv[1], 'host.json')).can(Ability.KERNEL))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
