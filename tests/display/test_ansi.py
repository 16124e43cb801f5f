"""Bytes of hostile programs become lines of printable text and a closed set of styles."""

from hypothesis import given
from hypothesis import strategies as st

from nbcontain.display.ansi import Pen, Style, settle, split_unfinished, unfinished, write
from nbcontain.display.harmless import sanitized, visible

PIECES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\x1b[31m", b"\x1b[", b"\x1b]0;t\x07", b"\x1b]52;c;", b"\r", b"\n", b"\b", b"\x9b", b"\xc2\x9b1m",
                     "é\u202e😀".encode(), b"text", b"\x1b[38;5;300m", b"\x1b[K", b"\x1bP"]),
)  # fmt: skip


def text_of(data: bytes) -> str:
    """The first line of some output, without its looks."""
    _, lines = write(Pen(), data + b"\n")
    return lines[0].text


def test_a_colour_becomes_a_class() -> None:
    runs, style = settle("\x1b[1;31mred\x1b[0m plain")
    assert [(run.text, run.style.classes) for run in runs] == [("red", "nbc-bold nbc-fg1"), (" plain", "")]
    assert style == Style()


def test_a_style_holds_on_the_next_line() -> None:
    _, (first, second) = write(Pen(), b"\x1b[32mone\ntwo\n")
    assert first.runs[0].style == second.runs[0].style == Style(foreground=2)


def test_a_true_colour_becomes_the_nearest_of_sixteen() -> None:
    assert settle("\x1b[38;2;250;90;80mx")[0][0].style.foreground == 9


def test_a_carriage_return_writes_over_the_line() -> None:
    assert text_of(b"Progress 10%\rProgress 99%") == "Progress 99%"


def test_what_is_not_written_over_stays() -> None:
    assert text_of(b"abcdef\rXY") == "XYcdef"


def test_erasing_to_the_end_of_the_line_removes_the_rest() -> None:
    assert text_of(b"a long line\rshort\x1b[K") == "short"


def test_dos_line_ends_are_line_ends() -> None:
    assert text_of(b"hello\r") == "hello"


def test_a_clipboard_write_and_a_title_leave_nothing() -> None:
    assert text_of(b"a\x1b]52;c;ZXZpbA==\x07b\x1b]0;title\x1b\\c") == "abc"


def test_a_hyperlink_leaves_its_text() -> None:
    assert text_of(b"\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07") == "click"


def test_eight_bit_control_functions_are_dropped_too() -> None:
    assert text_of("a\x9b31mb\x85c".encode()) == "abc"


def test_characters_that_reorder_text_are_written_out() -> None:
    assert text_of("a\u202eb".encode()) == "a\\u202eb"


def test_a_character_may_arrive_in_two_pieces() -> None:
    pen, _ = write(Pen(), "ü".encode()[:1])
    _, lines = write(pen, "ü".encode()[1:] + b"\n")
    assert lines[0].text == "ü"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert text_of(b"a\xff\xfeb") == "a\ufffd\ufffdb"


def test_a_line_that_is_too_long_is_cut() -> None:
    assert len(text_of(b"x" * 10_000)) == 4097


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    pen = Pen()
    for _ in range(50):
        pen, _ = write(pen, b"x" * 10_000)
    assert len(pen.rest) < 20_000


def test_a_progress_display_without_an_end_shows_its_last_state() -> None:
    pen = Pen()
    for number in range(5000):
        pen, _ = write(pen, b"\rstep %05d" % number)
    shown = unfinished(pen)
    assert shown is not None and shown.text == "step 04999"


def test_text_for_a_stream_keeps_colours_and_returns_only() -> None:
    assert sanitized("\x1b[31mred\x1b[0m\r\n\x1b[2Jx\x07\x1b[?25l") == "\x1b[31mred\x1b[0m\r\nx"


def test_a_function_that_is_not_whole_waits() -> None:
    assert split_unfinished("abc\x1b[3") == ("abc", "\x1b[3")


def test_a_string_that_is_about_to_end_waits_too() -> None:
    assert split_unfinished("abc\x1b]0;title\x1b") == ("abc", "\x1b]0;title\x1b")


def test_a_name_cannot_steer_a_terminal() -> None:
    assert visible("we\x1b[2Jb\n\u202e") == "we\\x1b[2Jb\\n\\u202e"


@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_whatever_comes_only_printable_text_and_tabs_leave(data: bytes) -> None:
    pen, lines = write(Pen(), data)
    last = unfinished(pen)
    shown = "".join(line.text for line in (*lines, *([last] if last else [])))
    assert not any(ord(c) < 32 and c != "\t" or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202e\u2066" for c in shown)


@given(st.lists(PIECES, max_size=12))
def test_where_the_output_is_cut_does_not_matter(pieces: list[bytes]) -> None:
    pen, split = Pen(), []
    for piece in pieces:
        pen, lines = write(pen, piece)
        split += lines
    whole = write(Pen(), b"".join(pieces))
    assert (pen, tuple(split)) == whole


@given(st.lists(PIECES, max_size=12).map(lambda pieces: b"".join(pieces).decode("utf-8", "replace")))
def test_sanitized_text_is_as_clean_the_second_time(text: str) -> None:
    once = sanitized(text)
    assert sanitized(once) == once
