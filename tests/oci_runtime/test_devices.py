"""Rules about devices: as the kernel has them in version 1, and by a program of ours in version 2."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles import OURS, Bundle, Runtime
from nbcontain.errors import BadDocument
from nbcontain.linux.device_rules import ANY, USUAL, DeviceRule, from_json, program, settled
from nbcontain.oci.strict_json import Fields

numbers = st.sampled_from([ANY, 1, 3, 5])
rules = st.builds(
    DeviceRule, st.booleans(), st.sampled_from("abc"), numbers, numbers, st.sampled_from(["r", "w", "m", "rw", "rwm"])
)


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """What the kernel's machine makes of a program (bpf(2)): as much of it as these programs need."""
    instructions = list(struct.iter_unpack("=BBhi", code))
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers, at = [0] * 11, 0
    while True:
        code_, both, offset, number = instructions[at]
        to, source = both & 15, both >> 4
        at += 1
        match code_:
            case 0x61:
                (registers[to],) = struct.unpack_from("=I", context, offset)
            case 0xBF:
                registers[to] = registers[source]
            case 0xB7:
                registers[to] = number
            case 0x57:
                registers[to] &= number
            case 0x77:
                registers[to] >>= number
            case 0x55:
                at += offset if registers[to] != number else 0
            case 0x5D:
                at += offset if registers[to] != registers[source] else 0
            case 0x15:
                at += offset if registers[to] == number else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"{code_:#x}")


def meant(said: list[DeviceRule], kind: str, access: int, major: int, minor: int) -> bool:
    anything, exceptions = settled(said)
    hits = [
        bits
        for (its, its_major, its_minor), bits in exceptions.items()
        if its == kind and its_major in (ANY, major) and its_minor in (ANY, minor)
    ]
    return not any(bits & access for bits in hits) if anything else any(bits & access == access for bits in hits)


@given(st.lists(rules, max_size=6), st.sampled_from("bc"), st.integers(1, 7), st.integers(0, 6), st.integers(0, 6))
def test_the_program_says_what_the_rules_mean(
    said: list[DeviceRule], kind: str, access: int, major: int, minor: int
) -> None:
    verdict = run(program(said), {"b": 1, "c": 2}[kind], access, major, minor)
    assert bool(verdict) == meant(said, kind, access, major, minor)


def test_the_usual_rules_let_nodes_be_made_and_opened_that_every_container_has() -> None:
    code = program(USUAL)
    assert run(code, 2, 6, 1, 3) == 1
    assert run(code, 2, 6, 136, 7) == 1
    assert run(code, 1, 1, 8, 0) == 1, "made"
    assert run(code, 1, 2, 8, 0) == 0, "opened"
    assert run(code, 2, 2, 10, 229) == 0


@pytest.fixture
def in_version_2() -> Iterator[Runtime]:
    path = Path(tempfile.mkdtemp(prefix="nbcontain-oci-"))
    made = Runtime(OURS, path, version_2=True)
    yield made
    made.clear()
    subprocess.run(["rm", "-rf", path], check=False)


@pytest.mark.skipif(os.getuid() != 0, reason="control groups of the whole machine")
def test_version_2_keeps_a_container_from_devices(in_version_2: Runtime, bundle: Bundle) -> None:
    """The kernel takes the program, and decides by it: a node that can be made opens nothing."""
    bundle.capabilities("MKNOD")
    script = "mknod /tmp/zero c 1 5; mknod /tmp/tun c 10 200; head -c 1 /tmp/zero | wc -c; head -c 1 /tmp/tun 2>&1"
    said = in_version_2.run(bundle.sh(f"{script}; true"))
    assert said.splitlines()[0] == "1"
    assert "not permitted" in said


def test_a_pipe_is_no_device_that_can_be_allowed() -> None:
    with pytest.raises(BadDocument, match="must be a, b or c"):
        from_json([Fields({"allow": True, "type": "p"}, "devices[0]")])
