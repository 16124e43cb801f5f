"""The parser against texts that mean harm, and where its errors point."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.dockerfile import ast, parse
from nbcontain.dockerfile.lines import MAX_SOURCE_BYTES
from nbcontain.dockerfile.parser import MAX_INSTRUCTIONS, keywords, parse_trigger
from nbcontain.errors import DockerfileError, Span

FRAGMENTS = st.sampled_from(
    [
        "FROM a",
        "RUN echo hi",
        "\\\n",
        "\n",
        " ",
        "\t",
        "# c\n",
        "ENV a=b",
        "'",
        '"',
        "\\",
        "<<EOF\n",
        "EOF\n",
        "COPY a b",
        "--from=x ",
        "ONBUILD ",
        '["a", "b"]',
        "`",
        "# escape=`\n",
        "\r\n",
        "x",
        "  #y\n",
        "<<-E\n",
        "\tE\n",
        "<<'Q' > f\n",
        "Q\n",
        "LABEL a b  c",
        "CMD ",
        "\x0b",
        "\x0c",
        "é",
        "HEALTHCHECK CMD x",
        "EXPOSE 80 90",
        "VOLUME ",
        "USER me",
    ]
)
SOURCES = st.lists(FRAGMENTS, max_size=14).map("".join)


@given(SOURCES)
def test_any_text_is_parsed_or_refused_in_place(source: str) -> None:
    try:
        found = parse(source)
    except DockerfileError as error:
        assert error.span is None or 1 <= error.span.first <= error.span.last <= source.count("\n") + 1
        return
    assert found.stages


@given(st.text(max_size=40))
def test_no_characters_break_the_parser(text: str) -> None:
    try:
        parse("FROM scratch\nRUN " + text)
    except DockerfileError as error:
        assert error.lines()


def test_every_instruction_has_a_class_and_a_reader() -> None:
    classes = {
        each.__name__ for each in vars(ast).values() if isinstance(each, type) and issubclass(each, ast.Instruction)
    }
    assert len(keywords()) == len(classes - {"Instruction"})


def test_an_error_shows_its_line() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM scratch\nRUN a\nCOPPY a b\nRUN c\n")
    assert caught.value.excerpt() == ["     2 │ RUN a", " ▶   3 │ COPPY a b"]
    assert caught.value.hint == "did you mean COPY?"


def test_a_trigger_is_placed_at_the_from_that_brought_it() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_trigger("RUN --nonsense y", Span(7, 7))
    assert caught.value.span == Span(7, 7)


def test_a_long_file_is_refused() -> None:
    with pytest.raises(DockerfileError, match="MiB"):
        parse("FROM scratch\n" + "#" * MAX_SOURCE_BYTES)


def test_a_long_line_is_refused() -> None:
    with pytest.raises(DockerfileError, match="line of more than"):
        parse("FROM scratch\nRUN " + "x" * 70_000)


def test_many_instructions_are_refused_soon() -> None:
    started = time.process_time()
    with pytest.raises(DockerfileError, match="instructions"):
        parse("FROM scratch\n" + "ENV A=b\n" * (MAX_INSTRUCTIONS + 1))
    assert time.process_time() - started < 2
