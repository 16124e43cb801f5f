"""Ways out of the lower rungs: through what is served, what is handed in, and whoever answers for the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import SLEEP, Machine, children_of, supervisor_of, until
from nbcontain.host import Ability
from nbcontain.linux.starts import start_of

LADDER = {
    "root": ("root-noproc", "chroot"),
    "rootless-range": ("userns-chroot",),
    "rootless-single": ("userns-chroot", "rootless-single", "proot"),
}

GRAB = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static char stolen[64];
    for (int each = 1; each < argc; each++) {
        pid_t pid = atoi(argv[each]);
        struct iovec here = {stolen, sizeof stolen}, there = {main, sizeof stolen};
        char place[64];
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) printf("traced %d\n", pid);
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT) printf("read %d\n", pid);
        if (process_vm_writev(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT) printf("wrote %d\n", pid);
        snprintf(place, sizeof place, "/proc/%d/mem", pid);
        if (open(place, O_RDWR) >= 0) printf("opened %s\n", place);
        int fd = syscall(SYS_pidfd_open, pid, 0);
        for (int number = 0; fd >= 0 && number < 64; number++)
            if (syscall(SYS_pidfd_getfd, fd, number, 0) >= 0) printf("took %d of %d\n", number, pid);
        if (kill(pid, SIGKILL) == 0) printf("killed %d\n", pid);
    }
    puts("tried");
}
"""
"""All ways to another process that take no more than its number."""


