"""A child that does calls of the kernel and nothing else.

It is forked by a process with one thread, which that of the tests may not be: without glibc's help the child would find
its memory locked by a thread that it has not.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcontain.linux import forks, syscalls
from reliability.deeds import with_one_thread

READ = {"x86_64": 0, "aarch64": 63}
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(calls: forks.Calls) -> tuple[int, forks.Failure | None]:
    """The child's exit code, and what kept it from its program."""
    child = calls.fork()
    failure = child.failure()
    return ended(child.pid), failure


@with_one_thread
def test_a_child_becomes_a_program_that_gets_every_word_and_leads_a_session(tmp_path: Path) -> None:
    script = 'printf "%s|" "$@" "$A" "$B" >"$1"; test $(cut -d" " -f6 /proc/self/stat) = $$; exit $((7 + $?))'
    words = ["sh", "-c", script, "sh", str(tmp_path / "told"), "", "a b", "ä"]
    env = {"A": "one=two", "B": "", "PATH": os.defpath}
    assert outcome(forks.Calls(forks.lead_session(), forks.execute("/bin/sh", words, env))) == (7, None)
    assert (tmp_path / "told").read_text(encoding="utf-8") == f"{tmp_path}/told||a b|ä|one=two||"


@with_one_thread
def test_a_child_with_no_words_and_no_environment_becomes_its_program() -> None:
    assert outcome(forks.Calls(forks.execute("/bin/true", ["true"], {}))) == (0, None)


@with_one_thread
def test_a_child_has_nothing_of_its_parents_memory_but_its_calls() -> None:
    reading, writing = os.pipe()
    waits: forks.Call = READ[platform.machine()], (reading, bytes(8), 1)
    child = forks.Calls(waits, forks.execute("/bin/true", ["true"], {"A": "only this"})).fork()
    maps = Path(f"/proc/{child.pid}/maps").read_text(encoding="ascii").splitlines()
    places = [[int(each, 16) for each in line.split()[0].split("-")] for line in maps]
    assert sum(end - start for start, end in places) <= 4 * os.sysconf("SC_PAGESIZE")
    os.write(writing, b".")
    assert child.failure() is None
    assert ended(child.pid) == 0


@with_one_thread
def test_nothing_of_this_kind_is_forked_where_nobody_may_make_code() -> None:
    assert forks.is_possible()
    try:
        syscalls.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN)
    except OSError:
        return  # Linux 6.3
    assert not forks.is_possible()


@with_one_thread
def test_what_cannot_be_executed_is_told() -> None:
    calls = forks.Calls(forks.lead_session(), forks.execute("/nothing/there", ["x"], {}))
    assert outcome(calls) == (1, forks.Failure(errno.ENOENT, is_last=True))


@with_one_thread
def test_nothing_is_done_after_a_call_that_does_not_succeed() -> None:
    # No filter ends without an answer.
    calls = forks.Calls(forks.load_filter(bytes(8), 0), forks.execute("/bin/true", ["true"], {}))
    assert outcome(calls) == (1, forks.Failure(errno.EINVAL, is_last=False))


@pytest.mark.parametrize(("path", "args", "env"), [("/a\0", [], {}), ("/a", ["\0"], {}), ("/a", ["a"], {"A": "\0"})])
def test_a_word_that_the_kernel_would_cut_off_is_an_error(path: str, args: list[str], env: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="null byte"):
        forks.execute(path, args, env)


def successor(then: Callable[[int], None]) -> tuple[int, int]:
    """Have a process of ours succeeded by one that does this with its pid; gives both pids, as the second says."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    predecessor = os.fork()
    if predecessor == 0:
        try:
            pid = forks.succeeded()
            os.write(writing, b"%d" % pid)
            then(pid)
        finally:
            os._exit(9)
    os.close(writing)
    return predecessor, int(os.read(reading, 20) or b"0")


@with_one_thread
def test_who_is_succeeded_ends_well_when_its_successor_has_executed_a_program(tmp_path: Path) -> None:
    words = ["sh", "-c", 'test $$ = "$1" && test $PPID = "$2" && read -r line', "sh"]
    reading, writing = os.pipe()

    def execute(pid: int) -> None:
        # All that is changed here is changed in one memory, which the program does not have.
        os.dup2(reading, 0)
        os.execv("/bin/sh", [*words, str(pid), str(os.getppid())])

    predecessor, pid = successor(execute)
    assert os.getpid() == int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    assert ended(predecessor) == 0
    # And not when that ends.
    os.write(writing, b"\n")
    assert ended(pid) == 0


@with_one_thread
def test_who_is_succeeded_waits_and_ends_with_its_successor() -> None:
    reading, writing = os.pipe()
    predecessor, pid = successor(lambda pid: os._exit(len(os.read(reading, 3))))
    assert os.waitpid(predecessor, os.WNOHANG) == (0, 0)
    os.write(writing, b"abc")
    assert (ended(pid), ended(predecessor)) == (3, 0)
    predecessor, pid = successor(lambda pid: os.kill(os.getpid(), signal.SIGKILL))
    assert (ended(pid), ended(predecessor)) == (-signal.SIGKILL, 0)


@with_one_thread
def test_who_is_succeeded_may_be_killed() -> None:
    reading, writing = os.pipe()
    predecessor, pid = successor(lambda pid: os._exit(len(os.read(reading, 3))))
    os.kill(predecessor, signal.SIGKILL)
    assert ended(predecessor) == -signal.SIGKILL
    os.write(writing, b"ab")
    assert ended(pid) == 2


@with_one_thread
def test_where_no_code_can_be_made_nobody_is_succeeded() -> None:
    if os.fork() == 0:
        syscalls.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN)
        try:
            forks.succeeded()
        except OSError:
            os._exit(5)
        os._exit(6)
    assert ended(-1) == 5
