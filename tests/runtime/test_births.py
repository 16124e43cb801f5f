"""What a first process is born into when that is not the usual: other namespaces, and mounts shared with the host."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from machine import Machine, supervisor_of, until
from nbcontain.errors import UsageError
from nbcontain.events import Output
from nbcontain.linux import syscalls
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import IdMapping, Mount, Process, Spec
from nbcontain.runtime import rehearsal
from nbcontain.runtime.beforehand import USUAL, Beforehand
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.bundle_writer import write_spec
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.rungs import Rung
from nbcontain.values import replace

Change = Callable[[Spec], Spec]


@pytest.fixture
def changed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Change], None]]:
    """Has every spec from now on be changed like this."""
    from nbcontain import making as module

    generate = module.generate

    def change(how: Change) -> None:
        monkeypatch.setattr(module, "generate", lambda *given, **named: how(generate(*given, **named)))

    yield change


def joining(**paths: str) -> Change:
    def change(spec: Spec) -> Spec:
        names = (*spec.linux.namespaces, *(name for name in paths if name not in spec.linux.namespaces))
        return replace(spec, linux=replace(spec.linux, namespaces=names, paths=paths))

    return change


def without(*names: str) -> Change:
    def change(spec: Spec) -> Spec:
        kept = tuple(name for name in spec.linux.namespaces if name not in names)
        return replace(spec, linux=replace(spec.linux, namespaces=kept))

    return change


def mounting(mount: Mount) -> Change:
    return lambda spec: replace(spec, mounts=(*spec.mounts, mount))


def namespace(container: Container, name: str) -> str:
    return os.readlink(f"/proc/{container.pid}/ns/{name}")


def test_namespaces_of_another_container_are_joined(machine: Machine, changed: Callable[[Change], None]) -> None:
    first = machine.start("echo ready; sleep 60", network="none")
    files = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net", "cgroup": "cgroup"}
    changed(joining(**{name: f"/proc/{first.pid}/ns/{file}" for name, file in files.items()}))
    second = machine.start("echo ready; sleep 61")
    for file in files.values():
        assert namespace(second, file) == namespace(first, file)
    assert namespace(second, "mnt") != namespace(first, "mnt")
    assert "sleep 60" in machine.execute(second, "ps")[1]
    assert machine.execute(second, "ps")[0] == 0


def test_namespaces_of_the_machine_are_kept(machine: Machine, changed: Callable[[Change], None]) -> None:
    changed(without("pid", "ipc", "uts"))
    container = machine.start("echo ready; sleep 60")
    for name in ("pid", "ipc", "uts"):
        assert namespace(container, name) == os.readlink(f"/proc/self/ns/{name}")
    assert machine.execute(container, "sh", "-c", "readlink /proc/self")[1].strip().isdecimal()
    machine.engine.remove_container(container, force=True)
    assert not Path(f"/proc/{container.pid}").exists()


def test_a_namespace_that_is_not_there_is_one_clear_error(machine: Machine, changed: Callable[[Change], None]) -> None:
    changed(joining(ipc="/proc/1/ns/nothing"))
    with pytest.raises(Exception, match="cannot join the ipc namespace /proc/1/ns/nothing"):
        machine.run("true")


def test_its_clocks_may_be_others(machine: Machine, changed: Callable[[Change], None]) -> None:
    def change(spec: Spec) -> Spec:
        names = (*spec.linux.namespaces, "time")
        return replace(spec, linux=replace(spec.linux, namespaces=names, time_offsets={"boottime": (1_000_000, 0)}))

    changed(change)
    assert float(machine.sh("cat /proc/uptime").split()[0]) > 1_000_000
    container = machine.start("echo ready; sleep 60")
    assert float(machine.execute(container, "cat", "/proc/uptime")[1].split()[0]) > 1_000_000


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A mount of the host's whose mounts are shared with others."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "sub").mkdir()
    yield place
    subprocess.run(["umount", "-R", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts on the host")
@pytest.mark.parametrize("word", ["rprivate", "rslave", "rshared"])
def test_mounts_cross_as_far_as_the_propagation_says(
    machine: Machine, changed: Callable[[Change], None], shared: Path, word: str
) -> None:
    changed(mounting(Mount("/data", "bind", str(shared), ("rbind", word))))
    container = machine.start("echo ready; sleep 60", cap_add=("SYS_ADMIN",), security_opt=("seccomp=unconfined",))
    subprocess.run(["mount", "-t", "tmpfs", "late", shared / "sub"], check=True)
    (shared / "sub" / "file").touch()
    seen = "file" in machine.execute(container, "ls", "/data/sub")[1]
    assert seen == (word != "rprivate")
    subprocess.run(["umount", shared / "sub"], check=True)
    machine.execute(container, "mount", "-t", "tmpfs", "inside", "/data/sub")
    assert os.path.ismount(shared / "sub") == (word == "rshared")


@pytest.mark.skipif(os.geteuid() != 0, reason="maps any id")
def test_a_mount_may_show_other_ids(machine: Machine, changed: Callable[[Change], None], shared: Path) -> None:
    os.chown(shared / "sub", 5, 6)
    ids = (IdMapping(0, 1000, 10),)
    changed(mounting(Mount("/data", "bind", str(shared), ("bind", "idmap"), ids, ids)))
    assert machine.sh("stat -c %u:%g /data/sub") == "1005:1006\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts on the host")
def test_read_only_reaches_as_deep_as_it_is_said(
    machine: Machine, changed: Callable[[Change], None], shared: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "below", shared / "sub"], check=True)
    script = "touch /data/top; touch /data/sub/deep; ls /data /data/sub"
    for word, deep in (("ro", True), ("rro", False)):
        changed(mounting(Mount("/data", "bind", str(shared), ("rbind", word))))
        found = machine.sh(script).split()
        assert "top" not in found
        assert ("deep" in found) == deep
        (shared / "sub" / "deep").unlink(missing_ok=True)


def test_a_tmpfs_may_begin_with_what_was_there(machine: Machine, changed: Callable[[Change], None]) -> None:
    changed(mounting(Mount("/etc", "tmpfs", "tmpfs", ("tmpcopyup", "mode=755"))))
    assert "app:x:1000" in machine.sh("cat /etc/passwd; touch /etc/new")


def test_the_capabilities_of_admin_do_not_reach_the_host(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 60", cap_add=("SYS_ADMIN",), security_opt=("seccomp=unconfined",))
    before = Path("/proc/self/mountinfo").read_text()
    machine.execute(container, "mount", "-t", "tmpfs", "x", "/tmp")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_containers_can_be_started_after_the_package_is_gone_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip has put another one there, or none, while a kernel runs: whoever waits has all that a start needs."""
    monkeypatch.setattr(rehearsal, "__file__", "/nowhere/rehearsal.py")
    rehearsal.of_init()


