"""Since when somebody may have made a file: by the clock of file systems, which is not everybody's."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from nbcontain.linux import syscalls
from nbcontain.store import makers

COARSE = makers._COARSE


def test_a_tick_that_comes_late_does_not_make_anybody_earlier_than_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 104.5 the clock of ticks still says 100, and a moment later 104: what was made at 104.3 may say so."""
    said = {time.CLOCK_REALTIME: iter([104_500]), COARSE: iter([100_000, 100_000, 104_000, 104_000, 108_000])}
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: next(said[clock]))
    assert makers.moment() == 108_000


def test_a_clock_that_is_set_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {time.CLOCK_REALTIME: 3_600 * 10**9, COARSE: 10**9}
    monkeypatch.setattr(time, "clock_gettime_ns", said.__getitem__)
    began = time.monotonic()
    assert makers.moment() == 10**9
    assert time.monotonic() - began < 10


def test_it_is_later_than_all_that_is_made_and_not_than_what_will_be(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    looked_at = tmp_path / "looked at"
    for number in range(200):
        time.sleep(random.random() * 0.004)
        for name in ("before", "after"):
            # Who looks at what changes has the kernel give finer times (Linux 6.13), to others too.
            for _ in range(2):
                looked_at.write_bytes(b"x")
                os.stat(looked_at)
            (tmp_path / f"{name}{number}").touch()
            if name == "before":
                since = makers.moment()
        born = [syscalls.birth_ns(directory, f"{name}{number}".encode()) for name in ("before", "after")]
        if None in born:
            pytest.skip("nobody tells here when a file was made")
        assert born[0] < since <= born[1]  # type: ignore[operator]
    os.close(directory)
