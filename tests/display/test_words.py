"""Quantities as people read them."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.display.words import ago, bar, brief, command_line, count, duration, memory, size


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(None, ""), (0, "0 B"), (312, "312 B"), (999_499, "999 kB"), (999_500, "1 MB"), (7_800_000, "7.8 MB")],
)
def test_sizes(size_bytes: int | None, said: str) -> None:
    assert size(size_bytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, ""), (0.021, "0.02 s"), (3.14, "3.1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min"),
     (200_000, "2 days")],
)  # fmt: skip
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "Less than a second ago"), (61, "1 minute ago"), (1_900_000, "3 weeks ago")]
)
def test_how_long_ago(seconds: float, said: str) -> None:
    assert ago(1e9 - seconds, now=1e9) == said


def test_a_time_that_is_none_is_said_as_it_is() -> None:
    assert ago("yesterday") == "yesterday"


def test_counts_have_groups_and_a_plural() -> None:
    assert (count(1, "step"), count(12480, "line")) == ("1 step", "12 480 lines")


@given(st.lists(st.text(st.sampled_from("""a '"\\$\n"""), max_size=8)))
def test_a_command_line_means_its_words(words: list[str]) -> None:
    assert shlex.split(command_line(words)) == words


def test_a_quote_within_quotes_can_be_read() -> None:
    assert command_line(["sh", "-c", "trap 'exit 0' TERM"]) == r"sh -c 'trap '\''exit 0'\'' TERM'"


def test_a_bar_of_something_is_never_empty() -> None:
    assert (bar(0, 10), bar(1e-9, 10), bar(10, 10), bar(5, 10)) == ("", "▏", "████████", "████")


@pytest.mark.parametrize(
    ("size_bytes", "said"), [(None, ""), (312, "312 B"), (50 << 20, "50 MiB"), (3 << 29, "1.5 GiB")]
)
def test_memory_has_dockers_binary_units(size_bytes: int | None, said: str) -> None:
    assert memory(size_bytes) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Exited (137) 2 minutes ago, out of memory", "Exited (137) 2 min ago, OOM"),
        ("Up 1 hour (healthy)", "Up 1 h (healthy)"),
        ("Less than a second ago", "just now"),
        ("Up Less than a second", "Up 0 s"),
        ("3 weeks ago", "3 weeks ago"),
    ],
)
def test_dockers_times_in_fewer_words(text: str, said: str) -> None:
    assert brief(text) == said
