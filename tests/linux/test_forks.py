"""A child that does calls of the kernel and nothing else.

It is forked by a process with one thread, which that of the tests may not be: without glibc's help the child would find
its memory locked by a thread that it has not.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nbcontain.linux import forks
from reliability.deeds import with_one_thread


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def failed_in_child(calls: forks.Calls) -> tuple[int, bool]:
    """Of which call, as the child sees it: its errno, and whether it was the last one."""
    reading, writing = os.pipe()
    pid = calls.fork()
    if pid == 0:
        os.write(writing, f"{calls.errno} {int(calls.is_last())}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        number, is_last = told.read().split()
    assert ended(pid) == 0
    return int(number), is_last == "1"


@with_one_thread
def test_a_child_becomes_a_program_that_gets_every_word_and_leads_a_session(tmp_path: Path) -> None:
    script = 'printf "%s|" "$@" "$A" "$B" >"$1"; test $(cut -d" " -f6 /proc/self/stat) = $$; exit $((7 + $?))'
    words = ["sh", "-c", script, "sh", str(tmp_path / "told"), "", "a b", "ä"]
    env = {"A": "one=two", "B": "", "PATH": os.defpath}
    assert ended(forks.Calls(forks.lead_session(), forks.execute("/bin/sh", words, env)).fork()) == 7
    assert (tmp_path / "told").read_text(encoding="utf-8") == f"{tmp_path}/told||a b|ä|one=two||"


@with_one_thread
def test_a_child_with_no_words_and_no_environment_becomes_its_program() -> None:
    assert ended(forks.Calls(forks.execute("/bin/true", ["true"], {})).fork()) == 0


@with_one_thread
def test_what_cannot_be_executed_is_told_to_the_child() -> None:
    calls = forks.Calls(forks.lead_session(), forks.execute("/nothing/there", ["x"], {}))
    assert failed_in_child(calls) == (errno.ENOENT, True)


@with_one_thread
def test_nothing_is_done_after_a_call_that_does_not_succeed() -> None:
    # No filter ends without an answer.
    calls = forks.Calls(forks.load_filter(bytes(8), 0), forks.execute("/bin/true", ["true"], {}))
    assert failed_in_child(calls) == (errno.EINVAL, False)


@pytest.mark.parametrize(("path", "args", "env"), [("/a\0", [], {}), ("/a", ["\0"], {}), ("/a", ["a"], {"A": "\0"})])
def test_a_word_that_the_kernel_would_cut_off_is_an_error(path: str, args: list[str], env: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="null byte"):
        forks.execute(path, args, env)
