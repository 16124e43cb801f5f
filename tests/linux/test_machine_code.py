"""The processor's own code that is here is what its source says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest

from nbcontain.linux import members_code, pump_code

SOURCES = Path(__file__).resolve().parents[2] / "tools" / "c"


@pytest.mark.parametrize(("name", "made"), [("pump", pump_code), ("members", members_code)])
def test_the_code_is_that_of_its_source(name: str, made: ModuleType) -> None:
    """Otherwise `python tools/machine_code.py` is due."""
    source = b"".join((SOURCES / file).read_bytes() for file in ("kernel.h", f"{name}.c"))
    assert hashlib.sha256(source).hexdigest() == made.SOURCE


def test_all_sources_are_made_code_of() -> None:
    assert sorted(each.stem for each in SOURCES.glob("*.c")) == ["members", "pump"]
