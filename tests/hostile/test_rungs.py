"""Ways out of the lower rungs: through what is served, what is handed in, and whoever answers for the kernel."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import SLEEP, Machine, fresh, helpers_of, said, supervisor_of, until
from nbcontain.errors import NbcontainError, SetupFailed, Unavailable
from nbcontain.host import Ability, Probe
from nbcontain.linux.starts import start_of
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.values import replace

LADDER = {
    "root": ("full", "root-noproc", "chroot", "userns-chroot"),
    "rootless-range": ("rootless-range", "userns-chroot"),
    "rootless-single": ("userns-chroot", "rootless-single", "proot", "preload"),
}

GRAB = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    static char stolen[64];
    struct rlimit limit = {4096, 4096};
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
        if (prlimit(pid, RLIMIT_CPU, &limit, 0) == 0) printf("limited %d\n", pid);
        if (syscall(SYS_prlimit64, pid | 1L << 40, RLIMIT_CPU, &limit, 0) == 0) printf("limited %d so\n", pid);
        if (kill(pid, SIGKILL) == 0) printf("killed %d\n", pid);
    }
    if (setrlimit(RLIMIT_CPU, &limit) || prlimit(0, RLIMIT_CPU, 0, &limit)) puts("not even itself");
    puts("tried");
}
"""
"""All ways to another process that take no more than its number; a limit of its processor time ends it, too."""


CHANGE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
static const unsigned none[] = {2, 1, -1, 4, -1, 32, -1};
static char **paths;
static volatile int over;
static void by(int fd) {
    fchmod(fd, 0);
    fchown(fd, 1, 1);
    fchownat(fd, "", 1, 1, AT_EMPTY_PATH);
    syscall(452, fd, "", 0, AT_EMPTY_PATH);
    fsetxattr(fd, "system.posix_acl_access", none, sizeof none, 0);
    fsetxattr(fd, "user.nbcontain.test", "x", 1, 0);
}
static void all(void) {
    for (char **each = paths; *each; each++) {
        int fd = open(*each, O_RDONLY);
        if (fd >= 0) { by(fd); close(fd); }
    }
}
static void *turn(void *file) {
    int own = open("/own", O_RDWR | O_CREAT, 0600), theirs = open(file, O_RDONLY);
    while (!over) { dup2(own, 60); if (theirs >= 0) dup2(theirs, 60); }
    return 0;
}
int main(int argc, char **argv) {
    struct stat status;
    paths = argv + 1;
    all();
    if (fork() == 0) { prctl(PR_SET_DUMPABLE, 0); all(); _exit(0); }
    if (fork() == 0) {
        for (int number = 10; paths[number - 10]; number++) dup2(open(paths[number - 10], O_RDONLY), number);
        if (seteuid(1000) || seteuid(0)) _exit(1);
        for (int number = 10; paths[number - 10]; number++) by(number);
        _exit(0);
    }
    if (fork() == 0) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct data[2];
        prctl(PR_SET_KEEPCAPS, 1);
        if (setresuid(1000, 1000, 1000)) _exit(1);
        syscall(SYS_capget, &header, data);
        data[0].effective = data[0].permitted; data[1].effective = data[1].permitted;
        syscall(SYS_capset, &header, data);
        all();
        _exit(0);
    }
    while (wait(0) > 0);
    for (char **each = paths; *each; each++) {
        pthread_t beside;
        over = 0;
        pthread_create(&beside, 0, turn, *each);
        for (int count = 0; count < 40; count++) by(60);
        over = 1;
        pthread_join(beside, 0);
    }
    int own = open("/mine", O_RDWR | O_CREAT, 0600);
    fchmod(own, 0640);
    fchownat(own, "", 0, 0, AT_EMPTY_PATH);
    fsetxattr(own, "user.nbcontain.test", "x", 1, 0);
    fstat(own, &status);
    printf("%o\n", status.st_mode & 07777);
}
"""
"""All ways to change what is open, also as somebody who is root no longer, and while the number is given to another."""
LEAVE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un name = {AF_UNIX, "/sock"};
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int end = socket(AF_UNIX, SOCK_STREAM, 0), directory;
    if (connect(end, (void *)&name, sizeof name) || recvmsg(end, &message, 0) != 1) return 1;
    memcpy(&directory, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof directory);
    fchownat(directory, "secret", 7, 7, 0);
    fchownat(directory, "", 7, 7, AT_EMPTY_PATH);
    mknodat(directory, "node", S_IFCHR | 0600, makedev(1, 3));
    if (fchdir(directory)) return 2;
    chown("secret", 7, 7);
    mknod("other", S_IFCHR | 0600, makedev(1, 3));
    puts("tried");
    return 0;
}
"""
"""What can be done with a directory of the machine's, once somebody has sent one."""


