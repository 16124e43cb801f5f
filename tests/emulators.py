"""A machine that there is not: programs for loong64 that are this machine's own with another number in their header,
and an emulator for them that puts the number right and executes them. It needs what qemu needs of the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from nbcontain.linux import foreign

ARCHITECTURE = "loong64"
_NAME = "nbcontain-test"
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#define OWN 62
#elif defined(__aarch64__)
#define OWN 183
#elif defined(__riscv)
#define OWN 243
#endif
extern char **environ;
int main(int argc, char **argv) {
    static char buffer[1 << 16];
    unsigned short own = OWN;
    int from = open(argv[1], O_RDONLY | O_CLOEXEC), to = memfd_create("program", MFD_CLOEXEC);
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, n) != n) return 99;
    if (pwrite(to, &own, 2, 18) != 2) return 99;
    syscall(SYS_execveat, to, "", argv + 1, environ, AT_EMPTY_PATH);
    return 98;
}
"""


def foreign_program(own: Path, target: Path) -> Path:
    """A copy of one of this machine's programs that says it is another machine's."""
    data = bytearray(own.read_bytes())
    data[18:20] = foreign.header(ARCHITECTURE)[18:20]
    target.write_bytes(data)
    target.chmod(0o755)
    return target


def built(directory: Path) -> Path:
    """The emulator."""
    program = directory / "emulator"
    subprocess.run(
        [needs.program("cc", "gcc"), "-static", "-O1", "-o", str(program), "-x", "c", "-"],
        input=_SOURCE, text=True, check=True,
    )  # fmt: skip
    return program


@contextmanager
def registered(program: Path, *, flags: str = "F") -> Iterator[None]:
    """Have the kernel know it. Skips where nobody may tell it: that takes root of the machine."""
    if os.geteuid() != 0:
        pytest.skip("only root registers emulators")
    place, mounted = foreign.PLACE, False
    if not (place / "register").exists():
        done = subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"binfmt_misc cannot be mounted here: {done.stderr.decode(errors='replace').strip()}")
        mounted = True
    magic = "".join(f"\\x{byte:02x}" for byte in foreign.header(ARCHITECTURE))
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    try:
        try:
            (place / "register").write_bytes(f":{_NAME}:M:0:{magic}:{mask}:{program}:{flags}".encode())
        except OSError as error:
            pytest.skip(f"no emulator can be registered here: {error}")
        try:
            yield
        finally:
            (place / _NAME).write_text("-1")
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
