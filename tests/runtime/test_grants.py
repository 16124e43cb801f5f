"""What a container gets besides its image: devices, temporary file systems, groups, knobs of the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from machine import SLEEP, Machine
from nbcontain.errors import SetupFailed, UsageError
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.runtime import grants, mounts
from nbcontain.runtime.generate import RunOptions


def test_a_directory_in_memory(profile: str, machine: Machine) -> None:
    script = (
        "grep -E ' (/run|/tmp/x) ' /proc/mounts | cut -d' ' -f2-4 | sort; "
        "stat -c %a /run /tmp/x; echo a > /run/a; cat /run/a"
    )
    lines = machine.sh(script, tmpfs=("/run", "/tmp/x:size=64k,mode=700,exec")).splitlines()
    first, second = lines[:2]
    assert first.startswith("/run tmpfs rw,") and {"nosuid", "nodev", "noexec"} <= set(first.split()[2].split(","))
    assert second.startswith("/tmp/x tmpfs rw,") and "size=64k" in second and "noexec" not in second
    assert lines[2:] == ["1777", "700", "a"]


def test_a_directory_in_memory_has_the_mode_of_what_it_covers(profile: str, machine: Machine, tmp_path: Path) -> None:
    """Else /run or /root would be everybody's."""
    (tmp_path / "inner").mkdir(0o711)
    options: dict[str, Any] = {"volumes": (f"{tmp_path}:/v",), "tmpfs": ("/v/inner", "/v/made")}
    assert machine.sh("stat -c %a /v/inner /v/made; ls -A /v/inner", **options).splitlines() == ["711", "1777"]


def test_a_directory_in_memory_is_full_when_it_is(profile: str, machine: Machine) -> None:
    assert machine.exit_code("dd", "if=/dev/zero", "of=/x/file", "bs=1k", "count=200", tmpfs=("/x:size=64k",)) == 1


@pytest.mark.parametrize("word", ["run", "/", "/proc/x", "/sys", "/run:size=lots", "/run:mode=9", "/run:magic", "/a\0"])
def test_a_directory_in_memory_that_is_none_is_one_clear_error(word: str) -> None:
    with pytest.raises(UsageError, match="--tmpfs"):
        mounts.asked(RunOptions(image="box", tmpfs=(word,)))


def test_a_device_of_this_machine(profile: str, machine: Machine) -> None:
    given = ("/dev/zero:/dev/nothing", "/dev/full:/dev/deep/er/full:rwm")
    script = "head -c 2 /dev/nothing | od -An -tx1; echo x > /dev/deep/er/full || echo full; "
    script += "chmod 0 /dev/nothing || echo kept"
    assert machine.sh(f"({script}) 2>/dev/null", device=given).split() == ["00", "00", "full", "kept"]


