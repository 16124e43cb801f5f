"""What Python gets of a program that failed."""

from __future__ import annotations

import pytest

from nbcontain.engine import Engine
from nbcontain.errors import ContainerFailed
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
