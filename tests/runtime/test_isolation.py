"""What a container can see and do: namespaces, mounts, devices, capabilities, descriptors. Under every profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from machine import SLEEP, Machine, said, until
from nbcontain.errors import NbcontainError, SetupFailed
from nbcontain.linux.capabilities import CAPABILITIES as ALL_CAPABILITIES
from nbcontain.runtime.confinement import CAPABILITIES
from nbcontain.runtime.hidden import MASKED

NAMESPACES = ("mnt", "pid", "ipc", "uts", "cgroup")


def capability_names(mask: str) -> set[str]:
    """A line of /proc/self/status in words (capabilities(7))."""
    return {f"CAP_{name}" for number, name in enumerate(ALL_CAPABILITIES) if int(mask, 16) >> number & 1}


def test_only_the_three_standard_descriptors_are_open(profile: str, machine: Machine) -> None:
    # ls itself opens one to read the directory with.
    assert machine.run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]
    container = machine.start(SLEEP)
    assert machine.execute(container, "ls", "/proc/self/fd")[1].split() == ["0", "1", "2", "3"]
    assert machine.execute(container, "ls", "/proc/1/fd")[1].split() == ["0", "1", "2"]


def test_the_first_process_is_the_program(profile: str, machine: Machine) -> None:
    # The last word keeps the shell from becoming the program before it.
    script = "echo $$; tr '\\0' ' ' < /proc/1/cmdline; true"
    assert machine.sh(script) == f"1\nsh -c {script} "


def test_with_init_a_process_of_ours_comes_first_and_reaps(profile: str, machine: Machine) -> None:
    container = machine.start("(sleep 0.01 &); " + SLEEP, init=True)
    assert machine.execute(container, "sh", "-c", "ps -o pid,comm | grep -v ps")[1].count("\n") >= 3
    until(lambda: "[sleep]" not in machine.execute(container, "ps")[1])
    container.stop(5)
    assert container.wait(5) == 3  # the signal was passed on, and the program's answer is the container's


def test_its_namespaces_are_its_own(profile: str, machine: Machine) -> None:
    wanted = (*NAMESPACES, "net", "user")
    seen = machine.sh(f"for n in {' '.join(wanted)}; do readlink /proc/self/ns/$n; done").split()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in wanted]
    differing = {name for name, inside, outside in zip(wanted, seen, ours, strict=True) if inside != outside}
    assert differing == {*NAMESPACES, *(["user"] if profile != "root" else [])}


def test_without_a_network_there_is_only_the_loopback_and_it_is_up(profile: str, machine: Machine) -> None:
    up_and_loopback = "0x9"
    seen = machine.sh("ls /sys/class/net; cat /sys/class/net/lo/flags", network="none")
    assert seen.split() == ["lo", up_and_loopback]


def test_the_hosts_network_is_the_default(profile: str, machine: Machine) -> None:
    assert machine.sh("readlink /proc/self/ns/net").strip() == os.readlink("/proc/self/ns/net")


def test_an_unknown_network_is_refused(profile: str, machine: Machine) -> None:
    with pytest.raises(NbcontainError, match="nowhere"):
        machine.run("true", network="nowhere")


def test_capabilities_are_podmans_eleven(profile: str, machine: Machine) -> None:
    lines = machine.run("grep", "Cap", "/proc/self/status").stdout.splitlines()
    sets = {name.rstrip(":"): capability_names(mask) for name, mask in (line.split() for line in lines)}
    eleven = set(CAPABILITIES)
    assert sets == {"CapInh": set(), "CapPrm": eleven, "CapEff": eleven, "CapBnd": eleven, "CapAmb": set()}


def test_another_user_has_no_capabilities(profile: str, machine: Machine) -> None:
    if profile == "rootless-single":
        pytest.skip("this user has one id only, so that nobody else exists inside")
    lines = machine.run("grep", "Cap", "/proc/self/status", user="app").stdout.splitlines()
    sets = {name.rstrip(":"): capability_names(mask) for name, mask in (line.split() for line in lines)}
    assert sets == {"CapInh": set(), "CapPrm": set(), "CapEff": set(), "CapBnd": set(CAPABILITIES), "CapAmb": set()}


def test_a_further_program_has_no_more_than_the_first(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    asked = "grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid)' /proc/{}/status"
    ours = machine.execute(container, "sh", "-c", asked.format("self"))[1]
    assert ours == machine.execute(container, "sh", "-c", asked.format(1))[1]


# --- its own file systems -------------------------------------------------------------------------


def test_the_mounts_are_those_of_the_specification(profile: str, machine: Machine) -> None:
    lines = machine.sh("cut -d' ' -f5- /proc/self/mountinfo").splitlines()
    kinds = {line.split()[0]: line.split(" - ")[1].split()[0] for line in lines}
    wanted = {"/": "overlay", "/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs"}
    assert wanted.items() <= kinds.items()
    assert kinds["/dev/mqueue"] == "mqueue"
    assert kinds["/sys"] == "sysfs"
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= kinds.keys()


def test_nothing_of_the_hosts_root_can_be_seen(profile: str, machine: Machine) -> None:
    root = str(machine.engine.layout.root)
    inside = machine.sh("ls /; cut -d' ' -f5 /proc/self/mountinfo")
    assert root not in inside.split()
    assert "home" not in inside.split()
    assert machine.exit_code("test", "-e", root) == 1


def test_the_devices_are_the_six_and_no_others(profile: str, machine: Machine) -> None:
    assert set(machine.sh("ls /dev").split()) == {
        *("null", "zero", "full", "random", "urandom", "tty"),
        *("fd", "stdin", "stdout", "stderr", "ptmx"),
        *("pts", "shm", "mqueue"),
    }
    assert machine.sh("echo gone > /dev/null; head -c 4 /dev/zero | od -An -tx1; stat -c %a /dev/null").split() == [
        *["00"] * 4,
        "666",
    ]
    assert machine.exit_code("mknod", "/dev/mem", "c", "1", "1") != 0


@pytest.mark.parametrize("path", MASKED)
def test_a_masked_path_shows_nothing(profile: str, machine: Machine, path: str) -> None:
    script = f"if test -d {path}; then ls -A {path}; elif test -e {path}; then cat {path}; fi"
    assert machine.sh(script) == ""


def test_knobs_of_the_kernel_cannot_be_turned(profile: str, machine: Machine) -> None:
    assert machine.exit_code("sh", "-c", "echo 1 > /proc/sys/vm/drop_caches") != 0
    assert machine.exit_code("sh", "-c", "echo h > /proc/sysrq-trigger") != 0
    assert machine.exit_code("mkdir", "/sys/fs/cgroup/mine") != 0


def test_mounting_is_not_allowed(profile: str, machine: Machine) -> None:
    assert machine.exit_code("mount", "-t", "tmpfs", "tmpfs", "/tmp") != 0
    assert machine.exit_code("umount", "/proc/sys") != 0


def test_a_read_only_root_can_be_read_and_its_dev_written(profile: str, machine: Machine) -> None:
    script = "touch /new 2>&1; touch /etc/hosts 2>&1; touch /dev/shm/new && echo shm; ls /bin/sh"
    lines = machine.sh(script, read_only=True).splitlines()
    assert "Read-only file system" in lines[0] and "Read-only file system" in lines[1]
    assert lines[2:] == ["shm", "/bin/sh"]


# --- volumes --------------------------------------------------------------------------------------


def test_a_volume_is_the_hosts_directory(profile: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from outside\n")
    volumes = (f"{tmp_path}:/deep/inside",)
    assert machine.sh("cat /deep/inside/given; echo back > /deep/inside/made", volumes=volumes) == "from outside\n"
    made = tmp_path / "made"
    assert made.read_text() == "back\n"
    assert made.stat().st_uid == os.geteuid()


def test_a_read_only_volume_cannot_be_written(profile: str, machine: Machine, tmp_path: Path) -> None:
    volumes = (f"{tmp_path}:/data:ro",)
    said_inside = machine.sh("touch /data/new 2>&1; mount -o remount,rw /data 2>&1; true", volumes=volumes)
    assert "Read-only file system" in said_inside
    assert list(tmp_path.iterdir()) == []


def test_a_volume_may_be_a_file(profile: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one file\n")
    assert machine.sh("cat /etc/motd", volumes=(f"{tmp_path}/file:/etc/motd:ro",)) == "one file\n"


def test_no_program_on_a_volume_gets_anothers_rights(profile: str, machine: Machine, tmp_path: Path) -> None:
    options = machine.sh("grep ' /data ' /proc/self/mountinfo", volumes=(f"{tmp_path}:/data",)).split()[5].split(",")
    assert {"nosuid", "nodev"} <= set(options)


def test_mount_points_are_no_changes_of_the_containers(profile: str, machine: Machine, tmp_path: Path) -> None:
    container = machine.start("echo mine > /made; rm /bin/vi; " + SLEEP, volumes=(f"{tmp_path}:/deep/inside",))
    changes = {path: letter for letter, path in machine.engine.diff(container)}
    assert changes.items() >= {"/made": "A", "/bin/vi": "D"}.items()
    assert not {"/deep", "/proc", "/dev", "/etc/hosts"} & changes.keys()


# --- images that mean harm ------------------------------------------------------------------------


def hostile(machine: Machine, name: str, script: str) -> str:
    return machine.build(f'FROM box\nRUN ["sh", "-c", {json.dumps(script)}]\n', name)


def test_a_symlink_does_not_lead_a_mount_out_of_the_root(profile: str, machine: Machine, tmp_path: Path) -> None:
    image = hostile(machine, "outward", f"ln -s ../../../../../..{tmp_path} /way; ln -s / /root-again")
    (tmp_path / "canary").write_text("outside\n")
    volumes = (f"{tmp_path}:/way/in", f"{tmp_path}:/root-again/srv")
    seen = machine.run("sh", "-c", "cat /way/in/canary /srv/canary", image=image, volumes=volumes)
    assert seen.lines == ["outside"] * 2
    assert os.listdir(tmp_path) == ["canary"]


def test_a_symlink_does_not_lead_a_mount_into_proc(profile: str, machine: Machine, tmp_path: Path) -> None:
    image = hostile(machine, "inward", "ln -s /proc/sys /way")
    with pytest.raises(SetupFailed, match="cannot mount"):
        machine.run("true", image=image, volumes=(f"{tmp_path}:/way/kernel",))


@pytest.mark.parametrize("made", ["mkfifo /etc/passwd", "ln -s /dev/zero /etc/passwd", "mkdir /etc/passwd"])
def test_accounts_that_are_no_file_are_none(profile: str, machine: Machine, made: str) -> None:
    image = hostile(machine, "accounts", f"rm /etc/passwd; {made}")
    assert machine.exit_code("true", image=image) == 0
    with pytest.raises(SetupFailed, match="there is no user"):
        machine.run("true", image=image, user="app")


def test_a_working_directory_outside_is_refused(profile: str, machine: Machine) -> None:
    for number in range(3, 12):
        assert machine.exit_code("pwd", workdir=f"/proc/self/fd/{number}") == 125


def test_the_hosts_interpreter_is_not_what_stands_behind_proc_self_exe(profile: str, machine: Machine) -> None:
    """CVE-2019-5736: before it becomes the program, the first process shows a sealed copy."""
    from nbcontain.runtime.generate import RunOptions

    container = machine.engine.create(RunOptions(image="box", command=("true",)))
    container.launch(machine.engine.launcher)
    shown = f"/proc/{container.state().pid}/exe"
    assert os.readlink(shown).startswith("/memfd:")
    with pytest.raises(OSError), open(shown, "r+b") as copy:
        copy.write(b"#!")
    assert machine.exit_code("/proc/self/exe") in (126, 127)
    container.begin()
    assert container.wait(5) == 0


def test_no_python_of_an_image_is_ever_imported(profile: str, machine: Machine, tmp_path: Path) -> None:
    """Where the engine's own processes would look for modules, the image has others: they leave a mark if they run."""
    places = {Path(module).parent for module in (os.__file__, json.__file__)} | {Path("/usr/lib/python3")}
    context = tmp_path / "context"
    for place in places:
        (context / "evil" / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
        for name in ("idna", "getpass", "linecache", "traceback", "pwd", "os", "codecs", "decoder", "shutil"):
            (context / "evil" / place.relative_to("/") / f"{name}.py").write_text("open('/pwned', 'w').close()\n")
    image = machine.build(
        "FROM box\nCOPY evil /\nWORKDIR /made\nCOPY --chown=0:0 evil /again\nRUN true\n", "evil", context
    )
    container = machine.start("test ! -e /pwned && echo clean; sleep 60", image=image)
    assert said(container) == "clean\n"
    assert machine.execute(container, "test", "-e", "/pwned")[0] == 1
    assert "/pwned" not in {path: letter for letter, path in machine.engine.diff(container)}


def test_where_imports_are_frozen_nothing_can_be_imported_nor_read(tmp_path: Path) -> None:
    """What keeps the test above true also where nobody thought of an import: codecs and tracebacks cause some too."""
    (tmp_path / "evil.py").write_text("print('pwned')\n")
    program = f"""
import sys
sys.path[:0] = [{str(Path(__file__).resolve().parents[2])!r}, {str(tmp_path)!r}]
from nbcontain.runtime.stage import freeze_imports
freeze_imports()
for attempt in (lambda: __import__("evil"), lambda: __import__("getpass"), lambda: "x".encode("idna")):
    try:
        attempt()
    except (ImportError, LookupError):
        print("no")
raise ValueError
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("no\n" * 3, "")


# --- the oracle -----------------------------------------------------------------------------------

LOOK = (
    "cut -d' ' -f5- /proc/self/mountinfo | sed 's/ - / /' | awk '{print $1, $(NF-2)}' | sort;"
    "grep -E '^(Cap|NoNewPrivs|Uid|Gid)' /proc/self/status; env | sort; pwd; hostname; ls /dev; umask;"
    "for p in /proc/keys /proc/timer_list; do wc -c < $p; done; touch /proc/sys/vm/x 2>&1"
)
KNOWN = {
    "core",  # a link in crun's /dev, which docker makes no more
    *(f"{path} {kind}" for path in MASKED for kind in ("tmpfs", "devtmpfs")),  # whose /dev/null lies over them
}


def test_crun_makes_the_same_container_of_the_same_bundle(profile: str, machine: Machine, tmp_path: Path) -> None:
    """Our config.json is a valid one, and means to another runtime what it means to us."""
    from nbcontain.runtime.generate import RunOptions

    if profile != "root":
        pytest.skip("the root file system is mounted beforehand here, which only root may")
    needs.program("crun")
    options = RunOptions(image="box", command=("sh", "-c", LOOK), hostname="box", environment=("A=1",))
    container = machine.engine.create(options)
    try:
        (root,) = container.bundle.rootfs
        # crun knows control groups v1 or v2, and not the mixture of both.
        script = (
            "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup;"
            'mount -t overlay -o "$2" overlay "$1/rootfs" &&'
            'exec crun --cgroup-manager=disabled run -b "$1" nbcontain-oracle-$$'
        )
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(container.bundle.path), ",".join(root.options)]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    finally:
        container.bundle.unlock()
    assert theirs.returncode in (0, 1), theirs.stderr
    container.launch(machine.engine.launcher)
    container.begin()
    container.wait(10)
    ours = set(said(container).splitlines())
    theirs_too = set(theirs.stdout.splitlines())
    assert (ours - theirs_too - KNOWN, theirs_too - ours - KNOWN) == (set(), set())
