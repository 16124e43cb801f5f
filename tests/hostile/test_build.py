"""What a Dockerfile, a build context or a RUN does to reach the host's files, or to leave something behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.errors import BuildError, NbcontainError


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("mine\n")
    return directory


@pytest.mark.parametrize(
    "source", ["link", "up/secret", "absolute/secret", "file/../up/secret", "../canary/secret", "li*"]
)
def test_copy_takes_nothing_from_outside_the_context(
    machine: Machine, context: Path, canary: Path, source: str
) -> None:
    (context / "link").symlink_to(canary / "secret")
    (context / "up").symlink_to("../canary")
    (context / "absolute").symlink_to(canary)
    try:
        machine.build(f"FROM box\nCOPY {source} /taken/\n", "taken", context)
    except NbcontainError:
        return
    assert "do not touch" not in machine.sh("cat /taken/* 2>/dev/null; true", image="taken")


@pytest.mark.parametrize(
    "step",
    ["COPY file /out/there/", "COPY file /out/secret", "WORKDIR /out/deep/er", "COPY . /out",
     "COPY --from=box /bin/busybox /out/"],
)  # fmt: skip
def test_a_destination_that_is_a_symlink_to_the_host_is_inside(
    machine: Machine, context: Path, canary: Path, step: str
) -> None:
    for leads_to in (str(canary), f"../../../../../../..{canary}"):
        machine.build(f"FROM box\nRUN ln -s {leads_to} /out && mkdir -p {canary}\n{step}\n", "placed", context)


def test_removing_a_mount_point_through_a_symlink_removes_nothing_outside(
    machine: Machine, context: Path, canary: Path
) -> None:
    # /etc/hosts and so on were made as mount points, and are taken away after the step: by then /etc leads elsewhere.
    text = f"FROM scratch\nCOPY --from=box /bin /bin\nENV PATH=/bin\nRUN mv /etc /old && ln -s {canary} /etc\n"
    machine.build(text, "bare", context)


def test_a_program_that_outlives_its_run_is_gone_and_writes_no_more(machine: Machine, context: Path) -> None:
    text = (
        "FROM box\nRUN (trap '' TERM HUP; while :; do date >> /late; done) & "
        "setsid sh -c 'sleep 0.3; echo x > /later' & sleep 0.05\n"
        "RUN cp /late /first; sleep 0.4; cmp /late /first && ! test -e /later\n"
    )
    machine.build(text, "late", context)


def test_a_context_that_holds_pipes_and_sockets_does_not_hang_a_build(machine: Machine, context: Path) -> None:
    os.mkfifo(context / "pipe")
    machine.build("FROM box\nCOPY . /all/\n", "piped", context)
    assert machine.sh("ls /all", image="piped") == "file\n"
    (context / ".dockerignore").unlink(missing_ok=True)
    os.mkfifo(context / ".dockerignore")
    machine.build("FROM box\nCOPY file /all/\n", "piped", context)


@pytest.mark.parametrize("owner", ["app:nobody-here", "-1", "4294967295", "root;id", "9" * 5000])
def test_an_owner_that_is_none_is_an_error_with_its_name(machine: Machine, context: Path, owner: str) -> None:
    with pytest.raises(BuildError):
        machine.build(f"FROM box\nCOPY --chown={owner} file /\n", "owned", context)


def test_what_is_unpacked_or_copied_is_never_executed(machine: Machine, context: Path) -> None:
    # Neither a loader's file nor a program of the image is used by the steps that are ours.
    (context / "ld.so.preload").write_text("/evil.so\n")
    text = (
        "FROM box\nCOPY ld.so.preload /etc/ld.so.preload\nENV LD_PRELOAD=/evil.so PYTHONPATH=/ PATH=/evil\n"
        "COPY file /one\nWORKDIR /two\nCOPY file .\n"
    )
    machine.build(text, "preload", context)


def test_a_build_that_fails_on_the_terminal_ends(machine: Machine, context: Path) -> None:
    # It did not: what the traceback held was let go when the interpreter could start no thread any more.
    (context / "Dockerfile").write_text("FROM box\nRUN exit 3\n")
    command = [sys.executable, "-m", "nbcontain", "build", str(context)]
    environment = os.environ | {"NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    assert subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False).returncode != 0
