"""Every call of the kernel: what is decided about it in a container, in a further program and in RUN (E10)."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpf
import needs
from bpf import ALLOW, ERRNO, I386, KILL_PROCESS, X86_64, Filter
from machine import Machine, until
from nbcontain.linux import seccomp
from nbcontain.oci.seccomp import from_docker
from nbcontain.runtime.confinement import CAPABILITIES
from nbcontain.runtime.container import Container

EVERY = range(620)
NUMBERS = seccomp.numbers()["x86_64"]
NAMES = {number: name for name, number in NUMBERS.items()}
ARGUMENTS = {
    "socket": [[each] for each in (*range(50), 0x1_0000_0026, 0xFFFFFFFF, 2**64 - 1)],
    "clone": [[flag | 17] for flag in (0, 0x3D0F00, 0x20000, 0x2000000, 0x8000000, 0x10000000, 0x7E020000)],
    "personality": [[each] for each in (0, 1, 8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF, 1 << 32)],
}
PODMANS = Path("/usr/share/containers/seccomp.json")


def table(program: bytes, machine: int = X86_64) -> dict[tuple[str, int], int]:
    """The verdict on every number, and on the arguments that matter."""
    made = Filter(program)
    verdicts = {(NAMES.get(number, "?"), number): made.verdict(number, (), machine) for number in EVERY}
    if machine == X86_64:
        for name, calls in ARGUMENTS.items():
            for call in calls:
                verdicts[name, call[0] + 10_000] = made.verdict(NUMBERS[name], call)
    return verdicts


def filter_of(container: Container) -> bytes:
    try:
        (program,) = bpf.installed(container.pid or 0)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        pytest.skip("this kernel does not tell which filter a process has (ptrace(2), PTRACE_SECCOMP_GET_FILTER)")
    return program


@pytest.fixture
def sleeper(machine: Machine) -> Container:
    return machine.start("echo ready; sleep 60")


def differing(ours: dict[tuple[str, int], int], theirs: dict[tuple[str, int], int]) -> set[str]:
    return {name for (name, number), verdict in ours.items() if theirs[name, number] != verdict}


# --- one filter everywhere ------------------------------------------------------------------------


def test_the_kernel_has_the_program_that_the_bundle_has(machine: Machine, sleeper: Container) -> None:
    assert filter_of(sleeper) == sleeper.bundle.seccomp(sleeper.bundle.spec)[8:]


def test_a_further_program_and_run_are_under_the_same_filter(
    machine: Machine, sleeper: Container, tmp_path: Path
) -> None:
    wanted = filter_of(sleeper)
    process = subprocess.Popen(
        [sys.executable, "-m", "nbcontain", "exec", sleeper.name, "sleep", "50"],
        env={"NBCONTAIN_ROOT": str(machine.engine.layout.root), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    try:
        assert table(bpf.installed(child_of("sleep", "50"))[0]) == table(wanted)
    finally:
        machine.engine.remove_container(sleeper, force=True)
        process.wait()
    seen = machine.build("FROM box\nRUN grep -E 'Seccomp:.*2' /proc/self/status\n", "filtered", tmp_path)
    assert seen == "filtered"
    machine.build("FROM box\nRUN ! unshare -U true 2>/seen; grep 'not permitted' /seen\n", "filtered", tmp_path)


def child_of(*argv: str) -> int:
    """The pid of the process with these arguments, when it has come to be."""
    found: list[int] = []

    def look() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes() == b"\0".join(map(str.encode, argv)) + b"\0":
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return bool(found)

    until(look)
    return found[0]


# --- oracles --------------------------------------------------------------------------------------


@pytest.fixture
def crun(machine: Machine, tmp_path: Path) -> Iterator[object]:
    """The filter that crun loads for a profile."""
    needs.program("crun")
    started: list[subprocess.Popen[bytes]] = []

    def loaded(document: object, *, no_new_privileges: bool = False) -> bytes:
        bundle = tmp_path / f"bundle{len(started)}"
        for name in ("bin", "dev", "proc"):
            (bundle / "rootfs" / name).mkdir(parents=True)
        busybox = machine.engine.store.snapshots.chain(machine.engine.image("box").chain_id)[-1] / "bin" / "busybox"
        (bundle / "rootfs" / "bin" / "busybox").write_bytes(busybox.read_bytes())
        (bundle / "rootfs" / "bin" / "busybox").chmod(0o755)
        sets = dict.fromkeys(("bounding", "effective", "permitted"), list(CAPABILITIES))
        argv = ["/bin/busybox", "sleep", f"4{len(started)}"]
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "args": argv,
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": sets,
                "noNewPrivileges": no_new_privileges,
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "seccomp": document},
        }
        (bundle / "config.json").write_text(json.dumps(config))
        script = (
            "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup;"
            'exec crun --cgroup-manager=disabled run -b "$1" nbcontain-calls-$$'
        )
        started.append(
            subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", str(bundle)], stdin=subprocess.DEVNULL)
        )
        pid = child_of(*argv)
        try:
            return bpf.installed(pid)[0]
        finally:
            os.kill(pid, signal.SIGKILL)

    yield loaded
    for process in started:
        process.wait()


def test_crun_decides_the_same_with_the_same_profile(machine: Machine, sleeper: Container, crun: object) -> None:
    document = dict(sleeper.bundle.spec.linux.seccomp)
    ours, loaded = table(filter_of(sleeper)), crun(document)  # type: ignore[operator]
    theirs = table(loaded)
    assert set(table(loaded, I386).values()) == {0}
    library = bpf.libseccomp()
    known = {
        name for name in NUMBERS if library and library.seccomp_syscall_resolve_name(name.encode()) == NUMBERS[name]
    }
    assert differing(ours, theirs) & known == set()
    # What the library does not know, it denies.
    assert {theirs[name, NUMBERS[name]] for name in differing(ours, theirs)} <= {ERRNO | 1}
    # It kills the thread, and we the whole program.
    assert set(table(filter_of(sleeper), I386).values()) == {KILL_PROCESS}


def test_podmans_own_profile_means_the_same_here_as_to_crun(machine: Machine, crun: object) -> None:
    if not PODMANS.exists():
        needs.missing("podman's seccomp.json is not installed (Debian package golang-github-containers-common)")
    container = machine.start("echo ready; sleep 60", security_opt=(f"seccomp={PODMANS}",))
    document = dict(container.bundle.spec.linux.seccomp)
    loaded = crun(document)  # type: ignore[operator]
    for machine_word in (X86_64, I386):
        ours, theirs = table(filter_of(container), machine_word), table(loaded, machine_word)
        assert differing(ours, theirs) == set()


MORE_THAN_PODMAN = """
    cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat io_pgetevents listmount
    listxattrat map_shadow_stack mseal removexattrat setxattrat statmount uretprobe vmsplice
