"""Where paths are only translated: calls that the translator does not know of, and what is done once it has ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import Machine
from nbcontain.engine import Engine
from nbcontain.profiles import ISOLATION

pytestmark = pytest.mark.of_users

STRAY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>
#ifdef LOADED
/* A library stands in for libc's: so the kernel itself is called. */
#define fchmodat(directory, path, mode, flags) syscall(SYS_fchmodat, directory, path, mode)
#define utimensat(directory, path, times, flags) syscall(SYS_utimensat, directory, path, times, flags)
#define setxattr(...) syscall(SYS_setxattr, __VA_ARGS__)
#define lsetxattr(...) syscall(SYS_lsetxattr, __VA_ARGS__)
#define removexattr(...) syscall(SYS_removexattr, __VA_ARGS__)
#define lremovexattr(...) syscall(SYS_lremovexattr, __VA_ARGS__)
#define truncate(path, size) syscall(SYS_truncate, path, size)
#ifdef SYS_chmod
#define chmod(...) syscall(SYS_chmod, __VA_ARGS__)
#define utimes(...) syscall(SYS_utimes, __VA_ARGS__)
#define utime(...) syscall(SYS_utime, __VA_ARGS__)
#define futimesat(...) syscall(SYS_futimesat, __VA_ARGS__)
#define chown(...) syscall(SYS_chown, __VA_ARGS__)
#endif
#endif
static void change(const char *path) {
    const struct timespec past[2] = {{1, 0}, {1, 0}};
    const struct timeval before[2] = {{1, 0}, {1, 0}};
    const struct utimbuf old = {1, 1};
    chmod(path, 0777);
    fchmodat(AT_FDCWD, path, 0777, 0);
    utimensat(AT_FDCWD, path, past, 0);
    utimes(path, before);
    utime(path, &old);
    futimesat(AT_FDCWD, path, before);
    setxattr(path, "user.stray", "x", 1, 0);
    lsetxattr(path, "user.stray", "x", 1, 0);
    removexattr(path, "user.kept");
    lremovexattr(path, "user.kept");
    truncate(path, 0);
    chown(path, -1, getgid());
}
int main(int argc, char **argv) {
    const char *path = argv[2];
    if (!strcmp(argv[1], "unknown")) {
        struct { unsigned long long value; unsigned size, flags; } value = {(unsigned long)"x", 1, 0};
        struct { unsigned long long flags, mode, resolve; } how = {O_RDONLY, 0, 0};
        if (syscall(452, AT_FDCWD, path, 0777, 0) == 0) puts("mode");
        if (syscall(463, AT_FDCWD, path, 0, "user.stray", &value, sizeof value) == 0) puts("attribute");
        if (syscall(466, AT_FDCWD, path, 0, "user.kept") == 0) puts("attribute removed");
        if (syscall(464, AT_FDCWD, path, 0, "user.kept", &value, sizeof value) >= 0) puts("attribute read");
        if (syscall(437, AT_FDCWD, path, &how, sizeof how) >= 0) puts("opened");
        if (syscall(428, AT_FDCWD, path, 0) >= 0) puts("tree");
        puts("tried");
        return 0;
    }
#ifndef LOADED
    kill(getppid(), SIGKILL);
#endif
    for (int count = 0; count < 300; count++) { change(path); usleep(1000); }
}
"""
REACH = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>
#ifdef LOADED
#define KNOWN wanted
#else
#define KNOWN "/bin/busybox"
#endif
static const char *wanted;
static char *volatile below;
static volatile int asks, rests, over;
static void *turn(void *unused) {
    while (!over) {
        if (asks) { memset(below - 2048, '/', 2048 - 128); strcpy(below - 128 - 1 - strlen(wanted), wanted); }
        else rests = 1;
    }
    return 0;
}
static int __attribute__((noinline)) opened(const char *known) {
    long fd;
    register char *top __asm__("rsp");
    below = top;
    asks = 1;
    __asm__ volatile("syscall" : "=a"(fd) : "a"(SYS_open), "D"(known), "S"(O_RDONLY), "d"(0) : "rcx", "r11", "memory");
    asks = rests = 0;
    while (!rests);
    return fd;
}
static void reach(int end, const struct sockaddr_un *to, const char *how) {
    if (end < 0) return;
    if (sendto(end, how, strlen(how), 0, (void *)to, sizeof *to) > 0) printf("sent by %s\n", how);
    if (connect(end, (void *)to, sizeof *to) == 0 && write(end, "x", 1) == 1) printf("connected by %s\n", how);
}
int main(int argc, char **argv) {
    struct sockaddr_un to = {AF_UNIX};
    struct stat file, own = {0};
    int ends[2] = {-1, -1};
    if (!strcmp(argv[1], "socket")) {
        strcpy(to.sun_path, argv[2]);
        reach(socket(AF_UNIX, SOCK_DGRAM, 0), &to, "a datagram's");
        reach(socket(AF_UNIX, SOCK_RAW | SOCK_CLOEXEC, 0), &to, "a raw one");
        for (int kind = SOCK_DGRAM; kind <= SOCK_RAW; kind++)
            if (socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, ends) == 0) reach(ends[0], &to, "one of a pair");
        puts("tried");
        return socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0;
    }
    /* What the translator writes is at the top of a stack, and there it waits to be read. */
    pthread_t beside;
    wanted = argv[2];
    stat("/bin/busybox", &own);
    pthread_create(&beside, 0, turn, 0);
    for (int count = 0, left = 5; count < 5000 && left; count++) {
        int fd = opened(KNOWN);
        if (fd >= 0 && fstat(fd, &file) == 0 && file.st_ino != own.st_ino && left--) {
            const struct timespec past[2] = {{1, 0}, {1, 0}};
            fchmod(fd, 0777);
            futimens(fd, past);
            utimensat(fd, "", past, AT_EMPTY_PATH);
            fsetxattr(fd, "user.stray", "x", 1, 0);
            fremovexattr(fd, "user.kept");
            if (!left) puts("opened");
        }
        close(fd);
    }
    over = 1;
    pthread_join(beside, 0);
    puts("tried");
}
"""


@pytest.fixture(params=["proot", "preload"])
def translated(
    request: pytest.FixtureRequest, profile: str, _hostile_machine: Machine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Machine]:  # fmt: skip
    """The machine on that rung, with a translator of the user's, and the programs in an image of their own."""
    if profile != "rootless-single":
        pytest.skip(f"paths are not translated for {profile}")
    if request.param == "preload":
        below: Machine = request.getfixturevalue("preload_machine")
    else:
        needs.proot(_hostile_machine.engine.host)
        below = _hostile_machine
    places = {"proot": "bin/proot", "preload": "lib/fakechroot/libfakechroot.so"}
    own = tmp_path / places[request.param]
    for each in (own, tmp_path / "bin" / "fakechroot"):
        each.parent.mkdir(parents=True, exist_ok=True)
    if request.param == "preload":
        shutil.copy2(below.engine.profile.rung.translator, own)
        shutil.copy2("/bin/true", tmp_path / "bin" / "fakechroot")
    else:
        shutil.copy2(needs.program("proot"), own)
    _compile(tmp_path, "-DLOADED" if request.param == "preload" else "-static")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with Engine(below.engine.layout.root, {**os.environ, ISOLATION: request.param}) as engine:
        assert engine.profile.rung.translator == str(own)
        machine = Machine.on(engine)
        machine.build("FROM box\nCOPY stray reach /bin/\n", "stray", tmp_path)
        yield machine
    below.clear()