@pytest.mark.parametrize("word", ["/nowhere", "/etc/passwd", "dev/zero", "/dev/zero:/dev/x:q", "/dev/zero:x", ""])
def test_a_device_that_is_none_is_one_clear_error(word: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        grants.devices((word,))


def test_a_device_may_be_less_than_read_and_written(profile: str, machine: Machine) -> None:
    given = ("/dev/fuse:/dev/read:r", "/dev/full:/dev/deep/full")
    if profile != "root":
        with pytest.raises(UsageError, match="only root can have less of a device"):
            machine.sh("true", device=given[1:] + ("/dev/zero:/dev/read:r",))
        return
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no /dev/fuse here, which nothing else has a rule for")
    script = "(exec 3</dev/read) && echo read; (exec 3>/dev/read) 2>/dev/null || echo kept; "
    script += "(echo x >/dev/deep/full) 2>/dev/null || echo full; echo x >/dev/null && echo null"
    assert machine.sh(script, device=given).split() == ["read", "kept", "full", "null"]


def test_the_domain_that_it_calls_itself_of(profile: str, machine: Machine) -> None:
    if "uts" in machine.engine.profile.rung.namespaces:
        assert machine.sh("cat /proc/sys/kernel/domainname", domainname="example.org") == "example.org\n"
    with pytest.raises(UsageError, match="UTS"):
        machine.sh("true", domainname="example.org", uts="host")


def test_only_the_streams_that_are_asked_for_are_seen(machine: Machine) -> None:
    assert machine.sh("echo a; echo b >&2", attach=("STDERR",)) == ""
    assert machine.sh("echo a; echo b >&2", attach=("stdout",)) == "a\n"
    with pytest.raises(UsageError, match="valid streams are"):
        machine.sh("true", attach=("everything",))
    with pytest.raises(UsageError, match="-a and -d"):
        machine.start("true", attach=("stdout",))


def test_nodes_that_a_rule_names_can_be_made_and_used(profile: str, machine: Machine) -> None:
    number = Path("/dev/loop-control").stat().st_rdev if Path("/dev/loop-control").exists() else os.makedev(10, 237)
    rule = f"c {os.major(number)}:{os.minor(number)} rwm"
    if profile != "root":
        with pytest.raises(UsageError, match="root's to give"):
            machine.sh("true", device_cgroup_rule=(rule,))
        return
    script = "try() { mknod $1 c $2 $3; (: < $1) 2> /dev/null && echo open || echo closed; }; "
    script += f"try /dev/n {os.major(number)} {os.minor(number)}; try /dev/mem 1 1; try /dev/z 1 5; try /elsewhere 1 5"
    given: dict[str, Any] = {"cap_add": ("MKNOD",), "device_cgroup_rule": (rule,)}
    assert machine.sh(script, **given).split() == ["open", "closed", "open", "closed"]
    assert machine.sh(script, cap_add=("MKNOD",), device_cgroup_rule=("a 1:5 r",)).split()[:2] == ["closed"] * 2
    with pytest.raises(UsageError, match="invalid device cgroup format"):
        machine.sh("true", device_cgroup_rule=("c 10 rwm",))
    with pytest.raises(UsageError, match="cannot be together"):
        machine.sh("true", device_cgroup_rule=(rule,), userns="auto")
    assert machine.engine.create(RunOptions(image="box", command=("true",), **given)).to_dict()["HostConfig"][
        "DeviceCgroupRules"
    ] == [rule]


def test_with_all_power_all_devices_are_there(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has all devices")
    wanted = {each.name for each in Path("/dev").iterdir() if each.is_block_device()}
    assert wanted <= set(machine.sh("ls /dev", privileged=True).split())


def test_a_group_more_by_name_or_number(profile: str, machine: Machine) -> None:
    if profile == "rootless-single":
        pytest.skip("this user has one id only, so that there are no other groups")
    assert set(machine.sh("id -G", group_add=("audio", "77")).split()) == {"0", "29", "77"}
    assert set(machine.sh("id -G", user="app", group_add=("77",)).split()) == {"1001", "29", "50", "77"}
    container = machine.start(SLEEP, group_add=("77",))
    assert machine.execute(container, "id", "-G")[1].split() == ["0", "77"]
    with pytest.raises(SetupFailed, match="there is no group 'wheel'"):
        machine.run("true", group_add=("wheel",))


def test_settings_of_its_own_namespaces(profile: str, machine: Machine) -> None:
    script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start"
    given = ("kernel.shmmni=512", "net.ipv4.ip_unprivileged_port_start=0")
    before = Path("/proc/sys/kernel/shmmni").read_text()
    assert machine.sh(script, sysctl=given, network="none").split() == ["512", "0"]
    assert Path("/proc/sys/kernel/shmmni").read_text() == before


@pytest.mark.parametrize(
    "word",
    [
        "kernel.core_pattern=|/x",
        "vm.swappiness=1",
        "net.ipv4.ip_forward=1",
        "kernel.shmmni",
        "kernel..x=1",
        "../x=1",
        "=1",
    ],
)
def test_a_setting_of_this_machines_is_one_clear_error(word: str) -> None:
    with pytest.raises(UsageError, match="--sysctl"):
        grants.sysctls((word,), has_network=False)


def test_a_setting_that_the_kernel_refuses_says_so(profile: str, machine: Machine) -> None:
    with pytest.raises(SetupFailed, match=r"cannot set kernel\.shmmni"):
        machine.run("true", sysctl=("kernel.shmmni=many",))


def _may_lower() -> bool:
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> CAPABILITIES.index("SYS_RESOURCE") & 1)


def test_how_soon_it_is_killed_for_memory(profile: str, machine: Machine) -> None:
    assert machine.sh("cat /proc/self/oom_score_adj", oom_score_adj=500) == "500\n"
    with pytest.raises(UsageError, match="1000"):
        machine.run("true", oom_score_adj=1001)


def test_a_further_program_has_the_containers_score(profile: str, machine: Machine) -> None:
    container = machine.start("echo up; sleep 60", oom_score_adj=500)
    for _ in range(2):  # the second one by a stage that has waited for it
        assert machine.execute(container, "cat", "/proc/self/oom_score_adj") == (0, "500\n")
    assert machine.execute(container, "cat", "/proc/self/oom_score_adj", user="1:1") == (0, "500\n")
    if _may_lower():
        container = machine.start("echo up; sleep 60", oom_score_adj=-500)
        for _ in range(2):
            assert machine.execute(container, "cat", "/proc/self/oom_score_adj") == (0, "-500\n")


def test_lowering_the_score_is_roots(profile: str, machine: Machine) -> None:
    if _may_lower():
        assert machine.sh("cat /proc/self/oom_score_adj", oom_score_adj=-500) == "-500\n"
    else:
        with pytest.raises(SetupFailed, match="oom score"):
            machine.run("true", oom_score_adj=-500)


def test_all_power_is_said_in_red() -> None:
    from nbcontain.commands.runs import PRIVILEGED
    from nbcontain.display.html import facts

    assert "nbc-danger" in facts([("privileged", PRIVILEGED)]) and "nbc-danger" not in facts([("network", "none")])
