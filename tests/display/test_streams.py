"""What a cell, a terminal and a pipe get of a program's output."""

import io
from collections.abc import Callable

import pytest

from nbcontain.display.streams import CellWriter, Limits, TerminalWriter


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cell(capsys: pytest.CaptureFixture[str]) -> tuple[CellWriter, Clock, Callable[[], str]]:
    """A writer with room for ten lines at once and ten a second, its clock, and what the cell shows."""
    clock = Clock()
    limits = Limits(burst_lines=10, lines_per_s=10, burst_bytes=10_000, bytes_per_s=10_000, all_lines=40, last_lines=3)
    return CellWriter(limits, "%container logs web", clock), clock, lambda: capsys.readouterr().out


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def test_a_cell_gets_what_fits_as_it_is(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    writer.write("stdout", b"a\n\x1b[31mb\x1b[0m")
    writer.flush()
    assert shown() == "a\n\x1b[31mb\x1b[0m"


def test_a_flood_shows_its_ends_and_says_what_is_missing(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    writer.write("stdout", numbered(1, 1000))
    writer.flush(is_last=True)
    lines = shown().splitlines()
    assert lines[:10] == [str(number) for number in range(1, 11)]
    assert lines[10:] == ["… 987 lines skipped · %container logs web", "998", "999", "1000"]


def test_a_flood_in_pieces_is_counted_and_not_read(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    for first in range(1, 100_001, 1000):
        writer.write("stdout", numbered(first, first + 999))
    # Its pending lines were cut down while it came, and not only when it was flushed.
    assert len(writer._pending) < 1010
    writer.flush(is_last=True)
    lines = shown().splitlines()
    assert lines[:10] == [str(number) for number in range(1, 11)]
    assert lines[10:] == ["… 99 987 lines skipped · %container logs web", "99998", "99999", "100000"]


def test_what_is_left_out_of_one_long_line_is_no_number_of_lines(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    for _ in range(50):
        writer.write("stdout", b"x" * 9_000)
        writer.flush()
    writer.flush(is_last=True)
    assert "… a part of a line skipped" in shown()


def test_a_flood_that_lasts_is_shown_once_a_second(cell) -> None:  # type: ignore[no-untyped-def]
    writer, clock, shown = cell
    for tick in range(1, 16):
        clock.now = tick / 10
        writer.write("stdout", numbered(1, 100))
        writer.flush()
    assert shown().count("skipped") == 1


def test_a_cell_is_full_at_some_time_and_still_shows_the_end(cell) -> None:  # type: ignore[no-untyped-def]
    writer, clock, shown = cell
    for tick in range(1, 60):
        clock.now = tick * 2.0
        writer.write("stdout", numbered(1, 8))
        writer.flush()
    writer.write("stdout", b"the end\n")
    writer.flush(is_last=True)
    lines = shown().splitlines()
    assert len(lines) < 60 and lines[-1] == "the end"


def test_the_two_streams_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    writer = CellWriter()
    writer.write("stdout", b"one\n")
    writer.write("stderr", b"two\n")
    writer.flush()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\n", "two\n")


def test_a_control_function_cut_in_two_is_dropped_whole(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    writer.write("stdout", b"a\x1b]0;ti")
    writer.flush()
    writer.write("stdout", b"tle\x07b\n")
    writer.flush()
    assert shown() == "ab\n"


def test_a_line_without_end_is_cut(cell) -> None:  # type: ignore[no-untyped-def]
    writer, _, shown = cell
    writer._limits = Limits(line_characters=10)
    writer.write("stdout", b"x" * 100 + b"\n")
    writer.flush()
    assert shown() == "x" * 10 + "…\n"


def test_a_pipe_gets_the_bytes() -> None:
    raw = io.BytesIO()
    writer = TerminalWriter(io.TextIOWrapper(raw), io.StringIO())
    writer.write("stdout", b"\x00\xff\x1b[2J")
    assert raw.getvalue() == b"\x00\xff\x1b[2J"


def test_a_terminal_gets_colours_and_no_other_control() -> None:
    text = io.StringIO()
    writer = TerminalWriter(text, io.StringIO())
    writer.write("stdout", b"\x1b[32mok\x1b[0m\x1b[2J\x1b]0;t\x07\n")
    assert text.getvalue() == "\x1b[32mok\x1b[0m\n"
