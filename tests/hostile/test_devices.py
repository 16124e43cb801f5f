"""RUN may make device nodes, as in docker: they get into layers, and nobody can open one, wherever it lies.

The node that is tried is that of /dev/zero, which a byte can be read from; a disk's would be no other.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.build.outputs import Output
from nbcontain.build.plan import BuildOptions
from nbcontain.errors import BuildError
from nbcontain.events import Notice
from nbcontain.runtime.generate import RunOptions

pytestmark = pytest.mark.of_mounts

ZERO = "c 1 5"
TRY = 'closed() { test -e "$1" || { echo "no node $1"; exit 1; }; ! head -c 1 "$1" > /got 2>&1 || exit 2; }; '
"""`closed PATH` ends the step unless there is a node, and it cannot be read."""
MADE = f"FROM box AS made\nRUN mknod /zero {ZERO} && mknod /disk b 7 0 && chmod 666 /zero /disk\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("mine\n")
    return directory


def test_a_node_is_in_the_layer_with_its_number_and_its_mode(machine: Machine) -> None:
    machine.build(MADE, "nodes")
    assert machine.sh("stat -c '%A %t %T' /zero /disk", image="nodes") == "crw-rw-rw- 1 5\nbrw-rw-rw- 7 0\n"


@pytest.mark.parametrize("place", ["", "/tmp", "/dev", "/dev/shm", "/etc", "/root", "/var/new"])
def test_a_node_cannot_be_opened_where_it_was_made(machine: Machine, place: str) -> None:
    step = f"mkdir -p {place}/x && mknod {place}/x/n {ZERO} && chmod 666 {place}/x/n && closed {place}/x/n"
    machine.build(f"FROM box\nRUN {TRY}{step}\n", "tried")


@pytest.mark.parametrize(
    "mount",
    ["type=cache,target=/m", "type=tmpfs,target=/m", "type=bind,target=/m,rw", "type=bind,from=box,target=/m,rw",
     "type=cache,target=/m,from=box,source=/etc", "type=tmpfs,target=/dev/deeper", "type=cache,target=/dev/deeper"],
)  # fmt: skip
def test_a_node_cannot_be_opened_in_a_mount_of_the_step(machine: Machine, context: Path, mount: str) -> None:
    place = re.findall("target=([^,]*)", mount)[0]
    step = f"rm -f {place}/n; mknod {place}/n {ZERO} && chmod 666 {place}/n && closed {place}/n"
    machine.build(f"FROM box\nRUN --mount={mount} {TRY}{step}\n", "tried", context)


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -o remount,dev / ",
        "mount -o remount,dev /dev",
        "mount -t tmpfs none /mnt",
        "mount --bind / /mnt",
        "mount -o bind,dev / /mnt",
        "mount -t devtmpfs none /mnt",
        "mount -t devpts none /mnt",
        "umount -l /dev/null",
        "umount -l /dev/shm",
        "umount -l /dev",
        "mknod /dev/pts/n c 1 5",
        "chroot /made mount -t proc proc /made",
        "touch /dev/null/x",
        "ln /dev/zero /made/zero",
        "losetup /dev/loop0 /etc/passwd",
    ],
)
@pytest.mark.parametrize("inside", ["", "unshare -m ", "unshare -Urm ", "unshare -Urmpf --mount-proc "])
def test_no_mount_makes_a_node_open(machine: Machine, attempt: str, inside: str) -> None:
    script = f"{attempt}; for n in /zero /mnt/zero /mnt/n /dev/n /dev/pts/n /made/n; do "
    script += f"test -e $n || mknod $n {ZERO}; head -c 1 $n && echo OPEN; done; true"
    step = f"mkdir -p /mnt /made; mknod /zero {ZERO}; chmod 666 /zero; {inside}sh -c '{script}' > /said 2>/dev/null; "
    machine.build(f"FROM box\nRUN {step} ! grep OPEN /said\n", "mounted")


@pytest.mark.parametrize(
    "path",
    ["/proc/self/root/zero", "/proc/1/root/zero", "/proc/self/cwd/zero", "/link", "/hard", "/./zero", "/dev/../zero"],
)
@pytest.mark.parametrize("user", ["0", "1000"])
def test_no_other_name_makes_a_node_open(machine: Machine, path: str, user: str) -> None:
    machine.build(f"{MADE}RUN ln -s /zero /link && ln /zero /hard\nUSER {user}\n", "named")
    assert machine.sh(f"head -c 1 {path} 2>/dev/null | wc -c", image="named") == "0\n"
    machine.build(f"FROM named\nRUN head -c 1 {path} > /tmp/got 2>/dev/null; ! test -s /tmp/got\n", "named")


def test_another_step_another_stage_and_a_container_cannot_open_it_either(machine: Machine, context: Path) -> None:
    text = MADE + f"RUN {TRY}closed /zero && closed /disk\nFROM box\nCOPY --from=made /zero /copied/\nCOPY . /\n"
    text += f"RUN --mount=type=bind,from=made,target=/m {TRY}closed /copied/zero && closed /m/zero && closed /m/disk\n"
    text += f"RUN --mount=type=cache,from=made,target=/m {TRY}closed /m/zero\n"
    machine.build(text, "stages", context)
    for user in ("0", "1000"):
        assert machine.sh("head -c 1 /copied/zero 2>&1 | grep -c denied", image="stages", user=user) == "1\n"


def test_everything_that_such_a_step_sees_is_nodev_but_single_devices_and_terminals(
    machine: Machine, context: Path
) -> None:
    mounts = "--mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=bind,target=/b,rw"
    machine.build(f"FROM box\nRUN {mounts} cat /proc/self/mountinfo > /mounts\n", "seen", context)
    open_to_devices = {
        (fields[3], fields[4])
        for fields in (line.split() for line in machine.sh("cat /mounts", image="seen").splitlines())
        if "nodev" not in fields[5].split(",")
    }
    names = {"null", "zero", "full", "random", "urandom", "tty"}
    # The last are mounts of one file, which is a device that every container has.
    others = {each for each in open_to_devices if each[0].strip("/") not in names}
    assert others == {("/", "/dev/pts")}


def test_only_steps_and_only_roots_may_make_nodes(machine: Machine) -> None:
    machine.build("FROM box\nUSER 1000\nRUN ! mknod /tmp/n c 1 5\n", "nobody")
    assert machine.sh(f"mknod /n {ZERO} 2>&1 | grep -c permitted", image="box") == "1\n"


def test_raw_sockets_are_for_steps_with_a_network_of_their_own(machine: Machine) -> None:
    raw = 1 << 13
    for network, has_it in (("host", False), ("none", True)):
        machine.build(f"FROM box\nRUN --network={network} grep CapEff /proc/self/status > /caps\n", "raw")
        assert bool(int(machine.sh("cut -f2 /caps", image="raw"), 16) & raw) is has_it


def test_a_node_does_not_leave_with_the_files_of_an_image(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    machine.engine.build(MADE, BuildOptions(outputs=(Output.parse(str(out)),))).result()
    assert (out / "bin").is_dir() and not (out / "zero").exists() and not (out / "disk").exists()


def test_a_node_does_not_leave_by_cp_and_that_is_said(machine: Machine, tmp_path: Path) -> None:
    machine.build(MADE + "RUN mkdir /d && mknod /d/disk b 7 0 && chmod 666 /d/disk && echo x > /d/file\n", "nodes")
    container = machine.engine.create(RunOptions(image="nodes", command=("true",)))
    (tmp_path / "disk").write_text("mine")
    for source, left in (("/d/.", ["disk", "file"]), ("/zero", ["disk", "file"])):
        task = machine.engine.transfers.out(container, source, str(tmp_path), archive=True)
        task.result()
        notices = [each.event for each in task.journal.read() if isinstance(each.event, Notice)]
        assert ["device nodes (1)" in each.message for each in notices] == [True]
        assert sorted(os.listdir(tmp_path)) == left
    # What had the name before has it still.
    assert (tmp_path / "disk").read_text() == "mine"


def test_nobody_else_on_the_host_reaches_what_a_step_made(machine: Machine) -> None:
    # In the store a node lies on a mount of the host's, which may well let it be opened.
    machine.build(MADE + "RUN --mount=type=cache,target=/c rm -f /c/zero; mknod -m 666 /c/zero c 1 5\n", "nodes")
    root = machine.engine.layout.root
    found = [path for path in root.rglob("zero") if path.is_char_device()]
    assert len(found) >= 2
    script = "import os, sys; os.setgid(65534); os.setuid(65534); [open(each, 'rb') for each in sys.argv[1:]]"
    for path in found:
        done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
        assert "PermissionError" in done.stderr
    assert os.stat(root).st_mode & 0o077 == 0


def test_a_step_cannot_make_what_the_store_takes_for_a_removed_file(machine: Machine) -> None:
    machine.build("FROM box\nRUN echo x > /kept\n", "kept")
    with pytest.raises(BuildError):
        machine.build("FROM kept\nRUN mknod /new c 0 0\n", "whiteout")
    machine.build("FROM kept\nRUN --mount=type=cache,target=/c rm -f /c/w; mknod /c/w c 0 0; ! cp -a /c/w /kept\n", "w")
    assert machine.sh("cat /kept", image="w") == "x\n"
