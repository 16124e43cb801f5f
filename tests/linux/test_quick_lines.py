"""The processor's own code writes the lines that Python would."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.linux import code_memory, pump_code
from nbcontain.linux.quick_lines import QuickLines
from nbcontain.runtime import output_lines

ROOM = 1 << 18
needs_code = pytest.mark.skipif(os.uname().machine not in pump_code.CODE, reason="no code is known for this processor")
QUICK = QuickLines(ROOM) if os.uname().machine in pump_code.CODE else None

# Characters of each length, the borders between them, and sequences that only look like UTF-8 (RFC 3629, section 3).
PIECES = [
    "ä", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", '"', "\\", "\n",
    "\0", "\x1b[31m", "\r\n", "\t\b\f", "a line of text as programs write them, number 00000001\n",
]  # fmt: skip
BROKEN = [
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xe2(\xa1",
    b"\xf0\x28\x8c\xbc", b"\xff", b"\xbf",
]  # fmt: skip
OUTPUT = st.lists(st.sampled_from([*(each.encode() for each in PIECES), *BROKEN]) | st.binary(max_size=9)).map(b"".join)


@needs_code
@given(OUTPUT, st.integers(1, 3000), st.integers(0, 7))
def test_output_of_any_kind_becomes_the_same_lines(data: bytes, times: int, start: int) -> None:
    assert QUICK is not None
    data = (data * times)[start:ROOM]
    head = output_lines.head(1.5, "0123abcd", "stderr")
    wanted = b"".join(output_lines.parts(1.5, "0123abcd", "stderr", data))
    assert bytes(QUICK.of(head, data)) == wanted


@needs_code
@pytest.mark.parametrize("data", [b"\xff", b"\0", b"\n", b'"', b"x"])
def test_there_is_room_for_the_longest_lines(data: bytes) -> None:
    assert QUICK is not None
    head = b"h" * 512
    assert len(QUICK.of(head, data * ROOM)) >= ROOM


@needs_code
def test_more_than_there_is_room_for_is_refused() -> None:
    assert QUICK is not None
    with pytest.raises(ValueError, match="room"):
        QUICK.of(b"", bytes(ROOM + 1))
    with pytest.raises(ValueError, match="room"):
        QUICK.of(bytes(513), b"")


def test_a_processor_that_no_code_is_known_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_code, "CODE", {})
    with pytest.raises(OSError, match="processor"):
        QuickLines(1)


@needs_code
def test_a_machine_that_lets_nobody_make_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_memory, "_mprotect", lambda *_: -1)
    with pytest.raises(OSError):
        QuickLines(1)
