"""Programs of a few bytes that are made here: they do what they are for, on each machine that can be tried."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from nbcontain.linux import little_programs


def run(machine: str, data: bytes, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
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
    return subprocess.run([*before, str(program), *words], capture_output=True, text=True, timeout=30, check=False)


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
