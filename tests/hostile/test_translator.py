"""Where paths are only translated: calls that the translator does not know of, and what is done once it has ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from machine import Machine

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
    kill(getppid(), SIGKILL);
    for (int count = 0; count < 300; count++) { change(path); usleep(1000); }
}
"""


@pytest.fixture
def translated(profile: str, _hostile_machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    """The machine on that rung, with the program in an image of its own."""
    if profile != "rootless-single":
        pytest.skip(f"paths are not translated for {profile}")
    needs.proot(_hostile_machine.engine.host)
    machine = Machine.on(_hostile_machine.engine.isolated("proot"))
    words = (needs.program("cc", "gcc"), "-static", "-o", str(tmp_path / "stray"), "-x", "c", "-")
    subprocess.run(words, input=STRAY, text=True, check=True)
    machine.build("FROM box\nCOPY stray /bin/stray\n", "stray", tmp_path)
    yield machine
    _hostile_machine.clear()


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
