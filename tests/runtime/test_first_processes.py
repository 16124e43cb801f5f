"""How a container's first process comes to be, by the supervisor itself or by a stage: it is the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import pytest

from machine import SLEEP, Machine, supervisor_of, until
from nbcontain.errors import DiskFull, SetupFailed
from nbcontain.linux import forks, syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import children_of
from nbcontain.runtime import births
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.namespaces import Birth
from nbcontain.runtime.stage import Inside, keep_only
from reliability.deeds import with_one_thread

KINDS = ("pid", "pid_for_children", "ipc", "uts", "mnt", "net", "cgroup", "user", "time")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root of the machine needs no stage")


def namespaces(pid: int | str = "self") -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def tell_where(channel: Channel) -> None:
    """A first process: says where it is, and how often it was adopted."""
    adopted, _ = channel.receive()
    channel.send({"adopted": adopted, "pid": os.getpid(), "open": sorted(map(int, os.listdir("/proc/self/fd")))})
    channel.receive()


def born(birth: Birth, prepared: Callable[[int], None] | None = None, *, succeeds: bool = False) -> Inside:
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    return births.form(birth, tell_where, prepared=prepared, succeeds=succeeds)


def failing(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


def end(inside: Inside) -> None:
    inside.channel.close()
    os.waitpid(inside.pid, 0)


def refusing(refused: int, flags: int, number: int = 1) -> Callable[[int, int], None]:
    """setns(2) as it is, but for the call of that number for `flags`."""
    setns, calls = syscalls.setns, 0

    def called(fd: int, wanted: int) -> None:
        nonlocal calls
        calls += wanted == flags
        if wanted == flags and calls == number:
            raise PermissionError(refused, os.strerror(refused))
        setns(fd, wanted)

    return called


@needs_root
@pytest.mark.parametrize("staged", [False, True])
@with_one_thread
def test_it_is_first_in_namespaces_of_its_own(staged: bool) -> None:
    if staged:
        syscalls.setns = refusing(1, syscalls.CLONE_NEWPID)
    before, forked = namespaces(), []
    fork = os.fork
    os.fork = lambda: forked.append(pid := fork()) or pid  # type: ignore[func-returns-value]
    seen: list[int] = []
    inside = born(Birth(IdMap.identity()), seen.append)
    answer, _ = inside.channel.receive()
    assert answer is not None
    # Nobody's but its own: standard streams, its channel, and the directory that it looks into.
    assert (answer["pid"], len(answer["open"])) == (1, 5)
    assert answer["adopted"]["adopted"]
    where = namespaces(inside.pid)
    assert [kind for kind in KINDS if where[kind] != before[kind]] == ["pid", "pid_for_children", "ipc", "uts"]
    assert namespaces() == before
    assert (len(forked), seen == [inside.pid]) == (1, not staged)
    # And whoever is forked later is where this is.
    if (later := fork()) == 0:
        os._exit(int(namespaces() != before))
    assert os.waitpid(later, 0)[1] == 0
    end(inside)


@with_one_thread
def test_where_its_ids_are_refused_that_is_told_and_nobody_waits() -> None:
    """As by a newuidmap that grants others by now than when it was tried."""
    signal.alarm(10)
    IdMap.write = failing(PermissionError(1, "newuidmap refused the id ranges"))
    with pytest.raises(PermissionError, match="newuidmap"):
        born(Birth(IdMap.single(os.getuid(), os.getgid())))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@with_one_thread
def test_it_may_have_a_predecessor_which_is_in_no_other_namespace() -> None:
    before = namespaces()
    inside = born(Birth(IdMap.identity()), succeeds=True)
    answer, _ = inside.channel.receive()
    assert answer is not None
    assert (answer["pid"], len(answer["open"])) == (1, 5)
    where, others = namespaces(inside.pid), namespaces(inside.predecessor)
    assert [kind for kind in KINDS if where[kind] != before[kind]] == ["pid", "pid_for_children", "ipc", "uts"]
    assert [kind for kind in KINDS if others[kind] != before[kind]] == ["pid_for_children"]
    assert namespaces() == before
    # What is begun there is preferred as anything is.
    assert (os.sched_getscheduler(inside.pid), os.sched_getscheduler(inside.predecessor)) == (
        os.SCHED_OTHER, os.SCHED_BATCH,
    )  # fmt: skip
    end(inside)
    assert os.waitpid(inside.predecessor, 0)[1] == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@pytest.mark.parametrize("hindered", ["code", "namespace", "predecessor", "word"])
@with_one_thread
def test_where_it_can_have_none_it_has_none_and_nobody_is_left(hindered: str) -> None:
    match hindered:
        case "code":
            forks.succeeded = failing(OSError(13, "Permission denied"))
        case "namespace":
            # Of all that ask for these, whoever comes first.
            unshare, (reading, writing) = syscalls.unshare, os.pipe()
            os.write(writing, b".")
            os.close(writing)

            def once(flags: int) -> None:
                if flags & syscalls.CLONE_NEWIPC and os.read(reading, 1):
                    raise PermissionError(1, "Operation not permitted")
                unshare(flags)

            syscalls.unshare = once
            births.keep_only = lambda *kept: keep_only(*kept, reading)
        case "word":
            # It is there already, and waits for more.
            expect, missed = births.expect, iter([ChildProcessError("nothing was heard")])

            def hear(channel: Channel, name: str) -> object:
                heard = expect(channel, name)
                if name == "born" and (error := next(missed, None)):
                    raise error
                return heard

            births.expect = hear
        case "predecessor":
            births._be_successor = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    inside = born(Birth(IdMap.identity()), succeeds=True)
    answer, _ = inside.channel.receive()
    assert answer is not None
    assert (answer["pid"], inside.predecessor) == (1, 0)
    assert namespaces(inside.pid)["ipc"] != namespaces()["ipc"]
    end(inside)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@with_one_thread
def test_what_hinders_it_is_told_and_nobody_is_left() -> None:
    def refused(flags: int) -> None:
        if flags != syscalls.CLONE_NEWPID:
            raise OSError(28, "No space left on device")
        unshare(flags)

    unshare, syscalls.unshare = syscalls.unshare, refused
    with pytest.raises(DiskFull, match="setup failed"):
        born(Birth(IdMap.identity()))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@with_one_thread
def test_one_that_is_killed_at_once_is_an_error_and_not_waited_for() -> None:
    with pytest.raises(ChildProcessError, match="without a word"):
        born(Birth(IdMap.identity()), lambda pid: os.kill(pid, signal.SIGKILL))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@with_one_thread
def test_one_that_is_gone_before_anything_was_told_to_it_is_the_same_error() -> None:
    def gone(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(ChildProcessError, match="without a word"):
        born(Birth(IdMap.identity()), gone)


@needs_root
@with_one_thread
def test_what_cannot_be_prepared_is_not_born() -> None:
    def hindered(pid: int) -> None:
        raise SetupFailed("there is no group for it")

    with pytest.raises(SetupFailed, match="no group"):
        born(Birth(IdMap.identity()), hindered)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_root
@with_one_thread
def test_who_cannot_get_back_forks_nothing_more() -> None:
    """Its next child, a helper of ours, would be among the container's processes."""
    pid = os.fork()
    if pid == 0:
        syscalls.setns = refusing(1, syscalls.CLONE_NEWPID, number=2)
        with suppress(BaseException):
            born(Birth(IdMap.identity()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_whose_namespaces_a_supervisor_is_in(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    assert machine.execute(container, "true")[0] == 0
    assert container.pid is not None
    supervisor, inside = namespaces(supervisor_of(container.pid)), namespaces(container.pid)
    assert supervisor == namespaces()
    assert {"pid", "ipc", "uts", "mnt"} <= {kind for kind in KINDS if inside[kind] != supervisor[kind]}
    machine.engine.restart(container, 5)
    assert namespaces(supervisor_of(container.pid)) == supervisor


@pytest.mark.parametrize("options", [{"network": "none"}, {"network": "host"}, {"init": True}], ids=str)
def test_nothing_that_was_there_for_any_container_stays(
    profile: str, machine: Machine, options: dict[str, object]
) -> None:
    """Nobody who has made room for it, and nothing that it did not want: a moment later, also while somebody waits."""
    machine.run("true", **options)
    time.sleep(0.3)
    container = machine.start(SLEEP, **options)
    assert container.pid is not None
    supervisor = supervisor_of(container.pid)
    if profile != "rootless-single":  # who has somebody to answer its calls besides
        until(lambda: children_of(supervisor) == [container.pid])
    # Of mounts it has the container's own at most, by their namespace.
    fds = [os.readlink(f"/proc/{supervisor}/fd/{fd}") for fd in os.listdir(f"/proc/{supervisor}/fd")]
    assert [each for each in fds if each.startswith("/") and not each.startswith(("/dev/null", "/memfd:"))] == [
        each for each in fds if str(container.bundle.path) in each
    ]
