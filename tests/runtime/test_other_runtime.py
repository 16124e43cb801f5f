"""--runtime: containers that crun and runc make, and that are otherwise like any other."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

import needs
from machine import Machine, said, until
from nbcontain.errors import ContainerFailed, SetupFailed, Unavailable, UsageError
from nbcontain.runtime.other_runtime import found


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    needs.program(request.param)
    return str(request.param)


def test_its_whole_life(machine: Machine, runtime: str) -> None:
    script = "trap 'exit 3' TERM; id -un; touch /made; echo ready; while :; do sleep 0.1; done"
    container = machine.start(script, name="other", runtime=runtime, user="app", memory="64m", tmpfs=("/mnt/t",),
                              volumes=("/data",), workdir="/tmp", network=("none",))  # fmt: skip
    until(lambda: "ready" in said(container))
    engine = machine.engine
    facts = engine.container("other").to_dict()
    assert facts["HostConfig"]["Runtime"] == runtime and facts["State"]["Status"] == "running"
    assert machine.execute(container, "sh", "-c", "id -un; cat /proc/1/comm; pwd") == (0, "app\nsh\n/tmp\n")
    engine.container("other")["/brought"] = b"text"
    assert machine.execute(container, "cat", "/brought")[1] == "text"
    assert engine.container("other").top()
    engine.resources.pause(container)
    engine.resources.unpause(container)
    engine.stop(container, 10)
    assert container.state().exit_code == 3
    assert ("A", "/mnt/t") not in engine.diff(container) and ("A", "/brought") in engine.diff(container)
    engine.start(container)
    until(lambda: container.status == "running" and container.pid is not None)
    engine.kill(container)
    assert container.wait(10) == 128 + signal.SIGKILL
    engine.remove_container(container, volumes=True)
    assert not engine.volumes.all()


def test_it_runs_in_the_foreground_and_is_forgotten(machine: Machine, runtime: str) -> None:
    assert machine.sh("echo $HOME $GREETING; cat /etc/hostname", runtime=runtime, hostname="named", user="app") == (
        "/home/app hello\nnamed\n"
    )
    with pytest.raises(ContainerFailed) as caught:
        machine.sh("exit 7", runtime=runtime)
    assert caught.value.exit_status == 7
    with pytest.raises(SetupFailed, match=f"{runtime} cannot create the container") as failed:
        machine.run("no-such-program", runtime=runtime)
    assert "no-such-program" in failed.value.why


def test_a_device_that_an_image_brings_opens_nothing(machine: Machine, runtime: str) -> None:
    # /dev/kmsg: it can be opened for writing by whoever may open its node, without further power.
    machine.start("mknod -m 666 /node c 1 11; echo ready", name="maker", cap_add=("MKNOD",)).wait(10)
    machine.engine.container("maker").commit("noded")
    said = machine.sh("ls -l /node; true > /node && echo opened; true", image="noded", runtime=runtime)
    assert "1,  11" in said and "opened" not in said


def test_who_may_make_nodes_can_use_those_that_it_was_given_alone(machine: Machine, runtime: str) -> None:
    script = "mknod /dev/n c 1 11; true > /dev/n && echo opened; true > /dev/null && echo null"
    assert machine.sh(script, runtime=runtime, cap_add=("MKNOD",)) == "null\n"
    said = machine.sh(script, runtime=runtime, cap_add=("MKNOD",), device_cgroup_rule=("c 1:11 w",))
    assert said == "opened\nnull\n"
    assert machine.sh("true > /dev/kmsg && echo given", runtime=runtime, device=("/dev/kmsg",)) == "given\n"


def test_its_group_is_among_its_groups(machine: Machine, runtime: str) -> None:
    # Whoever is in a group is in it also where the primary one is changed (CVE-2022-36109).
    assert machine.sh("grep ^Groups /proc/self/status", runtime=runtime, user="app:50").split() == ["Groups:", "50"]


@pytest.mark.parametrize("options", [
    {"tty": True}, {"init": True}, {"userns": "auto"}, {"restart": "always", "remove": False},
    {"mount": ("type=image,source=box,target=/i",)},
])  # fmt: skip
def test_what_only_our_own_does_is_told(machine: Machine, options: dict[str, object]) -> None:
    with pytest.raises(Unavailable, match="--runtime true cannot be had"):
        machine.sh("true", runtime=shutil.which("true"), **options)


def test_a_runtime_that_is_not_here_is_named(machine: Machine) -> None:
    with pytest.raises(UsageError, match="invalid runtime name: no-such-runtime"):
        machine.sh("true", runtime="no-such-runtime")
    with pytest.raises(UsageError, match="invalid runtime name: /etc/passwd"):
        machine.sh("true", runtime="/etc/passwd")
    assert found("nbcontain", "") == found("", "") == ""
    assert found("sh", "/bin:/usr/bin") == os.path.realpath("/bin/sh")
