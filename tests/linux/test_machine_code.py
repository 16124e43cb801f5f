"""The processor's own code that is here is what its source says."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import needs
from nbcontain.linux import members_code, pump_code

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = CHECKOUT / "tools" / "c"
ROUNDS = 10_000_000 if os.environ.get("NBCONTAIN_SOAK") else 100_000
_CHECKED = ("-g", "-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize(("name", "made"), [("pump", pump_code), ("members", members_code)])
def test_the_code_is_that_of_its_source(name: str, made: ModuleType) -> None:
    """Otherwise `python tools/machine_code.py` is due."""
    source = b"".join((SOURCES / file).read_bytes() for file in ("kernel.h", f"{name}.c"))
    assert hashlib.sha256(source).hexdigest() == made.SOURCE


def test_all_sources_are_made_code_of() -> None:
    assert sorted(each.stem for each in SOURCES.glob("*.c")) == ["members", "pump"]


@pytest.mark.timeout(3600)
def test_what_makes_members_stays_within_its_memory_whatever_it_is_given(tmp_path: Path) -> None:
    program = tmp_path / "members"
    subprocess.run(
        [needs.program("cc", "gcc"), *_CHECKED, "-o", str(program), str(CHECKOUT / "tests/fuzz/members.c")], check=True
    )
    # A seed for each run: what it finds, it finds again.
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run([program, str(ROUNDS), str(seed)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"members {ROUNDS} {seed}: {done.stdout[-500:]}{done.stderr[-2000:]}"
