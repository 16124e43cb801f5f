"""What a container, or an image, does to get out. Run as root, where nothing but the sandbox stands in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from machine import Machine, is_running, said, supervisor_of, until
from nbcontain.errors import NbcontainError, SetupFailed
from nbcontain.runtime.bundle import State
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.identity import resolve
from nbcontain.runtime.messages import connect
from nbcontain.runtime.mounts import asked

STOLEN = "stolen"


def image_with(machine: Machine, tmp_path: Path, busybox: Path, *members: tarfile.TarInfo) -> str:
    """An image of busybox and these members."""
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(busybox, "busybox", filter=_plain)
        for member in members:
            tar.addfile(member)
    machine.engine.archives.import_image(str(path), STOLEN).result()
    return STOLEN


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode = 0o755
    return member


def symlink(name: str, leads_to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, leads_to
    return member


# --- the image --------------------------------------------------------------------------------


@pytest.mark.of_mounts
def test_a_device_node_of_an_image_opens_nothing(machine: Machine, tmp_path: Path, busybox: Path) -> None:
    node = tarfile.TarInfo("zero")
    node.type, node.devmajor, node.devminor, node.mode = tarfile.CHRTYPE, 1, 5, 0o666
    image = image_with(machine, tmp_path, busybox, node)
    with pytest.raises(NbcontainError):
        machine.run("/busybox", "head", "-c", "1", "/zero", image=image)
    assert machine.run("/busybox", "wc", "-c", "/dev/null", image=image).exit_code == 0


@pytest.mark.of_mounts
@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("leads_to", ["/", "/etc", "..", "/proc", "nowhere"])
def test_what_is_mounted_for_the_kernel_follows_no_symlink_of_the_image(
    machine: Machine, tmp_path: Path, busybox: Path, place: str, leads_to: str
) -> None:
    # With /proc -> / the unmasked, writable /proc lay over the root, to be reached by /.. .
    image = image_with(machine, tmp_path, busybox, symlink(place, leads_to))
    with pytest.raises(SetupFailed, match=f"/{place} of the image is a symlink"):
        machine.run("/busybox", "true", image=image)


@pytest.mark.of_mounts
@pytest.mark.parametrize("leads_to", ["/proc", "/proc/self/root", "/sys/kernel"])
def test_a_mount_is_not_led_into_proc_or_sys(machine: Machine, tmp_path: Path, busybox: Path, leads_to: str) -> None:
    image = image_with(machine, tmp_path, busybox, symlink("etc", leads_to))
    with pytest.raises(SetupFailed):
        machine.run("/busybox", "true", image=image)


@pytest.mark.parametrize("leads_to", ["/proc/kcore", "/proc/keys", "/proc/acpi/x", "/sys/firmware/x", "/dev/null"])
@pytest.mark.parametrize("remove", [False, True])
def test_a_file_of_its_network_is_not_led_over_what_is_masked(
    machine: Machine, tmp_path: Path, busybox: Path, leads_to: str, remove: bool
) -> None:
    """What --rm throws away is masked before those files are there."""
    image = image_with(machine, tmp_path, busybox, symlink("etc/hosts", leads_to))
    looking = "cat /proc/keys /proc/kcore; ls -A /proc/acpi /sys/firmware; mount | grep -c keys"
    try:
        seen = machine.run("/busybox", "sh", "-c", looking, image=image, remove=remove)
    except SetupFailed:
        return
    # As everywhere, it may be over /dev/null. Then that is what hides the rest.
    assert leads_to == "/dev/null"
    assert "127.0.0.1" not in seen.stdout


def test_symlinks_of_the_image_to_the_host_stay_inside(
    machine: Machine, tmp_path: Path, busybox: Path, canary: Path
) -> None:
    image = image_with(machine, tmp_path, busybox, symlink("etc", f"../../../..{canary}"), symlink("data", str(canary)))
    volume = tmp_path / "volume"
    volume.mkdir()
    made = machine.run("/busybox", "ls", f"{canary}", image=image, volumes=(f"{volume}:/data/deep/er",)).stdout.split()
    assert {"deep", "hosts", "hostname", "resolv.conf"} == set(made)


def test_passwd_may_be_anything(machine: Machine, tmp_path: Path, busybox: Path) -> None:
    fifo = tarfile.TarInfo("etc/group")
    fifo.type = tarfile.FIFOTYPE
    image = image_with(machine, tmp_path, busybox, symlink("etc/passwd", "/proc/kmsg"), fifo)
    assert machine.run("/busybox", "true", image=image, user="5:6").exit_code == 0
    digits = "9" * 5000
    assert resolve("app", f"x:x:{digits}:0:::\napp:x:7:8:::\n", "").user.uid == 7


# --- what is inside ---------------------------------------------------------------------------


def descriptors(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip()}


@pytest.mark.of_mounts
@pytest.mark.parametrize("init", [False, True])
def test_no_descriptor_but_the_three_comes_in_by_run_or_exec(machine: Machine, init: bool) -> None:
    script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done; echo ready; sleep 60"
    container = machine.start(script, init=init)
    until(lambda: "ready" in said(container))
    # The shell holds the directory itself open while it lists it.
    assert descriptors(said(container)) - {"ready"} <= {"0", "1", "2", "3"}
    _, of_exec = machine.execute(container, "sh", "-c", "for fd in /proc/self/fd/*; do readlink $fd; done")
    assert all(line.startswith(("pipe:", "/dev/null", "/proc/")) for line in of_exec.splitlines())
    _, of_first = machine.execute(container, "ls", "/proc/1/fd")
    assert descriptors(of_first) <= {"0", "1", "2"}


@pytest.mark.of_mounts
def test_the_null_device_inside_is_not_the_hosts(machine: Machine) -> None:
    host = os.stat("/dev/null")
    look = ("stat", "-L", "-c", "%d %i", "/proc/self/fd/0")
    container = machine.start("echo ready; sleep 60")
    for text in (machine.run(*look).stdout, machine.execute(container, *look)[1]):
        assert text.split() != [str(host.st_dev), str(host.st_ino)]
    machine.sh("chmod 600 /proc/self/fd/0; chmod 600 /dev/null")
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == stat.S_IMODE(host.st_mode)


def test_an_exec_survives_a_null_device_that_was_replaced(machine: Machine, canary: Path) -> None:
    container = machine.start(f"rm /dev/null; ln -s {canary}/secret /dev/null; echo ready; sleep 60")
    assert machine.execute(container, "sh", "-c", "cat; echo alive") == (0, "alive\n")


def test_what_is_given_to_read_cannot_be_written(machine: Machine, canary: Path) -> None:
    with open(canary / "secret", "rb") as secret:
        attack = "cat; echo x >/proc/self/fd/0 & chmod 777 /proc/self/fd/0; true"
        options = RunOptions(image="box", command=("sh", "-c", attack))
        container = machine.engine.create(options)
        container.launch(machine.engine.launcher, stdin=secret.fileno())
        container.begin()
        assert container.wait(10) == 0
    assert "do not touch" in said(container)


@pytest.mark.of_mounts
@pytest.mark.parametrize("user", ["", "app"])
def test_capabilities_are_the_eleven_in_run_and_exec(machine: Machine, user: str) -> None:
    eleven = "00000000800405fb"
    own = "0000000000000000" if user else eleven
    wanted = {"CapInh": "0" * 16, "CapPrm": own, "CapEff": own, "CapBnd": eleven, "CapAmb": "0" * 16}
    container = machine.start("echo ready; sleep 60", user=user)
    look = ("grep", "^Cap", "/proc/self/status")
    for text in (machine.run(*look, user=user).stdout, machine.execute(container, *look)[1]):
        assert dict(line.replace(":", "").split() for line in text.splitlines()) == wanted


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
     "/sys/kernel/uevent_helper", "/sys/power/state", "/proc/irq/default_smp_affinity"],
)  # fmt: skip
def test_the_kernels_switches_cannot_be_turned(machine: Machine, path: str) -> None:
    # Opened for writing only: nothing is written.
    if os.path.exists(path):
        assert machine.exit_code("sh", "-c", f": 2>/dev/null >>{path}") != 0


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"])
def test_what_tells_of_the_host_reads_as_nothing(machine: Machine, path: str) -> None:
    if os.path.exists(path):
        assert machine.sh(f"cat {path}") == ""


@pytest.mark.parametrize(
    "attempt",
    ["mount -t tmpfs x /mnt", "mount -o remount,rw /sys", "mount -o remount,bind,rw /proc/sys", "umount /proc/keys",
     "umount -l /proc/sys", "mknod /tmp/d b 8 0", "chroot /proc/1/root umount -l /sys", "mount -t proc x /mnt",
     "unshare -Urm sh -c 'umount -l /proc/sys'", "unshare -Urm sh -c 'mount -o remount,bind,rw /proc/sys'",
     "unshare -Urmpf sh -c 'mount -t proc x /mnt'", "unshare -Urmn sh -c 'mount -t sysfs x /mnt'"],
)  # fmt: skip
def test_mounts_cannot_be_made_undone_or_seen_through(machine: Machine, attempt: str) -> None:
    assert machine.exit_code("sh", "-c", f"mkdir -p /mnt; {attempt}") != 0


def test_nothing_is_mounted_on_the_host_meanwhile(machine: Machine, tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    machine.start("echo ready; sleep 60", volumes=(f"{tmp_path}:/data",))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_interpreter_cannot_be_overwritten_from_inside(machine: Machine) -> None:
    interpreter = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    container = machine.start("echo ready; sleep 60", init=True)
    code, _ = machine.execute(container, "sh", "-c", "echo PWNED 2>/dev/null >/proc/1/exe")
    assert code != 0
    assert machine.exit_code("sh", "-c", "ln -s /proc/self/exe /x; exec /x -c 1") != 125
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 12, 16])
def test_no_working_directory_leads_out(machine: Machine, number: int) -> None:
    assert machine.exit_code("ls", "secret", workdir=f"/proc/self/fd/{number}") != 0


def test_exec_into_a_directory_by_descriptor_does_not_lead_out(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 60")
    for number in (3, 4, 5, 7, 9):
        with pytest.raises(SetupFailed):
            machine.execute(container, "pwd", cwd=f"/proc/self/fd/{number}")


@pytest.mark.parametrize(
    "target", ["/", "//", "//proc", "/proc", "/proc/sys", "//proc/../proc", "/sys/kernel", "/x/../sys"]
)
def test_a_volume_covers_neither_the_root_nor_proc_nor_sys(target: str) -> None:
    with pytest.raises(NbcontainError):
        asked(RunOptions(image="x", command=(), volumes=(f"/tmp:{target}",)))


def test_modules_of_the_image_are_never_imported(machine: Machine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    trap = context / "lib"
    trap.mkdir(parents=True)
    names = ["json", "os", "codecs", "encodings", "linecache", "traceback", "pwd", "grp", "shutil", "hashlib", "zlib"]
    for name in names:
        (trap / f"{name}.py").write_text("open('/PWNED', 'w')\n")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [sys.prefix, sys.base_prefix, "/usr"]
    lines = [f"COPY lib {place}/lib/{version}" for place in places] + [f"COPY lib {path}" for path in sys.path if path]
    text = "FROM box\nCOPY lib /\n" + "\n".join(lines) + "\nWORKDIR /new\nCOPY --chown=app lib/os.py /new/\nRUN true\n"
    machine.build(text, "trap", context)
    shutil.rmtree(context)
    container = machine.start("echo ready; sleep 60", image="trap", user="app", init=True)
    machine.execute(container, "true", cwd="/new")
    assert machine.execute(container, "ls", "/PWNED")[0] != 0


# --- the supervisor ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [b"hello", b"[1]", b"{", b'{"$large": 5}', b'{"a":' * 12000, b"[" * 60000, b"\xff\xfe{", b'{"do":"exec"}'],
    ids=range(8),
)
def test_garbage_on_the_control_socket_does_not_end_a_container(machine: Machine, packet: bytes) -> None:
    container = machine.start("echo ready; sleep 60")
    channel = connect(container.bundle.path)
    channel.socket.send(packet)
    channel.close()
    time.sleep(0.05)
    assert machine.execute(container, "echo", "alive") == (0, "alive\n")


def test_the_control_socket_is_nobody_elses(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 60")
    path = container.bundle.path
    assert stat.S_IMODE((path / "control.sock").stat().st_mode) & 0o077 == 0
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 for each in (path, path.parent, path.parent.parent))


@pytest.mark.parametrize("user", ["", "app"])
@pytest.mark.parametrize("init", [False, True])
def test_a_container_dies_with_its_supervisor(machine: Machine, user: str, init: bool) -> None:
    container = machine.start("echo ready; sleep 60", user=user, init=init)
    pid = container.pid
    assert pid
    os.kill(supervisor_of(pid), signal.SIGKILL)
    until(lambda: not is_running(pid))
    assert container.status == "lost"


def test_a_container_that_steals_its_own_output_can_be_killed(machine: Machine) -> None:
    thief = "(while :; do cat /proc/self/fd/1 >/dev/null; done) & (while :; do echo x; done) & echo ready; wait"
    container = machine.start(thief)
    time.sleep(0.3)
    container.kill(9)
    assert container.wait(5) == 137


def test_a_state_that_says_too_much_or_too_little_is_no_state(machine: Machine) -> None:
    container = machine.engine.create(RunOptions(image="box", command=("true",)))
    container.bundle.unlock()
    for text in (b"{}", b'{"surprise": 1}'):
        (container.bundle.path / "state.json").write_bytes(text)
        assert container.state() == State()


# --- who asks a server inside -----------------------------------------------------------------


@pytest.mark.of_mounts
def test_who_asks_a_server_inside_has_no_rights_there() -> None:
    """Its user namespace would give it all of them; where there is none, it is nobody."""
    waiting = subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo; exec sleep 60"],
                               stdout=subprocess.PIPE)  # fmt: skip
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from nbcontain.runtime.visitor import _enter; _enter({waiting.pid})\n"
        "print(*(line for line in open('/proc/self/status') if line.startswith(('CapPrm', 'CapEff'))))"
    )
    try:
        assert waiting.stdout is not None and waiting.stdout.read(1)
        asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    finally:
        waiting.kill()
        waiting.communicate()
    assert asked.stdout.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16]