"""
"""Calls that docker allows; most are newer than podman's profile of Debian 12."""
LESS_THAN_PODMAN = """
    clone3 fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr move_mount open_tree
    pidfd_getfd pivot_root reboot set_mempolicy setns syslog umount2 unshare
"""
"""Podman lets every container try to make namespaces and mounts, for containers in containers; docker does not."""


def test_the_default_beside_podmans(machine: Machine, sleeper: Container) -> None:
    if not PODMANS.exists():
        needs.missing("podman's seccomp.json is not installed (Debian package golang-github-containers-common)")
    profile = from_docker(json.loads(PODMANS.read_bytes()), CAPABILITIES, "x86_64", (6, 1))
    ours, theirs = table(filter_of(sleeper)), table(seccomp.program(profile, "x86_64"))
    allowed, wanted = (
        {name for (name, number), verdict in each.items() if verdict == ALLOW and number in EVERY}
        for each in (ours, theirs)
    )
    assert (allowed - wanted, wanted - allowed) == (set(MORE_THAN_PODMAN.split()), set(LESS_THAN_PODMAN.split()))


# --- what programs get to see ---------------------------------------------------------------------


def test_a_program_of_the_older_machine_is_killed_at_its_first_call(machine: Machine, sleeper: Container) -> None:
    made = Filter(filter_of(sleeper))
    assert {made.verdict(number, (), I386) for number in EVERY} == {KILL_PROCESS}
    assert {made.verdict(number | 0x40000000) for number in EVERY} == {ERRNO | 38}


DENIED = ("not permitted", "permission denied (are you root?)")


@pytest.mark.parametrize(
    "words", [("unshare", "-U", "true"), ("unshare", "-m", "true"), ("mount", "-t", "tmpfs", "x", "/mnt")]
)
def test_namespaces_and_mounts_are_not_permitted(machine: Machine, words: tuple[str, ...]) -> None:
    assert machine.sh(f"mkdir -p /mnt; {' '.join(words)} 2>&1; true").rstrip().endswith(DENIED)


@pytest.mark.of_mounts
def test_without_a_filter_these_are_the_kernels_to_decide(machine: Machine) -> None:
    assert machine.exit_code("unshare", "-U", "true", security_opt=("seccomp=unconfined",)) == 0
    assert machine.exit_code("unshare", "-m", "true", cap_add=("SYS_ADMIN",)) == 0