def compiled(source: str, name: str, machine: Machine, directory: Path) -> str:
    """An image with this program in it; gives its name, which is the program's, too."""
    # What a library is loaded into cannot be static, and its libc is this machine's.
    how = () if machine.engine.profile.name == "preload" else ("-static",)
    words = (needs.program("cc", "gcc"), *how, "-pthread", "-o", str(directory / name), "-x", "c", "-")
    subprocess.run(words, input=source, text=True, check=True)
    return machine.build(f"FROM box\nCOPY {name} /bin/{name}\n", name, directory)


@pytest.fixture
def grabbing(rung: Machine, tmp_path: Path) -> str:
    """An image with that program."""
    return compiled(GRAB, "grab", rung, tmp_path)


@pytest.fixture(params=tuple({name: None for each in LADDER.values() for name in each}))
def rung(request: pytest.FixtureRequest, profile: str, _hostile_machine: Machine) -> Iterator[Machine]:
    if request.param not in LADDER[profile]:
        pytest.skip(f"{request.param} is not for {profile}")
    if request.param == "preload":
        loaded: Machine = request.getfixturevalue("preload_machine")
        yield loaded
        loaded.clear()
        return
    if request.param == "proot":
        needs.proot(_hostile_machine.engine.host)
    try:
        taken = _hostile_machine.engine.isolated(request.param)
        taken.profile  # noqa: B018 - what cannot be had is told by whoever asks
    except Unavailable as error:
        pytest.skip(f"{error.message}: {error.why}")
    yield Machine.on(taken)
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


def need_proc(rung: Machine) -> None:
    """The end of this test where no file of /proc can be had, as where somebody else answers calls already."""
    taken = rung.engine.profile.rung
    if not taken.proc and not taken.serves:
        pytest.skip("there is no /proc inside")


def test_a_descriptor_that_was_handed_in_is_no_way_out_either(rung: Machine, canary: Path) -> None:
    need_proc(rung)
    script = (
        "exec 5</proc/self/status; exec 6</dev/zero; exec 7</etc/hosts; for n in 5 6 7; do"
        f" cat /proc/self/fd/$n/../../../..{canary}/secret /dev/fd/$n/..{canary}/secret 2>/dev/null;"
        " cd /dev/fd/$n 2>/dev/null && echo went; done; (echo x >/dev/fd/5) 2>/dev/null && echo wrote; true"
    )
    before = Path("/etc/hosts").read_bytes()
    assert rung.sh(script) == ""
    assert Path("/etc/hosts").read_bytes() == before


def test_the_hosts_settings_cannot_be_written(rung: Machine) -> None:
    need_proc(rung)
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


HOSTS = tuple(
    each
    for each in (
        "/dev/zero", "/dev/null", "/proc/meminfo", "/proc/self/net/dev", "/proc/sys/vm/swappiness",
        "/sys/devices/system/cpu/online", "/etc/hosts", "/etc/resolv.conf",
    )
    if os.path.exists(each)  # gVisor has few settings
)  # fmt: skip


def looks_of_hosts() -> list[tuple[int, int, int, list[str]]]:
    found = map(os.stat, HOSTS)
    attributes = map(os.listxattr, HOSTS)
    return [(each.st_mode, each.st_uid, each.st_gid, more) for each, more in zip(found, attributes, strict=True)]


