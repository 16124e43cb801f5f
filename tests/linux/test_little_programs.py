"""Programs of a few bytes that are made here: they do what they are for, on each machine that can be tried."""

from __future__ import annotations

import errno
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from nbcontain.linux import little_programs


def run(
    machine: str, data: bytes, directory: Path, *words: str, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    """Here, or by QEMU, whose programs execute others of this machine."""
    program = directory / "program"
    program.write_bytes(data)
    program.chmod(0o755)
    before: list[str] = []
    if machine != platform.machine():
        emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
        if emulator is None:
            pytest.skip(f"neither {machine} nor QEMU for it is here")
        before = [emulator]
    words = (*before, str(program), *words)
    return subprocess.run(words, capture_output=True, encoding=encoding, timeout=30, check=False)


@pytest.mark.parametrize("machine", little_programs.MACHINES)
def test_nothing_ends_well(machine: str, tmp_path: Path) -> None:
    done = run(machine, little_programs.nothing(machine), tmp_path, "-v", "more")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("machine", little_programs.MACHINES)
@pytest.mark.parametrize("words", [(), ("a",), ("a b", "", "c")])
def test_a_loader_is_told_what_the_program_is_called(words: tuple[str, ...], machine: str, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text('#!/bin/sh\nfor each; do echo "<$each>"; done; echo $KEPT\n')
    shown.chmod(0o755)
    data = little_programs.loading(machine, str(shown), len("/base/fs"))
    done = run(machine, data, tmp_path, "/base/fs/bin/it", *words)
    said = "".join(f"<{each}>\n" for each in ("--argv0", "/bin/it", "/base/fs/bin/it", *words))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")


@pytest.mark.parametrize("machine", little_programs.MACHINES)
def test_without_a_loader_it_ends_as_a_shell_says_of_none(machine: str, tmp_path: Path) -> None:
    data = little_programs.loading(machine, str(tmp_path / "none"), 1)
    assert run(machine, data, tmp_path, "/x").returncode == 127


def calling(machine: str, *calls: tuple[int, ...]) -> bytes:
    """A program that has these calls done by a child, waits until that is another program, or has ended, and ends."""
    # mov rdi, TABLE; call CALLS; xor edi, edi; mov eax, 60; syscall
    # ldr x0, TABLE; bl CALLS; mov x0, #0; mov x8, #93; svc #0; nop; TABLE
    before, after = {
        "x86_64": ("48bf", "e80900000031ffb83c0000000f05"),
        "aarch64": ("c000005807000094000080d2a80b80d2010000d41f2003d5", ""),
    }[machine]
    first, last = bytes.fromhex(before), bytes.fromhex(after)
    code = little_programs.CALLS[machine]
    sigchld_and_vfork, stdout = 17 | 0x4000, 1
    words = [sigchld_and_vfork, 0, stdout, 0, *(word for call in calls for word in call)]
    start = 0x400000 + 64 + 56
    table = start + len(first) + 8 + len(last) + len(code)
    data = first + struct.pack("<Q", table) + last + code + struct.pack(f"<{len(words)}Q", *words)
    made = bytearray(little_programs.program(machine, data))
    made[64 + 4] = 7  # its memory may be written to, too
    return bytes(made)


GETPPID = {"x86_64": 110, "aarch64": 173}
CLOSE = {"x86_64": 3, "aarch64": 57}


@pytest.mark.parametrize("machine", little_programs.CALLS)
def test_a_child_does_calls_until_one_does_not_succeed_and_tells_which(machine: str, tmp_path: Path) -> None:
    data = calling(machine, (GETPPID[machine], 0, 0, 0), (CLOSE[machine], 99, 0, 0), (CLOSE[machine], 1, 0, 0))
    done = run(machine, data, tmp_path, encoding="latin-1")
    assert done.returncode == 0
    assert struct.unpack("<qq", done.stdout.encode("latin-1")) == (-errno.EBADF, 2 * 32)