SEEN = "cut -d' ' -f4- /proc/self/mountinfo; ls -l /dev /dev/pts; cat /proc/mounts /proc/self/cgroup; "
SEEN += "cut -d: -f1 /proc/net/dev; ls -l /proc/self/ns | grep -c ."


def told(hostname: str) -> int:
    """The first process that is called like this; 0 if there is none."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"runtime.zygote" in each.read_bytes():
                pid = int(each.parent.name)
                shown = subprocess.run(["nsenter", "-t", str(pid), "-u", "hostname"], capture_output=True, text=True)
                if shown.stdout.strip() == hostname:
                    return pid
    return 0


def test_what_was_begun_before_its_bundle_was_there_is_the_same_container(profile: str, machine: Machine) -> None:
    """`run` tells of it beforehand, who starts what was created does not."""
    words, options = ("sh", "-c", f"hostname; {SEEN}"), {"hostname": "same", "network": "none"}
    begun = machine.run(*words, remove=False, **options).stdout
    later = machine.engine.create(RunOptions(image="box", command=words, **options))  # type: ignore[arg-type]
    machine.engine.start(later)
    later.wait(20)
    plain = b"".join(each.event.data for each in later.follow() if isinstance(each.event, Output)).decode()
    assert masked(begun) == masked(plain)


def masked(text: str) -> list[str]:
    """Without what differs from container to container, and from minute to minute."""
    text = re.sub(r"/?[0-9a-f]{12,64}|/\d+|\d+:\d+|\b\d\d? [A-Z][a-z]{2}\b|[A-Z][a-z]{2} +\d+", "*", text)
    # The kernel lists mounts by when they were made, and not by when they were put there.
    return sorted(text.splitlines())


@pytest.mark.skipif(os.geteuid() != 0, reason="looks into other namespaces")
def test_who_was_told_of_a_container_that_is_not_started_after_all_is_gone(machine: Machine) -> None:
    machine.run("true")
    options = RunOptions(image="box", command=("true",), hostname=f"told{os.getpid()}")

    @contextmanager
    def refused(container: Container) -> Iterator[None]:
        until(lambda: told(options.hostname))
        raise UsageError("no")
        yield

    with pytest.raises(UsageError, match="no"):
        machine.engine.run(options, around=refused).result()
    until(lambda: not told(options.hostname))


@pytest.mark.parametrize("removes", [False, True])
@pytest.mark.skipif(os.geteuid() != 0, reason="looks into other namespaces")
def test_a_container_starts_though_who_was_told_of_it_is_dead(machine: Machine, removes: bool) -> None:
    machine.run("true")
    options = RunOptions(image="box", command=("echo", "there"), hostname=f"dead{os.getpid()}", remove=removes)

    @contextmanager
    def killing(container: Container) -> Iterator[None]:
        until(lambda: told(options.hostname))
        os.kill(supervisor_of(told(options.hostname)), signal.SIGKILL)
        until(lambda: not told(options.hostname))
        yield

    task = machine.engine.run(options, around=killing, fills=False)
    assert task.result().stdout == "there\n"  # type: ignore[union-attr]


@pytest.mark.parametrize("removes", [False, True])
def test_who_was_told_of_another_container_than_it_becomes_is_not_it(machine: Machine, removes: bool) -> None:
    machine.run("true")

    @contextmanager
    def changing(container: Container) -> Iterator[None]:
        # By whoever knows its bundle.
        spec = container.bundle.spec
        words = replace(spec.process, args=("echo", "changed"))
        write_spec(Bundle(container.bundle.path), replace(spec, process=words, hostname="changed"))
        yield

    options = RunOptions(image="box", command=("echo", "told"), remove=removes)
    task = machine.engine.run(options, around=changing, fills=False)
    assert task.result().stdout == "changed\n"  # type: ignore[union-attr]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_what_is_mounted_when_somebody_looks_for_it_is_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As an automounter does. Who is told of a container makes a copy of the mounts."""
    from nbcontain import mounting as module

    machine.run("true")
    looked = module._prepare_source

    def automounted(point: module.MountPoint) -> None:
        looked(point)
        # Long enough for who was told of it.
        time.sleep(0.1)
        subprocess.run(["mount", "-t", "tmpfs", "there", str(tmp_path)], check=True)
        (tmp_path / "mounted").touch()

    monkeypatch.setattr(module, "_prepare_source", automounted)
    try:
        assert machine.sh("ls /p", volumes=(f"{tmp_path}:/p",)) == "mounted\n"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_hindered_init_beforehand_is_told_when_somebody_hears_of_it() -> None:
    done = Beforehand()
    done.begin({"spec": "{"}, Rung())
    with pytest.raises(ValueError, match="Expecting"):
        done.settle()