def test_the_hosts_files_stay_as_they_are_whoever_has_them_open(rung: Machine, tmp_path: Path) -> None:
    """Whoever is this machine's root and has a /proc of its own can change what all of them are one and the same of."""
    is_root = rung.engine.profile.name == "full"
    files = [each for each in HOSTS if not (is_root and each in ("/proc/meminfo", "/proc/self/net/dev"))]
    before = looks_of_hosts()
    changing = compiled(CHANGE, "change", rung, tmp_path)
    assert rung.run("change", *files, image=changing).stdout == "640\n"
    assert looks_of_hosts() == before


def test_the_hosts_devices_stay_so_too_where_none_of_ones_own_can_be_made(
    profile: str, _hostile_machine: Machine, tmp_path: Path
) -> None:
    if profile != "root":
        pytest.skip("only the host's root may change them")
    _hostile_machine.engine.isolated("chroot").profile  # noqa: B018 - what cannot be had is told by whoever asks
    changing = compiled(CHANGE, "change", _hostile_machine, tmp_path)
    root = str(_hostile_machine.engine.layout.root)
    environ = {**os.environ, "NBCONTAIN_ISOLATION": "chroot", "NBCONTAIN_ROOT": root}
    without = (needs.program("setpriv"), "--bounding-set=-mknod,-sys_ptrace")
    words = (*without, sys.executable, "-m", "nbcontain", "run", "--rm", changing, "change", *HOSTS)
    before = looks_of_hosts()
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "640\n"
    assert looks_of_hosts() == before


