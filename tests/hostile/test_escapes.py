"""Ways out of a container, each tried as root, as a user with a range of ids, and as one with a single id (E1–E20).

docs/security.md maps all twenty to their tests; those that were here before are in test_runtime and test_calls.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import SLEEP, Machine, said
from nbcontain.errors import ContainerNotFound, NbcontainError, UsageError

ROUNDS = int(os.environ.get("NBCONTAIN_RACE_ROUNDS", "40"))


@pytest.fixture
def anyone(_hostile_machine: Machine) -> Iterator[Machine]:
    """The machine of these attacks, also for who is not root."""
    yield _hostile_machine
    _hostile_machine.clear()


def refused(machine: Machine, script: str, **options: object) -> bool:
    """Whether each line of a script fails inside; what succeeds is named."""
    lines = [line for line in script.splitlines() if line.strip()]
    probe = "\n".join(f"({line}) >/dev/null 2>&1 && echo 'succeeded: {line}'" for line in lines) + "\ntrue"
    seen = machine.sh(f"mkdir -p /mnt\n{probe}", **options)
    assert seen == ""
    return True


# --- E1: the interpreter --------------------------------------------------------------------------


def test_the_interpreter_is_the_same_after_steps_that_execute_themselves(
    profile: str, anyone: Machine, tmp_path: Path
) -> None:
    interpreter = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    for run in (
        'RUN ["/proc/self/exe"]',
        "RUN printf '#!/proc/self/exe\\n' > /bin/evil; chmod +x /bin/evil; /bin/evil",
    ):
        with pytest.raises(NbcontainError):
            anyone.build(f"FROM box\n{run}\n", "self", tmp_path)
    container = anyone.start(
        "echo ready; for n in 1 2 3 4 5 6 7 8; do echo x > /proc/$n/exe; done 2>/dev/null; sleep 60"
    )
    assert (
        anyone.execute(container, "sh", "-c", "for n in /proc/[0-9]*/exe; do echo x > $n; done 2>/dev/null; true")[0]
        == 0
    )
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before


# --- E2: descriptors and directories --------------------------------------------------------------


@pytest.mark.parametrize(
    "directory", ["/proc/self/fd/7", "/proc/self/fd/3/../..", "/proc/thread-self/fd/4", "/proc/1/cwd/../.."]
)
def test_no_directory_leads_out_by_run_or_exec(profile: str, anyone: Machine, directory: str) -> None:
    container = anyone.start(SLEEP)
    for run in (
        lambda: anyone.sh("ls -d /home/* /var/lib/dpkg 2>/dev/null; pwd", workdir=directory),
        lambda: anyone.execute(container, "sh", "-c", "ls /var/lib/dpkg 2>/dev/null; pwd", cwd=directory)[1],
    ):
        try:
            seen = run()
        except NbcontainError:
            continue
        assert seen.strip().startswith("/") and "dpkg" not in seen


# --- E3, E4: what is masked, and /proc ------------------------------------------------------------


@pytest.mark.of_mounts
def test_a_null_device_of_the_images_masks_nothing(profile: str, anyone: Machine, tmp_path: Path) -> None:
    (tmp_path / "null").write_text("false\n")
    anyone.build("FROM box\nCOPY null /dev/null\n", "fake", tmp_path)
    assert anyone.sh("ls -l /dev/null | cut -c1; cat /proc/timer_list /proc/kcore | wc -c", image="fake").split() == [
        "c",
        "0",
    ]


def test_settings_are_written_to_the_kernels_own_proc(profile: str, anyone: Machine, tmp_path: Path) -> None:
    (tmp_path / "shmmni").write_text("mine\n")
    text = "FROM scratch\nCOPY --from=box /bin /bin\nCOPY shmmni /x/sys/kernel/\nENV PATH=/bin\n"
    try:
        (tmp_path / "proc").symlink_to("/x")
        anyone.build(text + "COPY proc /\n", "fakeproc", tmp_path)
        seen = anyone.sh("cat /proc/sys/kernel/shmmni", image="fakeproc", sysctl=("kernel.shmmni=77",))
    except NbcontainError:
        return  # refused: /proc of the image is a symlink
    assert seen == "77\n"


# --- E8, E9: control groups, and the kernel's switches --------------------------------------------

SWITCHES = """
mkdir /sys/fs/cgroup/mine
mount -t cgroup2 none /mnt
mount -t cgroup -o memory none /mnt
echo 1 > /sys/fs/cgroup/notify_on_release
echo /x > /sys/fs/cgroup/release_agent
echo /x > /proc/sys/kernel/core_pattern
echo /x > /proc/sys/kernel/modprobe
echo /x > /sys/kernel/uevent_helper
echo b > /proc/sysrq-trigger
echo 1 > /proc/sys/vm/drop_caches
echo :x: > /proc/sys/fs/binfmt_misc/register
echo 0 > /proc/sys/kernel/randomize_va_space
test -n "$(head -c 1 /proc/kcore)"
test -n "$(cat /proc/keys)"
test -n "$(cat /proc/interrupts)"
test -n "$(ls -A /sys/firmware)"
insmod /x.ko
swapoff -a
hostname other
chroot /proc/1/root/.. test -e /var/lib/dpkg
nsenter -t 1 -m true
dmesg
"""


@pytest.mark.of_mounts
def test_no_switch_of_the_kernel_can_be_turned(profile: str, anyone: Machine) -> None:
    assert refused(anyone, SWITCHES)


@pytest.mark.of_mounts
def test_the_same_where_there_are_limits(anyone: Machine) -> None:
    if not anyone.engine.host.is_root:
        pytest.skip("no group is handed over to this user")
    assert refused(anyone, SWITCHES, memory="64m", pids_limit=50)
    assert set(anyone.sh("cut -d: -f3 /proc/self/cgroup | sort -u", memory="64m", pids_limit=50).split()) == {"/"}


# --- E11: capabilities ----------------------------------------------------------------------------


def test_nothing_is_inherited_in_any_mode(profile: str, anyone: Machine) -> None:
    modes: list[dict[str, object]] = [
        {},
        {"cap_add": ("ALL",)},
        {"cap_drop": ("ALL",)},
        {"security_opt": ("no-new-privileges",)},
    ]
    for mode in modes:
        for init in (False, True):
            container = anyone.start(SLEEP, init=init, **mode)
            asked = ("grep", "-hE", "^Cap(Inh|Amb)", "/proc/self/status", "/proc/1/status")
            lines = anyone.execute(container, *asked)[1].splitlines()
            assert {line.split()[1] for line in lines} == {"0" * 16} and len(lines) == 4


# --- E12, E15: names and sockets ------------------------------------------------------------------


def test_no_socket_of_ours_is_without_a_place(profile: str, anyone: Machine) -> None:
    def abstract() -> set[str]:
        return {
            line.split()[-1]
            for line in Path("/proc/net/unix").read_text().splitlines()[1:]
            if " @" in line and "nbc" in line
        }

    before = abstract()
    anyone.start(SLEEP)
    assert abstract() == before


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "a/b", "", ".", "..", "x\0y", "<img src=x>", "a\nb", "-f"]
)
def test_a_name_is_no_path(profile: str, anyone: Machine, name: str) -> None:
    with pytest.raises(ContainerNotFound):
        anyone.engine.container(name)
    if name:
        with pytest.raises(UsageError):
            anyone.run("true", name=name)


# --- E16, E17: namespaces and floods --------------------------------------------------------------


@pytest.mark.of_mounts
def test_what_fills_up_is_the_containers_own(profile: str, anyone: Machine) -> None:
    assert anyone.exit_code("dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=65") == 1
    assert anyone.exit_code("dd", "if=/dev/zero", "of=/dev/x", "bs=1M", "count=65") == 1


def test_zombies_and_floods_end_with_it(profile: str, anyone: Machine) -> None:
    container = anyone.start(
        "echo ready; i=0; while [ $i -lt 200 ]; do sleep 0 & i=$((i+1)); done; yes | head -c 3000000; echo end"
    )
    assert container.wait(30) == 0
    assert said(container).endswith("end\n")


# --- E18: flags of mounts -------------------------------------------------------------------------


@pytest.mark.of_mounts
def test_what_is_mounted_below_a_read_only_volume_is_read_only_too(anyone: Machine, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount something there")
    below = tmp_path / "volume" / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
    try:
        seen = anyone.sh("touch /v/x 2>&1; touch /v/below/x 2>&1; true", volumes=(f"{tmp_path}/volume:/v:ro",))
        assert seen.count("Read-only file system") == 2
    finally:
        subprocess.run(["umount", below], check=True)


def test_even_an_admin_inside_cannot_write_a_read_only_volume(profile: str, anyone: Machine, tmp_path: Path) -> None:
    if profile == "root":
        pytest.skip("an admin who is the machine's root may remount: that is what CAP_SYS_ADMIN says")
    script = "mount -o remount,bind,rw /v 2>/dev/null; umount /v 2>/dev/null; touch /v/x; true"
    anyone.run("sh", "-c", script, cap_add=("SYS_ADMIN",), volumes=(f"{tmp_path}:/v:ro",))
    assert os.listdir(tmp_path) == []


def test_the_hosts_mounts_are_as_before(profile: str, anyone: Machine, tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    anyone.run("sh", "-c", "mount -t tmpfs x /mnt; true", cap_add=("SYS_ADMIN",), volumes=(f"{tmp_path}:/v",))
    assert Path("/proc/self/mountinfo").read_text() == before


# --- the table ------------------------------------------------------------------------------------


def test_every_way_out_has_its_tests() -> None:
    root = Path(__file__).resolve().parents[2]
    rows = [line for line in (root / "docs/security.md").read_text().splitlines() if line.startswith("| E")]
    assert len(rows) >= 20
    assert [row.split("|")[1].strip() for row in rows] == [f"E{number + 1}" for number in range(len(rows))]
    every = "".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    for row in rows:
        named = row.split("|")[3].split("`")[1::2]
        assert named and [word for word in named if f"def {word}(" not in every] == []


# --- an engine that is in a chroot itself ---------------------------------------------------------

CHROOTED = """
import subprocess, sys
from nbcontain.engine import Engine
from nbcontain.runtime.generate import ExecOptions, RunOptions

