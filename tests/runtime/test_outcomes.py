"""What Python gets of a program that failed."""

from __future__ import annotations

import os
import subprocess

import pytest

from nbcontain.engine import Engine
from nbcontain.errors import ContainerFailed
from nbcontain.runtime import execs
from nbcontain.runtime.generate import ExecOptions, RunOptions

COMMAND = ("/bin/busybox", "sh", "-c", "echo said; echo complained >&2; exit 3")


def test_what_a_failed_program_said_is_kept_with_the_error(engine: Engine, busybox_image: str) -> None:
    with pytest.raises(ContainerFailed) as raised:
        engine.run(RunOptions(image=busybox_image, command=COMMAND, remove=True)).result()
    result = raised.value.result
    assert (result.exit_code, result.stdout, result.stderr) == (3, "said\n", "complained\n")


def test_so_is_that_of_a_further_program(engine: Engine, busybox_image: str) -> None:
    sleeping = ("/bin/busybox", "sleep", "60")
    engine.run(RunOptions(image=busybox_image, name="web", command=sleeping, detach=True)).result()
    with pytest.raises(ContainerFailed) as raised:
        engine.exec(ExecOptions(name="web", command=COMMAND)).result()
    assert raised.value.result.stderr == "complained\n"


def test_a_further_program_that_cannot_be_told_what_to_be_is_killed() -> None:
    """Unseen from outside: nothing that a user can say makes the supervisor's own steps fail just then."""
    with subprocess.Popen(["sleep", "60"]) as waiting:
        running = execs._Exec(waiting.pid, os.pidfd_open(waiting.pid), None, None, on_end=lambda code, error: None)
        with pytest.raises(OSError, match="no room"), execs._ended_on_error(running):
            raise OSError("no room")
        assert waiting.wait(10) == -9
        os.close(running.pidfd)
    assert running.on_end is None
