"""Namespaces that are shared with this machine or with another container: --pid, --ipc, --uts, --cgroupns, --userns."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from machine import Machine, until
from nbcontain.errors import ContainerNotFound, NbcontainError, NotRunning, SetupFailed, UsageError

KINDS = ("pid", "ipc", "uts", "mnt", "cgroup")


def own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def test_without_a_word_nothing_is_shared(profile: str, machine: Machine) -> None:
    seen = machine.sh("".join(f"readlink /proc/self/ns/{kind}; " for kind in KINDS)).split()
    assert not {own(kind) for kind in KINDS} & {*seen}


@pytest.mark.parametrize(("kind", "options"), [
    ("ipc", {"ipc": "host"}), ("uts", {"uts": "host"}), ("cgroup", {"cgroupns": "host"}), ("pid", {"pid": "host"}),
])  # fmt: skip
def test_what_is_the_hosts_is_that_and_nothing_else(
    profile: str, machine: Machine, kind: str, options: dict[str, str]
) -> None:
    seen = machine.sh("".join(f"readlink /proc/self/ns/{each}; " for each in KINDS), **options).split()
    assert [own(each) == link for each, link in zip(KINDS, seen, strict=True)] == [each == kind for each in KINDS]


def test_with_the_hosts_name_it_has_that_everywhere(profile: str, machine: Machine) -> None:
    name = os.uname().nodename
    assert machine.sh("hostname; cat /etc/hostname; echo $HOSTNAME", uts="host").split() == [name] * 3
    assert "Operation not permitted" in machine.sh("hostname evil 2>&1; true", uts="host")
    with pytest.raises(UsageError, match="conflicting options: hostname and the UTS mode"):
        machine.sh("true", uts="host", hostname="other")


def test_the_hosts_processes_can_be_seen_and_not_reached(profile: str, machine: Machine) -> None:
    pid = os.getpid()
    seen = machine.sh(f"cat /proc/{pid}/comm; cat /proc/{pid}/environ; ls /proc/{pid}/root; true 2>&1", pid="host")
    assert seen.strip() == open(f"/proc/{pid}/comm").read().strip()


def test_all_of_a_containers_processes_end_with_its_first_also_among_the_hosts(profile: str, machine: Machine) -> None:
    # The same test runs as somebody else at the same time.
    sleep = f"sleep {10_000_000 + os.getpid()}"
    container = machine.start(f"echo ready; {sleep} & setsid {sleep} & exec {sleep}", pid="host")

    def running() -> int:
        found = subprocess.run(["pgrep", "-cf", f"^{sleep}"], capture_output=True, text=True, check=False)
        return int(found.stdout)

    until(lambda: running() == 3)
    machine.engine.kill(container)
    container.wait(10)
    until(lambda: running() == 0)


def test_the_processes_of_a_container_among_the_hosts_are_its_own(profile: str, machine: Machine) -> None:
    """Without a pid namespace of its own they are told by who started whom; neighbours and the host's are not taken."""
    machine.start("echo ready; exec sleep 60", pid="host")
    container = machine.start("(sleep 60; :) & echo ready; exec sleep 60", pid="host")
    resources = machine.engine.resources
    until(lambda: len([*resources.pids(container)]) == 3)
    assert container.pid in resources.pids(container) and os.getpid() not in resources.pids(container)


def test_the_processes_of_another_container_can_be_joined(profile: str, machine: Machine) -> None:
    donor = machine.start("echo ready; exec sleep 4712", name="donor")
    assert "sleep 4712" in machine.sh("ps", pid="container:donor")
    joined = machine.start("echo ready; exec sleep 4713", name="joined", pid="container:donor")
    assert "sleep 4713" in machine.execute(donor, "ps")[1]
    assert "sleep 4712" in machine.execute(joined, "ps")[1]
    # Its root is its own all the same.
    machine.execute(joined, "touch", "/mine")
    assert machine.execute(donor, "ls", "/mine")[0] != 0
    machine.engine.kill(donor)
    # Both: who is about to end is not started again.
    assert [each.wait(10) for each in (donor, joined)] == [128 + signal.SIGKILL] * 2
    with pytest.raises(SetupFailed, match="cannot join PID of a non running container: donor"):
        machine.engine.start(joined)
    machine.engine.start(donor)
    machine.engine.start(joined)
    assert "sleep 4712" in machine.execute(joined, "ps")[1]