# Nothing here is ever written by an exec: were it on the machine's own root, that would be its files.
with Engine(sys.argv[1]) as engine:
    script = ("sh", "-c", "echo inside > /marker; sleep 60")
    container = engine.run(RunOptions(image="box", command=script, detach=True, network=("none",))).result()
    while not engine.exec(ExecOptions(name=container.name, command=("ls", "/bin/sh"))).result().stdout:
        pass
    told = engine.exec(ExecOptions(name=container.name, command=("cat", "/marker"))).result().stdout
    seen = subprocess.run(["nsenter", "-m", "-t", str(container.pid), "/bin/busybox", "cat", "/marker"],
                          capture_output=True, text=True).stdout
    print(engine.profile.rung.root, told.strip(), seen.strip())
    engine.remove_container(container, force=True)
"""


@pytest.mark.of_mounts
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be in a chroot and make containers")
def test_a_container_of_an_engine_in_a_chroot_has_no_other_root_in_its_namespace(
    anyone: Machine, tmp_path: Path
) -> None:
    root = anyone.engine.layout.root
    jail = tmp_path / "jail"
    jail.mkdir()
    shut_in = 'mount --make-rprivate / && mount --rbind / "$0" && exec chroot "$0" "$@"'
    words = [str(jail), sys.executable, "-c", CHROOTED, str(root)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shut_in, *words], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["pivot", "inside", "inside"], "")