def test_a_directory_that_somebody_sends_is_none_of_who_answers(
    rung: Machine, canary: Path, tmp_path: Path
) -> None:
    """Where the kernel alone decides, a directory that was sent is what it is everywhere."""
    taken = rung.engine.profile.rung
    if taken.ids != "notify" or taken.root != "chroot":
        pytest.skip("nobody answers in place of a chroot here")
    container = rung.start(
        "echo ready; while [ ! -e /sock ]; do sleep 0.05; done; leave",
        image=compiled(LEAVE, "leave", rung, tmp_path),
    )
    (root,) = container.bundle.rootfs
    directory, place = os.open(canary, os.O_RDONLY), os.open(root.source, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(20)
        door.bind(f"/proc/self/fd/{place}/.sock")
        door.listen()
        os.rename(".sock", "sock", src_dir_fd=place, dst_dir_fd=place)
        with door.accept()[0] as end:
            socket.send_fds(end, [b"."], [directory])
            until(lambda: container.status == "exited")
    os.close(directory)
    os.close(place)
    assert said(container) == "ready\ntried\n"
    assert not any(map(os.listxattr, (canary, canary / "secret")))


@pytest.mark.parametrize("way", ["image", "archive"])
def test_a_device_of_an_images_opens_nothing(way: str, rung: Machine, busybox: Path, tmp_path: Path) -> None:
    """The kernel's log, and a disk, as c 1:11 and b 7:0; and what every container may open is no hindrance."""
    with tarfile.open(tmp_path / "nodes.tar", "w") as tar:
        tar.add(busybox, "bin/busybox")
        for name, kind, major, minor in (
            ("log", tarfile.CHRTYPE, 1, 11), ("deep/er/disk", tarfile.BLKTYPE, 7, 0), ("zero", tarfile.CHRTYPE, 1, 5),
        ):  # fmt: skip
            node = tarfile.TarInfo(name)
            node.type, node.devmajor, node.devminor, node.mode = kind, major, minor, 0o666
            tar.addfile(node)
    if way == "archive":
        with pytest.raises(NbcontainError):
            rung.build("FROM box\nADD nodes.tar /\nRUN dd if=/log bs=4096 count=1 | grep .\n", "nodes", tmp_path)
        return
    rung.engine.archives.import_image(str(tmp_path / "nodes.tar"), "nodes").result()
    for name in ("/log", "/deep/er/disk"):
        words = ("/bin/busybox", "dd", f"if={name}", "bs=512", "count=1")
        with contextlib.suppress(SetupFailed):
            assert rung.run(*words, image="nodes", no_raise=True).stdout == ""


LOG, DISK, ZERO = (tarfile.CHRTYPE, 1, 11), (tarfile.BLKTYPE, 7, 0), (tarfile.CHRTYPE, 1, 5)
OPEN = "for n in /data/log /data/disk; do dd if=$n bs=512 count=1 2>/dev/null; done"
"""The kernel's log, a disk, and what every container may open; a program that opens the former."""


def sent(machine: Machine, container: Container, **nodes: tuple[bytes, int, int]) -> None:
    """A tar with these in it is unpacked in /data of a container, as `cp -` does."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, (kind, major, minor) in nodes.items():
            node = tarfile.TarInfo(name)
            node.type, node.devmajor, node.devminor, node.mode = kind, major, minor, 0o666
            tar.addfile(node)
    with tempfile.TemporaryFile() as stream:
        stream.write(made.getvalue())
        stream.seek(0)
        kept = os.dup(0)
        try:
            os.dup2(stream.fileno(), 0)
            machine.engine.transfers.into("-", container, "/data").result()
        finally:
            os.dup2(kept, 0)
            os.close(kept)


@pytest.mark.parametrize("when", ["created", "running", "stopped"])
def test_a_device_that_cp_brings_opens_nothing(when: str, rung: Machine) -> None:
    script = f"mkdir -p /data; {OPEN}; while [ ! -e /data/on ]; do sleep 0.05; done; {OPEN}; echo end"
    image = rung.build("FROM box\nRUN mkdir /data\n", "data")
    options = RunOptions(image=image, command=("sh", "-c", script), name="taker")
    container = rung.engine.create(options)
    if when == "created":
        with contextlib.suppress(NbcontainError):
            sent(rung, container, log=LOG, disk=DISK, zero=ZERO)
    with contextlib.suppress(SetupFailed):
        rung.engine.start(container)
    if when == "stopped":
        rung.engine.life.stop(container, 0)
        until(lambda: container.status == "exited")
    if when != "created":
        with contextlib.suppress(NbcontainError):
            sent(rung, container, log=LOG, disk=DISK, zero=ZERO)
    if when == "stopped":
        with contextlib.suppress(SetupFailed):
            rung.engine.start(container)
    if container.status == "running":
        rung.engine.transfers.write(container, "/data/on", b"")
        until(lambda: container.status == "exited")
        assert said(container) == "end\n"


def test_a_device_that_a_step_made_elsewhere_opens_nothing(rung: Machine, _hostile_machine: Machine) -> None:
    """With mounts a step of root's may make one, since everything is mounted nodev there."""
    if os.geteuid() != 0 or rung.engine.profile.rung.mounts:
        pytest.skip("only for a chroot of root's")
    maker = _hostile_machine.engine.isolated("full")
    maker.profile  # noqa: B018 - what cannot be had is told by whoever asks
    Machine.on(maker).build("FROM box\nRUN mkdir -p /deep/er && mknod -m 666 /deep/er/disk b 7 0\n", "made-of-full")
    for _ in range(2):
        with pytest.raises(SetupFailed, match="/deep/er/disk is a device of this machine's: b 7:0"):
            rung.run("true", image="made-of-full")
    with pytest.raises(NbcontainError, match="disk"):
        rung.build("FROM made-of-full\nRUN true\n", "on")


@pytest.mark.parametrize("when", ["created", "run before", "started again by itself"])
def test_a_device_that_came_after_the_making_is_found_at_the_next_start(when: str, rung: Machine) -> None:
    if os.geteuid() != 0 or rung.engine.profile.rung.mounts:
        pytest.skip("only for a chroot of root's")
    is_again = when == "started again by itself"
    # Where the store is, which need not be where tests have their files.
    kept = rung.engine.layout.root / "log"
    try:
        os.mknod(kept, stat.S_IFCHR | 0o666, os.makedev(1, 11))
    except PermissionError:
        pytest.skip("no device can be made here")
    kept.unlink()
    script = "echo ready; while [ ! -e /on ]; do sleep 0.05; done; dd if=/log bs=512 count=1; exit 1"
    command = ("sh", "-c", script if is_again else "dd if=/log bs=512 count=1 2>&1 | grep -a -c .; true")
    options = RunOptions(image="box", command=command, restart="always" if is_again else "")
    container = rung.engine.create(options)
    (root,) = container.bundle.rootfs
    if when != "created":
        rung.engine.start(container)
        until(lambda: said(container) in ("1\n", "ready\n"))
    if when == "run before":
        until(lambda: container.status == "exited")
    before = said(container)
    if is_again:
        # After the first run's program has been told to end, which takes it a moment.
        Path(root.source, "on").touch()
    os.mknod(Path(root.source, "log"), stat.S_IFCHR | 0o666, os.makedev(1, 11))
    if is_again:
        until(lambda: container.status == "exited")
        assert "/log is a device of this machine's: c 1:11" in container.state().error
    else:
        with pytest.raises(SetupFailed, match="/log is a device of this machine's: c 1:11"):
            rung.engine.start(container)
        assert said(container) == before


def test_what_was_copied_without_a_device_is_looked_through_once_only(rung: Machine) -> None:
    """Who copies the tree sees all of it. Whoever has let its lock go may be another's next, and looks again."""
    container = rung.engine.create_held(RunOptions(image="box", command=("true",)), lambda event: None)
    assert container.bundle.is_plain == (rung.engine.store.snapshots.driver == "copy")
    container.bundle.unlock()
    assert not container.bundle.is_plain


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
        assert "sleep" not in said or rung.engine.profile.name in ("proot", "preload")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_nobody_outside_is_changed_by_this_machines_proc_where_there_is_no_other(
    profile: str, busybox_context: Path
) -> None:
    """Whose file it is may write it: by oom_score_adj all of a user's other processes were the first to be killed."""
    if os.geteuid() == 0:
        pytest.skip("root without a /proc of its own has none")
    child = os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "60"])
    try:
        with fresh(busybox_context) as machine:
            host = machine.engine.host
            none = {**host.abilities, Ability.FRESH_PROC: Probe(False, "it is covered")}
            machine.engine.__dict__["host"] = replace(host, abilities=none)
            names = ("oom_score_adj", "autogroup", "coredump_filter", "clear_refs", "sched", "comm")
            script = "; ".join(f"(echo 7 > /proc/{child}/{name}) 2>/dev/null && echo {name}" for name in names)
            said = machine.sh(f"cat /proc/{child}/comm; {script}; echo end > /dev/stdout; echo to > /proc/self/fd/1")
            assert said == "sleep\nend\nto\n"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_who_has_rid_itself_of_the_translator_is_still_kept_from_this_machines_files(
    rung: Machine, canary: Path
) -> None:
    name = rung.engine.profile.name
    if name == "preload":
        script = f"unset LD_PRELOAD; cat {canary}/secret; /bin/cat {canary}/secret; echo x > {canary}/made; echo end"
        assert rung.run("sh", "-c", script, no_raise=True).stdout == "end\n"
        return
    if name != "proot":
        pytest.skip("here nobody translates")
    # By the shell itself: from then on not even the image's programs are found.
    script = f"kill -9 $PPID; echo on; read -r all < {canary}/secret && echo $all; echo x > {canary}/made; echo end"
    said = rung.run("sh", "-c", script, no_raise=True).stdout
    assert said in ("", "on\n", "on\nend\n")  # whatever it had come to when it was ended


def test_neither_the_supervisor_nor_who_answers_is_traced_read_robbed_or_killed(rung: Machine, grabbing: str) -> None:
    # By itself, where nothing can be started in it later.
    container = rung.start(f"(while [ ! -e /pids ]; do sleep 0.1; done; grab $(cat /pids)) & {SLEEP}", image=grabbing)
    init = container.pid
    assert init is not None
    supervisor = supervisor_of(init)
    outside = {supervisor, *helpers_of(init)}
    taken = rung.engine.profile.rung
    if taken.ids == "notify" or taken.serves:
        assert len(outside) > 1  # who answers is one of them
    pids = tuple(map(str, sorted(outside)))
    if not taken.joins:
        (root,) = container.bundle.rootfs
        Path(root.source, "pids").write_text(" ".join(pids))
        until(lambda: said(container) == "ready\ntried\n", what=lambda: said(container))
        assert all(map(start_of, outside)) and container.status == "running"
        return
    assert rung.execute(container, "grab", *pids) == (0, "tried\n")
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
    if not rung.engine.profile.rung.joins:
        pytest.skip("nobody answers on such a kernel, and nobody can be asked who is inside")
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
