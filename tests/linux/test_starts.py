"""Processes by pid and beginning."""

from __future__ import annotations

import io
import os
import signal
import subprocess

import pytest

from machine import until
from nbcontain.linux import starts


def test_a_process_is_ended_by_pid_and_beginning_and_another_of_that_number_is_not() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None and child.stdout is not None
    began = starts.start_of(child.pid)
    assert began == starts.start_time(child.pid) > 0
    starts.kill(child.pid, began - 1)
    # Whoever has been sent SIGKILL answers nothing any more, though its end may take a moment.
    child.stdin.write(b"alive\n")
    assert child.stdout.readline() == b"alive\n"
    starts.kill(child.pid, began)
    # Ended, and not waited for: its number is still taken.
    until(lambda: starts.start_of(child.pid) == 0)
    assert starts.start_time(child.pid) == began and os.path.exists(f"/proc/{child.pid}")
    assert child.wait() == -signal.SIGKILL
    starts.kill(child.pid, began)


def test_where_the_kernel_does_not_tell_of_namespaces_nobody_is_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "children_of", lambda pid: [1, 2])
    monkeypatch.setattr(starts, "open", lambda *_, **__: io.StringIO("Name:\tx\nPid:\t2\n"), raising=False)
    assert starts.further_of(os.getpid()) == []