def test_who_joins_another_container_can_be_anybody_and_have_further_programs(profile: str, machine: Machine) -> None:
    machine.start("echo ready; sleep 60", name="donor")
    assert machine.sh("id -u", pid="container:donor", user="app") == "1000\n"
    # Whose first process is ours, too, which executes nothing.
    joined = machine.start("echo ready; exec sleep 4714", pid="container:donor", init=True, user="app")
    assert machine.execute(joined, "sh", "-c", "id -u; ps | grep -c '[s]leep 4714'") == (0, "1000\n1\n")


def test_memory_is_shared_with_who_is_willing(profile: str, machine: Machine) -> None:
    willing = machine.start("echo one > /dev/shm/one; echo ready; sleep 60", name="willing", ipc="shareable")
    machine.start("echo ready; sleep 60", name="unwilling")
    assert machine.sh("cat /dev/shm/one; echo two > /dev/shm/two", ipc="container:willing") == "one\n"
    assert machine.execute(willing, "cat", "/dev/shm/two")[1] == "two\n"
    flags = machine.sh("grep ' /dev/shm ' /proc/self/mountinfo", ipc="container:willing").split()[5].split(",")
    assert {"nosuid", "nodev", "noexec"} <= {*flags}
    with pytest.raises(UsageError, match="non-shareable IPC"):
        machine.sh("true", ipc="container:unwilling")
    assert machine.exit_code("ls", "/dev/shm", ipc="none") != 0


def test_what_stands_where_the_memory_was_is_not_taken_for_it(machine: Machine) -> None:
    """A donor that may mount puts something else there: it is refused, and nothing of this machine's is shown."""
    script = "umount /dev/shm && rmdir /dev/shm && ln -s /etc /dev/shm; echo ready; sleep 60"
    machine.start(script, name="evil", ipc="shareable", privileged=True)
    with pytest.raises(NbcontainError):
        machine.sh("ls /dev/shm", ipc="container:evil")


@pytest.mark.parametrize("options", [
    {"pid": "x"}, {"pid": "container:"}, {"ipc": "shared"}, {"uts": "container:x"}, {"cgroupns": "other"},
    {"userns": "x"}, {"userns": "keep-id:size=1"}, {"ipc": "host", "sysctl": ("kernel.shmmax=1",)},
])  # fmt: skip
def test_what_is_no_mode_is_told(machine: Machine, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        machine.sh("true", **options)


def test_a_container_that_is_not_there_or_does_not_run_is_named(machine: Machine) -> None:
    with pytest.raises(ContainerNotFound):
        machine.sh("true", pid="container:nobody")
    ended = machine.start("echo ready", name="ended")
    ended.wait(10)
    with pytest.raises(NotRunning):
        machine.sh("true", pid="container:ended")


def test_what_is_mounted_on_the_host_gets_to_who_follows_it(machine: Machine, tmp_path: object) -> None:
    """Propagation rslave and rshared, which take a shared mount of the host's; this test makes one of its own."""
    from pathlib import Path

    place = Path(str(tmp_path)) / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(place)], check=True)
        (place / "below").mkdir()
        inside = machine.start("echo ready; sleep 60", volumes=(f"{place}:/p:rslave",))
        private = machine.start("echo ready; sleep 60", volumes=(f"{place}:/p",))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place / "below")], check=True)
        (place / "below/seen").touch()
        assert machine.execute(inside, "ls", "/p/below")[1] == "seen\n"
        assert machine.execute(private, "ls", "/p/below")[1] == ""
        machine.run(
            "sh", "-c", "mkdir /p/made && mount -t tmpfs x /p/made && touch /p/made/x", cap_add=("SYS_ADMIN",),
            volumes=(f"{place}:/p:rshared",), security_opt=("seccomp=unconfined",),
        )  # fmt: skip
        assert os.listdir(place / "made") == ["x"]
    finally:
        machine.clear()
        subprocess.run(["umount", "-R", str(place)], check=False)