@pytest.mark.parametrize("prepare", [Beforehand._prepare_network, Beforehand._prepare_trees])
def test_nothing_is_made_where_nobody_gets_back_from_it(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Beforehand], None]
) -> None:
    """As in a sandbox that lets one leave a namespace, and enter none."""

    def refused(fd: int, flags: int) -> None:
        raise PermissionError(errno.EPERM, "")

    left: list[int] = []
    monkeypatch.setattr("nbcontain.runtime.beforehand._is_in_user_namespace", lambda: False)
    monkeypatch.setattr("nbcontain.linux.syscalls.setns", refused)
    monkeypatch.setattr("nbcontain.linux.syscalls.unshare", left.append)
    with pytest.raises(PermissionError):
        prepare(Beforehand())
    assert left == []


def test_what_waits_is_what_a_usual_container_has(machine: Machine) -> None:
    spec = machine.engine.create(RunOptions(image="box")).bundle.spec
    assert {*USUAL} <= {*spec.mounts}


def test_what_was_put_together_beforehand_is_as_if_it_were_made_for_the_container(machine: Machine) -> None:
    mounts = "cut -d' ' -f4- /proc/self/mountinfo | grep -v -e ' / ' -e ' /etc/'"
    look = f"{mounts}; stat -c '%A %u %t,%T %n' /dev/*; ls /sys/class/net"
    machine.run("true")
    # Long enough for who waits.
    time.sleep(1)
    usual = machine.run("sh", "-c", look).lines
    # Nothing of what waits is like that.
    others = {"security_opt": ("mask=/proc/cpuinfo:/sys/class/tty",), "tmpfs": ("/dev/more",)}
    alone = machine.run("sh", "-c", look, **others).lines
    own = [line for line in alone if any(word in line for word in ("/cpuinfo", "/sys/class/tty", "more"))]
    assert len(own) == 4
    assert sorted(usual) == sorted(line for line in alone if line not in own)


@pytest.mark.parametrize(
    "options", [{"network": "host"}, {"network": "none"}, {"network": "host", "ipc": "host", "init": True}], ids=str
)
def test_nothing_of_what_waits_is_in_who_did_not_want_it(machine: Machine, options: dict[str, object]) -> None:
    seen: set[str] = set()
    for _ in range(2):
        container = machine.start("echo ready; sleep 60", **options)
        own = namespace(container, "net")
        assert (own == os.readlink("/proc/self/ns/net")) == (options["network"] == "host")
        assert own not in seen
        seen |= {own} if options["network"] == "none" else set()
        assert {*os.listdir(f"/proc/{container.pid}/fd")} <= {"0", "1", "2"}
        # One of each, in no other place.
        mounts = [line.split()[4] for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()]
        assert [mounts.count(each.destination) for each in USUAL[:3]] == [1, 1, 1]
        machine.engine.remove_container(container, force=True)


def test_a_layer_that_somebody_writes_to_before_the_start_is_not_mounted_yet(machine: Machine) -> None:
    @contextmanager
    def around(container: Container) -> Iterator[None]:
        container.put(b"told", "/put")  # type: ignore[attr-defined]
        yield

    options = RunOptions(image="box", command=("cat", "/put"), remove=True)
    result = machine.engine.run(options, around=around).result()
    assert result.stdout == "told"  # type: ignore[union-attr]


def test_who_is_told_of_a_root_that_cannot_be_says_so(tmp_path: Path) -> None:
    done = Beforehand()
    done.spec = Spec(Process(args=("true",)))
    done.left = syscalls.CLONE_NEWNS  # said only: these tests go on where they are
    root = Mount("/", "bind", str(tmp_path / "nowhere"))
    done.begin({"rootfs": spec_codec.mounts_to_json((root,)), "volatile": False}, Rung())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        done.settle()
