"""Further programs by a stage that waited for them: they are what they would be without, and nobody waits for it."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from machine import SLEEP, Machine, children_of, helpers_of, supervisor_of, until
from nbcontain.errors import CommandNotExecutable, CommandNotFound, NotRunning, SetupFailed
from nbcontain.linux import syscalls
from nbcontain.linux.cgroups import Tree
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.container import Container
from nbcontain.runtime.execs import Execs
from nbcontain.runtime.leash import Leash
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.namespaces import flags_of
from nbcontain.runtime.stage import Inside

PTRACE_SEIZE, WALL = 0x4206, 0x4000_0000
LOOK = """
grep -E '^(Umask|TracerPid|Uid|Gid|Groups|Threads|Sig[A-Z][a-z]|ShdPnd|Cap|NoNew|Seccomp|Cpus)' /proc/self/status
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/sessionid; readlink /proc/self/ns/*
for fd in /proc/self/fd/*; do readlink $fd | sed 's/[0-9][0-9]*/N/g'; done; ls -A /proc/self/task | wc -l
id; pwd; umask; env | sort; test $(cut -d' ' -f6 /proc/self/stat) = $$ && echo leads
"""
"""All that a program can see of what it is; it leads a session of its own."""


def waiting_of(container: Container) -> list[int]:
    """The stages that wait for a further program in it."""
    assert container.pid is not None
    return helpers_of(container.pid)


def is_told(container: Container, stage: int) -> bool:
    """Whether its supervisor has told that stage what to run: from then on it looks after its end."""
    told = Path(f"/proc/{supervisor_of(container.pid)}/fdinfo")
    for each in told.iterdir():
        with suppress(OSError):
            if f"Pid:\t{stage}\n" in each.read_text():
                return True
    return False


def none_for_answered(container: Container) -> None:
    if container.info.answers:
        pytest.skip("some of its calls are answered by a process: then no stage waits")


def warmed(machine: Machine, **options: object) -> Container:
    """A container with a stage that waits."""
    container = machine.start(SLEEP, **options)
    none_for_answered(container)
    machine.execute(container, "true")
    until(lambda: len(waiting_of(container)) == 1)
    return container


@pytest.mark.parametrize("user", ["", "app", "7", "4321:50"])
def test_what_waited_is_what_it_would_be_otherwise(profile: str, machine: Machine, user: str) -> None:
    container = machine.start(SLEEP, user=user, workdir="/proc")
    none_for_answered(container)
    first = machine.execute(container, "sh", "-c", LOOK)
    assert first[0] == 0 and "Seccomp" in first[1]
    until(lambda: len(waiting_of(container)) == 1)
    assert machine.execute(container, "sh", "-c", LOOK) == first
    # What was asked for last, by whom it is expected to be asked again, says nothing of the next.
    until(lambda: len(waiting_of(container)) == 1)
    said = machine.execute(container, "sh", "-c", "id -u; pwd; echo $A", env=("A=b",), cwd="/etc", user="0:0")
    assert said == (0, "0\n/etc\nb\n")


@pytest.mark.parametrize(
    "options", [{"ulimits": ("nofile=77:77",)}, {"security_opt": ("no-new-privileges",)}, {"memory": "64m"}], ids=str
)
def test_limits_are_kept_by_what_waited(machine: Machine, options: dict[str, object]) -> None:
    if "memory" in options and not Tree.here(is_root=machine.engine.host.is_root).keeps("memory"):
        pytest.skip("no control groups here")
    container = machine.start(SLEEP, **options)
    first = machine.execute(container, "sh", "-c", LOOK)
    until(lambda: len(waiting_of(container)) == 1)
    assert machine.execute(container, "sh", "-c", LOOK) == first


def test_privileges_of_one_are_not_those_of_the_next(machine: Machine) -> None:
    container = warmed(machine)
    capabilities = []
    for privileged in (True, False, True):
        until(lambda: len(waiting_of(container)) == 1)
        _, text = machine.execute(container, "cat", "/proc/self/status", privileged=privileged)
        capabilities.append(re.findall(r"(?:CapEff|Seccomp):\s*(\w+)", text))
    assert capabilities[0] == capabilities[2] != capabilities[1]
    assert capabilities[1][1] == "2"


def test_errors_are_told_by_what_waited(profile: str, machine: Machine) -> None:
    container = warmed(machine)
    for words, user, error in (
        (("nothing-like-it",), "", CommandNotFound), (("/etc/passwd",), "", CommandNotExecutable),
        (("true",), "nobody-here", SetupFailed),
    ):  # fmt: skip
        until(lambda: len(waiting_of(container)) == 1)
        with pytest.raises(error):
            machine.execute(container, *words, user=user)
    until(lambda: len(waiting_of(container)) == 1)
    assert machine.execute(container, "sh", "-c", "exit 7")[0] == 7
    # Nobody is left that has not been reaped.
    until(lambda: "Z" not in children_of(supervisor_of(container.pid)).values())


def test_a_program_that_is_its_users_alone_is_found(machine: Machine) -> None:
    """Its directory can be entered, and its file executed, by nobody else."""
    container = machine.start(
        "mkdir -m 700 /own; cp /bin/busybox /own/busybox; chmod 700 /own/busybox; chown -R app /own; echo ready; "
        "while :; do sleep 0.05; done", cap_drop=("DAC_OVERRIDE", "DAC_READ_SEARCH"),
    )  # fmt: skip
    for _ in range(2):
        assert machine.execute(container, "/own/busybox", "id", "-un", user="app", cwd="/own") == (0, "app\n")
        until(lambda: len(waiting_of(container)) == 1)


def test_nobody_inside_keeps_a_supervisor_waiting(machine: Machine) -> None:
    """What a stage meets inside may be slow for ever: a file system that a program inside answers for."""
    container = warmed(machine)
    (stage,) = waiting_of(container)
    os.kill(stage, signal.SIGSTOP)
    found: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: found.append(machine.execute(container, "echo", "late")))
    asking.start()
    until(lambda: is_told(container, stage))
    # Answered meanwhile.
    container.reread()
    assert asking.is_alive()
    os.kill(stage, signal.SIGCONT)
    asking.join(20)
    assert found == [(0, "late\n")]


@pytest.mark.parametrize("leaving", [True, False], ids=["whoever asked goes", "it is killed"])
def test_a_stage_that_never_comes_back_leaves_nothing(machine: Machine, leaving: bool) -> None:
    container = warmed(machine)
    (stage,) = waiting_of(container)
    os.kill(stage, signal.SIGSTOP)
    leash, codes = Leash(), []
    asking = threading.Thread(
        target=lambda: codes.append(machine.execute(container, "touch", "/made", leash=leash)[0])
    )
    asking.start()
    until(lambda: is_told(container, stage))
    if leaving:
        leash.let_go()
    else:
        os.kill(stage, signal.SIGKILL)
    asking.join(20)
    assert codes == [128 + signal.SIGKILL]
    until(lambda: stage not in waiting_of(container))
    assert machine.execute(container, "ls", "/made")[0] != 0
    leash.let_go()
    machine.engine.stop(container, 5)
    assert container.state().exit_code == 3


def test_nothing_of_what_waits_is_inside(machine: Machine) -> None:
    container = warmed(machine)
    (stage,) = waiting_of(container)
    for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{stage}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
    held = [os.readlink(f"/proc/{stage}/fd/{fd}") for fd in os.listdir(f"/proc/{stage}/fd")]
    assert sorted(each.partition(":")[0] for each in held) == ["/dev/null"] * 2 + ["anon_inode", "pipe", "socket"]
    assert Path(f"/proc/{stage}/root").resolve() == Path("/")


def test_what_a_stage_has_forked_may_be_gone_when_that_is_heard() -> None:
    """Where a container without processes of its own ends, who is left is killed and reaped (`calls.end_rest`)."""
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    (ours, theirs), (client, asked) = Channel.pair(), Channel.pair()
    execs = Execs(Bundle(Path("/nowhere")), -1, select.poll(), is_root=True)
    running = execs._followed(Inside(os.posix_spawn("/bin/true", ["true"], {}), ours), asked)
    running.is_stage = True
    theirs.send({"pid": gone})
    execs.serve(ours.fileno())
    assert client.receive()[0]["why"] == "No such process"  # type: ignore[index]
    execs.serve(running.pidfd)
    assert len(execs) == 0


@pytest.mark.parametrize("is_heard", [True, False], ids=["its silence first", "its end first"])
def test_what_a_stage_has_forked_ends_if_the_stage_did_not_live_to_tell_of_it(
    machine: Machine, is_heard: bool
) -> None:
    """It is nobody's then but its supervisor's, which has never heard of it."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    container = machine.start(SLEEP)
    if "pid" not in container.bundle.spec.linux.namespaces:
        pytest.skip("what runs in it is in no namespace of its own")
    pidfd = os.pidfd_open(container.pid or 0)
    (ours, theirs), (reading, writing) = Channel.pair(), os.pipe()
    holder = -1 if is_heard else os.dup(theirs.fileno())
    stage = os.fork()
    if stage == 0:
        with suppress(BaseException):
            syscalls.setns(pidfd, flags_of(container.bundle.spec.linux.namespaces))
            if os.fork() == 0:
                os.close(reading)
                os.execve("/bin/sleep", ["sleep", "1000"], {})
            os.write(writing, b".")
        os._exit(0)
    theirs.close()
    os.close(writing)
    try:
        execs = Execs(container.bundle, pidfd, select.poll(), is_root=True)
        running = execs._followed(Inside(stage, ours), None)
        running.is_stage = True
        assert select.select([running.pidfd], [], [], 10)[0]
        assert os.read(reading, 1) == b"."
        if is_heard:
            assert select.select([ours], [], [], 10)[0]
            execs.serve(ours.fileno())
        execs.serve(running.pidfd)
        ended = [fd for fd in list(execs._running) if execs._running[fd] is not running]
        assert len(ended) == 1 and select.select(ended, [], [], 10)[0]
        execs.serve(ended[0])
        execs.serve(running.pidfd)
        assert len(execs) == 0
        # Nobody has the other end any more.
        assert os.read(reading, 1) == b""
    finally:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        for fd in (reading, pidfd, *(() if is_heard else (holder,))):
            os.close(fd)


