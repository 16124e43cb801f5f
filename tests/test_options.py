"""Command lines: what is understood, and what is said of what is not."""

from __future__ import annotations

import pytest

from nbcontain.errors import UsageError
from nbcontain.options import REST, HelpAsked, argument, option, parse, parser_of, with_defaults
from nbcontain.values import dataclass


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Words:
    image: str = argument(help="an image")
    command: tuple[str, ...] = argument(help="a command", nargs=REST)
    name: str = option("--name", help="a name")
    environment: tuple[str, ...] = option("-e", "--env", help="NAME=value")
    detach: bool = option("-d", "--detach", help="100 % detached")
    time: int = option("-t", "--time", help="seconds", default=10)


def words(*given: str) -> Words:
    return parse(Words, "run", "run it", given, {"-p": "no ports yet"})


def test_flags_end_where_the_image_stands() -> None:
    assert words("-d", "alpine", "sh", "-c", "ls -d").command == ("sh", "-c", "ls -d")


def test_a_flag_of_a_tuple_may_be_given_many_times() -> None:
    assert words("-e", "A=1", "--env=B=2", "alpine").environment == ("A=1", "B=2")


def test_what_is_not_given_has_the_empty_value_of_its_type() -> None:
    assert words("alpine") == Words(image="alpine", command=(), name="", environment=(), detach=False, time=10)


def test_a_flag_that_only_docker_has_is_named_with_the_reason() -> None:
    with pytest.raises(UsageError) as caught:
        words("-p", "80:80", "alpine")
    assert "docker's -p" in caught.value.message
    assert caught.value.why == "no ports yet"


def test_a_misspelt_flag_is_answered_with_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        words("--detatch", "alpine")
    assert "--detach" in caught.value.hint


def test_a_number_that_is_none_is_one_clear_error() -> None:
    with pytest.raises(UsageError) as caught:
        words("-t", "soon", "alpine")
    assert "soon" in caught.value.message


def test_help_is_asked_for_and_not_printed() -> None:
    with pytest.raises(HelpAsked) as caught:
        words("--help")
    assert "100 % detached" in str(caught.value)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Rare:
    heading = "what is rarely said"

    sysctl: str = option("--sysctl", help="a rare one")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Grouped(Rare):
    image: str = argument(help="an image")
    command: tuple[str, ...] = argument(help="a command", nargs=REST)
    detach: bool = option("-d", "--detach", help="in the background")


def test_help_begins_with_a_commands_own_options_and_has_the_others_under_headings() -> None:
    lines = [line.strip() for line in parser_of(Grouped, "run", "run it").format_help().splitlines()]
    assert lines[0] == "usage: run [OPTIONS] IMAGE [COMMAND ...]"
    places = [next(n for n, line in enumerate(lines) if line.startswith(word)) for word in (
        "-d, --detach", "--help", "what is rarely said:", "--sysctl"
    )]  # fmt: skip
    assert places == sorted(places)
    assert parse(Grouped, "run", "run it", ["--sysctl", "a=1", "box", "ls", "-d"], {}) == Grouped(
        image="box", command=("ls", "-d"), sysctl="a=1"
    )


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Based:
    name: str = argument(help="a name")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class Further(Based):
    port: str = argument(help="a port", nargs="?", default="")


def test_words_stand_in_the_order_of_their_fields_those_of_bases_first() -> None:
    assert parse(Further, "x", "", ["web", "80"], {}) == Further(name="web", port="80")
    shown = parser_of(Further, "x", "").format_help()
    assert shown.index("a name") < shown.index("a port")


def test_a_usage_in_short_says_what_may_be_left_out() -> None:
    @dataclass(frozen=True, kw_only=True)
    @with_defaults
    class Copied(Rare):
        names: tuple[str, ...] = argument(help="names", nargs="+", metavar="NAME")
        place: str = argument(help="a place", nargs="?", default="")

    assert parser_of(Copied, "x", "").format_usage() == "usage: x [OPTIONS] NAME ... [PLACE]\n"
