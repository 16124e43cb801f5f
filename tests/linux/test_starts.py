"""Processes by pid and beginning."""

from __future__ import annotations

import os
import signal
import subprocess

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