@pytest.mark.timeout(60)
def test_a_stage_that_is_killed_between_its_fork_and_telling_of_it_keeps_nobody_waiting(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has forked holds its end, and waits, too."""
    container = machine.start(SLEEP)
    none_for_answered(container)
    if "pid" not in container.bundle.spec.linux.namespaces:
        pytest.skip("what runs in it is in no namespace of its own")
    monkeypatch.setattr(Channel, "say", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    pidfd, null = os.pidfd_open(container.pid or 0), os.open(os.devnull, os.O_RDWR)
    try:
        execs = Execs(container.bundle, pidfd, select.poll(), is_root=machine.engine.host.is_root)
        with pytest.raises(ChildProcessError):
            execs.start(None, container._exec_order(("true",), (), "", ""), [null] * 3)
        # And that is reaped.
        (end,) = execs._running
        assert select.select([end], [], [], 10)[0]
        execs.serve(end)
        assert len(execs) == 0
    finally:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        os.close(pidfd)
        os.close(null)


@pytest.mark.timeout(90)
def test_whoever_traces_a_program_and_never_hears_of_its_end_keeps_nobody_waiting(machine: Machine) -> None:
    """As a program inside may do it, which the filter allows: the parent of who is traced hears of it last."""
    container = machine.start(SLEEP)
    supervisor = supervisor_of(container.pid)
    codes: list[int] = []
    asking = threading.Thread(target=lambda: codes.append(machine.execute(container, "sleep", "1000")[0]))
    asking.start()

    def sleeping() -> list[int]:
        words = {pid: Path(f"/proc/{pid}/cmdline") for pid in children_of(supervisor)}
        return [pid for pid, path in words.items() if path.exists() and path.read_bytes() == b"sleep\0" b"1000\0"]

    until(lambda: bool(sleeping()))
    (traced,) = sleeping()
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if ptrace(PTRACE_SEIZE, traced, None, None):
        pytest.skip("a program of another user is not traced")
    try:
        os.kill(traced, signal.SIGKILL)
        asking.join(20)
        assert codes == [128 + signal.SIGKILL]
        assert machine.execute(container, "sh", "-c", "exit 7")[0] == 7
        assert children_of(supervisor)[traced] == "Z"
    finally:
        os.waitpid(traced, WALL)
    # At once: nobody's end in there is over, and so not the container's, before all that ended are reaped.
    until(lambda: "Z" not in children_of(supervisor).values())


def test_a_container_that_ends_while_somebody_asks_for_a_program_is_said_to_have_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = machine.start(SLEEP)

    def left() -> Channel:
        ours, theirs = Channel.pair()
        theirs.close()
        return ours

    monkeypatch.setattr(container, "_connected", left)
    for asked in (
        lambda: container.execute(("true",)), lambda: container.exec_detached(("true",)),
        lambda: container.exec_terminal(("true",), size=(24, 80)), container.check,
        lambda: container.call("m", "f", {}, []),
    ):  # fmt: skip
        with pytest.raises(NotRunning):
            asked()


def test_where_the_container_has_just_ended_that_is_said_and_no_step_of_a_setup(machine: Machine) -> None:
    container = machine.start(SLEEP)
    none_for_answered(container)
    if "pid" not in container.bundle.spec.linux.namespaces:
        pytest.skip("what runs in it is in no namespace of its own")
    order, pidfd = container._exec_order(("true",), (), "", ""), os.pidfd_open(container.pid or 0)
    execs = Execs(container.bundle, pidfd, select.poll(), is_root=machine.engine.host.is_root)
    execs._last = order
    execs._expect()
    os.kill(container.pid or 0, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    (client, asked), null = Channel.pair(), os.open(os.devnull, os.O_RDWR)
    try:
        execs.start(asked, order, [null] * 3)
        stage = next(iter(execs._running))
        assert select.select([stage], [], [], 10)[0]
        execs.serve(stage)
        assert client.receive()[0]["error"] == "NotRunning"  # type: ignore[index]
        while len(execs):
            (ready, *_), _, _ = select.select(list(execs._running), [], [], 10)
            execs.serve(ready)
        execs._last = None
        with pytest.raises(NotRunning):
            execs.start(None, order, [null] * 3)
    finally:
        execs.dismiss()
        os.close(null)
        os.close(pidfd)