@pytest.fixture(scope="session")
def grabbing(_hostile_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with that program."""
    directory = tmp_path_factory.mktemp("grab")
    compiler = needs.program("cc", "gcc")
    subprocess.run([compiler, "-static", "-o", directory / "grab", "-x", "c", "-"], input=GRAB, text=True, check=True)
    return _hostile_machine.build("FROM box\nCOPY grab /bin/grab\n", "grab", directory)


@pytest.fixture(params=("root-noproc", "chroot", "userns-chroot", "rootless-single", "proot"))
def rung(request: pytest.FixtureRequest, profile: str, _hostile_machine: Machine) -> Iterator[Machine]:
    if request.param not in LADDER[profile]:
        pytest.skip(f"{request.param} is not for {profile}")
    host = _hostile_machine.engine.host
    if request.param == "proot" and not host.can(Ability.PROOT):
        pytest.skip(host.abilities[Ability.PROOT].why)
    machine = Machine.on(_hostile_machine.engine.isolated(request.param))
    yield machine
    _hostile_machine.clear()


def test_nothing_served_leads_out(rung: Machine, canary: Path) -> None:
    secret = canary / "secret"
    ways = [
        f"/proc/self/root{secret}", f"/proc/1/root{secret}", f"/proc/self/cwd/../../../../..{secret}",
        f"/proc/self/../self/root{secret}", f"/proc/{os.getpid()}/root{secret}", f"/proc/self/task/../root{secret}",
        f"/dev/../..{secret}", f"/dev/fd/../../..{secret}", f"/proc/thread-self/root{secret}",
        f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/maps", f"/sys/../..{secret}", "/proc/kcore", "/proc/kmsg",
        f"/etc/hosts/../../../..{secret}",
    ]  # fmt: skip
    script = "; ".join(f"cat {way} >/dev/null 2>&1 && echo {way}" for way in ways)
    said = [line for line in rung.sh(f"{script}; true").splitlines() if str(canary) in line or "/environ" in line]
    assert said == []


def test_a_descriptor_that_was_handed_in_is_no_way_out_either(rung: Machine, canary: Path) -> None:
    script = (
        "exec 5</proc/self/status; exec 6</dev/zero; exec 7</etc/hosts; for n in 5 6 7; do"
        f" cat /proc/self/fd/$n/../../../..{canary}/secret /dev/fd/$n/..{canary}/secret 2>/dev/null;"
        " cd /dev/fd/$n 2>/dev/null && echo went; done; (echo x >/dev/fd/5) 2>/dev/null && echo wrote; true"
    )
    before = Path("/etc/hosts").read_bytes()
    assert rung.sh(script) == ""
    assert Path("/etc/hosts").read_bytes() == before


def test_the_hosts_settings_cannot_be_written(rung: Machine) -> None:
    before = Path("/proc/sys/kernel/ostype").read_text(), Path("/proc/sys/vm/swappiness").read_text()
    script = "for n in /proc/sys/vm/swappiness /proc/self/oom_score_adj; do (echo 1 > $n) 2>/dev/null; done; true"
    rung.sh(script)
    script = "exec 5</proc/sys/vm/swappiness; (echo 1 >/proc/self/fd/5) 2>/dev/null && echo wrote; true"
    assert rung.sh(script) == ""
    assert (Path("/proc/sys/kernel/ostype").read_text(), Path("/proc/sys/vm/swappiness").read_text()) == before


def test_the_hosts_devices_stay_as_they_are(rung: Machine) -> None:
    before = os.stat("/dev/null")
    rung.sh("chmod 600 /dev/null /dev/fd/0 2>/dev/null; chown 1:1 /dev/null 2>/dev/null; rm -f /dev/null; true")
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)


def test_a_root_that_is_only_a_chroot_is_not_left_by_another_one(rung: Machine, canary: Path) -> None:
    if rung.engine.profile.rung.mounts:
        pytest.skip("the root is a mount here")
    assert rung.exit_code("sh", "-c", "mkdir -p /x && chroot /x /bin/true") != 0
    assert rung.exit_code("sh", "-c", "mkdir -p /x && unshare -Ur true") != 0
    assert rung.exit_code("sh", "-c", "mkdir -p /x && mknod /x/disk b 8 0 && cat /x/disk | head -c 1 | grep .") != 0


def test_nobody_outside_is_signalled_or_looked_into(rung: Machine) -> None:
    if "pid" in rung.engine.profile.rung.namespaces and not rung.engine.profile.rung.serves:
        pytest.skip("others are not even visible here")
    child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "60"])
    try:
        said = rung.sh(f"kill -9 {child} 2>/dev/null && echo killed; cat /proc/{child}/cmdline 2>/dev/null; true")
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        # There the machine's /proc is seen as it is, and so are names of programs (proc(5), cmdline).
        assert "sleep" not in said or rung.engine.profile.name == "proot"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_who_has_rid_itself_of_the_translator_is_still_kept_from_this_machines_files(
    rung: Machine, canary: Path
) -> None:
    if rung.engine.profile.name != "proot":
        pytest.skip("here nobody translates")
    # By the shell itself: from then on not even the image's programs are found.
    script = f"kill -9 $PPID; echo on; read -r all < {canary}/secret && echo $all; echo x > {canary}/made; echo end"
    said = rung.run("sh", "-c", script, no_raise=True).stdout
    assert said in ("", "on\n", "on\nend\n")  # whatever it had come to when it was ended


def test_neither_the_supervisor_nor_who_answers_is_traced_read_robbed_or_killed(rung: Machine, grabbing: str) -> None:
    container = rung.start(SLEEP, image=grabbing)
    init = container.pid
    assert init is not None
    supervisor = supervisor_of(init)
    outside = {supervisor, *children_of(supervisor)} - {init}
    if rung.engine.profile.rung.answers:
        assert len(outside) > 1  # who answers is one of them
    assert rung.execute(container, "grab", *map(str, sorted(outside))) == (0, "tried\n")
    assert all(map(start_of, outside))
    assert rung.execute(container, "sh", "-c", "chown 7:7 /tmp; id -u") == (0, "0\n")


def test_a_path_that_changes_while_it_is_looked_at_changes_nothing_outside(rung: Machine, canary: Path) -> None:
    script = (
        "mkdir /r; echo x > /r/inside; (while :; do ln -sfn /r/inside /r/l; ln -sfn ../../../../../.."
        f"{canary}/secret /r/l; done) & loop=$!; n=0; while [ $n -lt 150 ]; do chown 7:7 /r/l; cat /r/l; n=$((n+1));"
        " done 2>/dev/null; kill $loop"
    )
    said = rung.sh(script)
    assert "do not touch" not in said
    assert not os.listxattr(canary / "secret")


def test_who_answers_is_starved_by_nobody_and_outlives_what_is_wrong(rung: Machine) -> None:
    """Many at once, calls with addresses that are nowhere, and callers that are killed while they wait."""
    container = rung.start(
        "echo ready; for n in 1 2 3 4 5 6; do (while :; do cat /proc/meminfo /proc/self/maps >/dev/null;"
        " chown 1:1 /bin/none; done) 2>/dev/null & done;"
        " while :; do (cat /proc/self/status & kill -9 $!) >/dev/null 2>&1; sleep 0.05; done"
    )
    for _ in range(5):
        assert rung.execute(container, "sh", "-c", "chown 7:7 /tmp; id -u") == (0, "0\n")
    assert container.status == "running"
    rung.engine.remove_container(container, force=True)
    until(lambda: not rung.engine.containers())
