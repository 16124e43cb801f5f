"""--userns: containers of root's with ids of their own, and who shares them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from machine import Machine, said, until
from nbcontain.errors import NbcontainError, Unavailable, UsageError
from nbcontain.oci.spec import IdMapping
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.users import UserMode, allotted, space, user_mode

MAP = "cat /proc/self/uid_map"
SHOWN = "stat -c '%u:%g %n'"


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def ids_outside(container: Container) -> tuple[int, int]:
    """The user of its first process, and how many there are of its map."""
    status = Path(f"/proc/{container.pid}/status").read_text()
    uid = int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])
    return uid, int(Path(f"/proc/{container.pid}/uid_map").read_text().split()[2])


@pytest.fixture
def mapped(machine: Machine) -> Container:
    """A container with ids of its own."""
    script = f"touch /new; chown 5:6 /new; rm /etc/group; {SHOWN} /bin /etc/passwd; sleep 60"
    return machine.start(script, name="mapped", userns="auto", ipc="shareable")


def test_its_ids_are_nobodys_here_and_its_files_are_as_the_image_has_them(machine: Machine, mapped: Container) -> None:
    until(lambda: said(mapped).count("\n") == 2)
    assert said(mapped) == "0:0 /bin\n0:0 /etc/passwd\n"
    uid, size = ids_outside(mapped)
    assert uid >= 65536 and size == 65536
    # On the disk they are as those of any other container: so what looks at them from outside sees no difference.
    upper = mapped.bundle.active_directory
    assert upper is not None and owner(upper / "fs/new") == (5, 6)
    assert {("A", "/new"), ("D", "/etc/group")} <= {*machine.engine.diff(mapped)}
    document = machine.engine.container("mapped").to_dict()
    assert document["HostConfig"]["UsernsMode"] == "auto"


def test_nothing_of_this_machine_is_its(machine: Machine, tmp_path: Path, mapped: Container) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    (place / "secret").write_text("x")
    (place / "secret").chmod(0o600)
    script = f"{SHOWN} /b /b/secret; cat /b/secret 2>&1; true"
    said = machine.sh(script, userns="auto", volumes=(f"{place}:/b",))
    assert said.startswith("65534:65534 /b\n65534:65534 /b/secret\n") and "Permission denied" in said


def test_an_admin_inside_takes_back_no_flag_of_a_mount(machine: Machine, tmp_path: Path) -> None:
    # Volumes and images may hold nodes of this machine's devices, and some volumes are not to be written.
    (tmp_path / "file").touch()
    script = "for each in / /v /f /d; do mount -o remount,bind,rw,dev $each 2> /dev/null && echo $each; done; "
    script += "umount /v 2> /dev/null; touch /v/x 2> /dev/null; true"
    volumes = ("named:/v:ro", f"{tmp_path}/file:/f:ro", f"{tmp_path}:/d")
    assert machine.sh(script, userns="auto", cap_add=("SYS_ADMIN",), volumes=volumes) == ""
    assert machine.sh("ls /v", volumes=("named:/v",)) == ""


def test_it_sees_the_network_that_it_shares_and_no_other(machine: Machine) -> None:
    machine.start("echo ready; sleep 60", name="alone", network=("none",))
    script = "ls /sys/class/net; ls /sys/fs/cgroup"
    assert machine.sh(script, userns="auto", network=("container:alone",)) == "lo\n"
    assert sorted(machine.sh(script, userns="auto", network=("host",)).split()) == sorted(os.listdir("/sys/class/net"))


def test_a_pipe_of_this_machines_that_it_reads_keeps_its_owner(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(fd, b"line\n")
    environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    words = [sys.executable, "-m", "nbcontain", "run", "--rm", "-i", "--userns", "auto", "box", "head", "-n1"]
    said = subprocess.run(words, env=environ, stdin=fd, capture_output=True, check=True)
    os.close(fd)
    assert said.stdout == b"line\n" and owner(tmp_path / "fifo") == (0, 0)
    words[-2:] = "cat", "/dev/stdin"
    assert subprocess.run(words, env=environ, input=b"text", capture_output=True, check=True).stdout == b"text"


def test_two_containers_have_no_id_in_common(machine: Machine, mapped: Container) -> None:
    others = [machine.start("echo ready; sleep 60", userns=mode) for mode in ("auto", "private", "auto:size=2000")]
    ranges = sorted(ids_outside(each) for each in (mapped, *others))
    assert all(first + size <= following for (first, size), (following, _) in zip(ranges, ranges[1:], strict=False))
    assert sorted(size for _, size in ranges) == [2000, 65536, 65536, 65536]


def test_it_has_the_same_ids_when_it_is_started_again(machine: Machine, mapped: Container) -> None:
    before = ids_outside(mapped)
    machine.engine.kill(mapped)
    mapped.wait(10)
    machine.engine.start(mapped)
    assert ids_outside(mapped) == before
    assert machine.execute(mapped, "sh", "-c", f"{SHOWN} /new")[1] == "5:6 /new\n"


def test_further_programs_and_copies_are_of_its_ids(machine: Machine, mapped: Container) -> None:
    script = "id -u; touch /made 2>/dev/null; echo out > /dev/stdout; echo err > /dev/stderr"
    assert machine.execute(mapped, "sh", "-c", script, user="app") == (0, "1000\nout\n")
    assert machine.execute(mapped, "sh", "-c", script) == (0, "0\nout\n")
    container = machine.engine.container("mapped")
    container["/brought"] = b"text"
    assert machine.execute(mapped, "sh", "-c", f"{SHOWN} /made /brought")[1] == "0:0 /made\n0:0 /brought\n"


def test_what_is_made_of_it_is_an_image_like_any_other(machine: Machine, mapped: Container) -> None:
    machine.engine.container("mapped").commit("of-mapped")
    assert machine.sh(f"{SHOWN} /new /bin", image="of-mapped") == "5:6 /new\n0:0 /bin\n"


@pytest.mark.parametrize("options", [
    {"user": "app"}, {"init": True}, {"read_only": True}, {"tmpfs": ("/t",)}, {"network": ("none",)},
    {"hostname": "other"}, {"memory": "64m"}, {"privileged": True}, {"security_opt": ("no-new-privileges",)},
    {"mount": ("type=image,source=box,target=/i",)}, {"volumes": ("/v",)}, {"pid": "host"}, {"tty": True},
    {"uts": "host", "ipc": "host"},
])  # fmt: skip
def test_it_goes_with_all_else(machine: Machine, options: dict[str, object]) -> None:
    said = machine.sh("test $(cut -c11-21 /proc/self/uid_map) -gt 65535; echo $? $(id -u)", userns="auto", **options)
    assert said.split() == ["0", "1000" if options.get("user") else "0"]


def test_its_volumes_have_the_owners_that_others_see(machine: Machine, tmp_path: Path) -> None:
    machine.start("touch /v/a; chown 1000:1001 /v/a; echo ready", userns="auto", volumes=("/v",), name="first").wait(10)
    assert machine.sh(f"{SHOWN} /v /v/a", volumes_from=("first",)) == "0:0 /v\n1000:1001 /v/a\n"
    assert machine.sh(f"{SHOWN} /v /v/a", userns="auto", volumes_from=("first",)) == "0:0 /v\n1000:1001 /v/a\n"
    given = tmp_path / "given"
    given.mkdir()
    said = machine.sh(f"{SHOWN} /g; touch /g/a", userns="auto", user="app", volumes=(f"{given}:/g:U",))
    assert said == "1000:1001 /g\n" and owner(given / "a") == (1000, 1001)
    machine.engine.remove_container(machine.engine.container("first"), volumes=True)
    scratch = machine.sh(f"{SHOWN} /g; echo > /g/b; ls /g", userns="auto", volumes=(f"{given}:/g:O",))
    assert scratch == "1000:1001 /g\na\nb\n" and not (given / "b").exists()


def test_it_is_started_again_by_its_policy(machine: Machine) -> None:
    machine.start("echo ready; exit 3", name="again", userns="auto", network=("none",), restart="on-failure:2")
    container = machine.engine.container("again")
    until(lambda: container.status == "exited")
    assert container.state().restart_count == 2 and container.state().exit_code == 3


def test_its_namespaces_can_be_shared(machine: Machine, mapped: Container) -> None:
    machine.execute(mapped, "sh", "-c", "echo one > /dev/shm/one")
    link = os.readlink(f"/proc/{mapped.pid}/ns/user")
    said = machine.sh(f"readlink /proc/self/ns/user; {SHOWN} /bin", userns="container:mapped")
    assert said == f"{link}\n0:0 /bin\n"
    assert machine.sh("cat /dev/shm/one", userns="container:mapped", ipc="container:mapped") == "one\n"
    # Whoever is among its processes has to be of its ids.
    said = machine.sh("readlink /proc/self/ns/user; ps | grep -c '[s]leep 60'", pid="container:mapped")
    assert said == f"{link}\n1\n"
    with pytest.raises(UsageError, match="cannot be together"):
        machine.sh("true", pid="container:mapped", userns="auto")
    # One without ids of its own has those that all have.
    machine.start("echo ready; sleep 60", name="plain")
    assert machine.sh(MAP, userns="container:plain").split() == ["0", "0", "4294967295"]


def test_where_nothing_can_be_mounted_it_cannot_be_had(machine: Machine) -> None:
    with pytest.raises(Unavailable, match="isolation root-noproc"):
        chosen = RunOptions(image="box", command=("true",), userns="auto", remove=True)
        machine.engine.isolated("root-noproc").run(chosen).result()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "is_root", "expected"), [
    ("", True, UserMode()), ("host", True, UserMode()), ("host", False, UserMode()), ("private", False, UserMode()),
    ("private", True, UserMode(65536)), ("auto", True, UserMode(65536)), ("auto:size=4096", True, UserMode(4096)),
    ("container:x", False, UserMode(container="x")), ("keep-id", False, UserMode(kept=(-1, -1))),
    ("keep-id:gid=7,uid=5", False, UserMode(kept=(5, 7))), ("keep-id:uid=5", False, UserMode(kept=(5, -1))),
])  # fmt: skip
def test_modes_are_read(text: str, is_root: bool, expected: UserMode) -> None:
    assert user_mode(text, is_root=is_root) == expected


@pytest.mark.parametrize(("text", "is_root", "why"), [
    ("keep-id", True, "other than root"), ("nomap", True, "other than root"), ("auto:size=0", True, "no size"),
    ("auto:uidmapping=0:1:2", True, "not here"), ("keep-id:uid=x", False, "says no id"),
    ("keep-id:size=5", False, "says no id"), ("keep-id:uid=4294967295", False, "says no id"),
    ("nomap", False, "ordinary user"), ("auto", False, "ordinary user"), ("container:", True, "invalid USER mode"),
    ("x", False, "invalid USER mode"), ("private:x", False, "invalid USER mode"),
])  # fmt: skip
def test_what_is_no_mode_or_cannot_be_had_is_told(text: str, is_root: bool, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        user_mode(text, is_root=is_root)


def test_ranges_are_where_they_are_granted_and_exist() -> None:
    whole = [IdMapping(0, 0, 4_294_967_295)]
    assert space([IdMapping(1, 1000, 500)], whole) == [(1000, 1500)]
    assert space([], whole) == [(524_288, 1_879_048_192)]
    # In a container whose own ids end before them there are none.
    assert space([], [IdMapping(0, 100_000, 65_536)]) == []


def test_a_range_overlaps_none_that_is_taken() -> None:
    assert allotted([(1000, 1400)], [(1000, 1100), (1250, 1260)], 100, seed=0) == 1100
    assert allotted([(1000, 1400)], [(1000, 1100), (1250, 1260)], 100, seed=2) == 1300
    with pytest.raises(Unavailable, match="there are no 100 ids left"):
        allotted([(1000, 1150)], [(1050, 1051)], 100, seed=7)
    with pytest.raises(NbcontainError):
        allotted([], [], 100, seed=7)