def _compile(directory: Path, *how: str) -> None:
    for name, source in (("stray", STRAY), ("reach", REACH)):
        words = (needs.program("cc", "gcc"), *how, "-pthread", "-o", str(directory / name), "-x", "c", "-")
        subprocess.run(words, input=source, text=True, check=True)


def looks(path: Path) -> tuple[int, int, int, bytes, list[str]]:
    status = path.stat()
    return status.st_mode, status.st_gid, status.st_mtime_ns, path.read_bytes(), os.listxattr(path)


@pytest.mark.parametrize("way", ["unknown", "alone"])
def test_this_machines_files_stay_as_they_are_where_nobody_translates(
    way: str, translated: Machine, canary: Path
) -> None:
    secret = canary / "secret"
    os.setxattr(secret, "user.kept", b"x")
    before = looks(secret)
    said = translated.run("stray", way, str(secret), image="stray", no_raise=True).stdout
    assert (looks(secret), said) == (before, "tried\n" if way == "unknown" else "")


def test_files_of_the_containers_are_changed_as_everywhere(translated: Machine) -> None:
    script = (
        "cd /tmp; touch f; ln -s f l; chmod 640 l; stat -c %a f; touch -d @7 l; stat -c %Y f; echo text > f;"
        " chmod 2755 /tmp/f; truncate -s 2 l; cat f; echo; mkdir d; touch -h -d @8 l; stat -c %Y l;"
        " chmod 700 d/.; stat -c %a d; chmod 777 /tmp/none 2>/dev/null || echo none; exec 5>g; touch -d @9 /dev/fd/5;"
        " stat -c %Y g"
    )
    assert translated.sh(script).split() == ["640", "7", "te", "8", "700", "none", "9"]


def test_what_may_be_read_of_this_machines_stays_as_it_is(translated: Machine, tmp_path: Path) -> None:
    """The translator itself is a file of the user's, and so may libraries be."""
    file = Path(translated.engine.profile.rung.translator)
    os.setxattr(file, "user.kept", b"x")
    before = looks(file)
    assert translated.run("reach", "file", str(file), image="stray").stdout == "opened\ntried\n"
    assert looks(file) == before


def test_sockets_of_this_machines_are_not_reached(translated: Machine, tmp_path: Path) -> None:
    """By their places: nothing else keeps from those, which a translator passes over, or may be too late for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "door"))
        assert translated.run("reach", "socket", str(tmp_path / "door"), image="stray").stdout == "tried\n"
