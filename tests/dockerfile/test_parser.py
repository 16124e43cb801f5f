"""The parser against BuildKit's own (the wheel `dockerfile` holds it), and against texts that mean harm."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbcontain.dockerfile import ast, parse
from nbcontain.dockerfile.lines import MAX_SOURCE_BYTES, Lines
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


def buildkit() -> Any:
    module = pytest.importorskip("dockerfile")
    if not hasattr(module, "parse_string"):  # then it is this very directory
        pytest.skip("BuildKit's parser, the wheel `dockerfile`, is not installed here")
    return module


@settings(deadline=None, max_examples=300)
@given(source=SOURCES)
def test_lines_are_those_of_buildkit(source: str) -> None:
    oracle = buildkit()
    try:
        theirs = oracle.parse_string(source)
    except oracle.GoParseError:
        return  # What it refuses we may refuse too, later and with another reason.
    ours = list(Lines(source))
    theirs = [each for each in theirs if each.cmd]  # it has instructions without a name, where all is continued away
    assert [(each.keyword, each.span.first, each.span.last, each.flags) for each in ours] == [
        (each.cmd.upper(), each.start_line, each.end_line, tuple(each.flags)) for each in theirs
    ]
    assert [[doc.content for doc in each.heredocs] for each in ours if each.keyword != "ONBUILD"] == [
        [doc.content for doc in each.heredocs] for each in theirs if each.cmd.upper() != "ONBUILD"
    ]


def values(instruction: ast.Instruction) -> tuple[str, ...] | None:
    """What the wheel has as `value`, for the instructions where that is what we keep."""
    match instruction:
        case ast.Env() | ast.Label():
            return tuple(word for pair in instruction.pairs for word in pair)
        case ast.Cmd(command=ast.ExecForm(words)) | ast.Volume(paths=words) | ast.Expose(ports=words):
            return words
        case ast.Cmd(command=ast.ShellForm(text)) | ast.User(user=text):
            return (text,)
    return None


ARGUMENTS = st.text(alphabet="ab=\"' \\[],\u00e9#$", min_size=1, max_size=14)


@settings(deadline=None, max_examples=400)
@given(keyword=st.sampled_from(["ENV", "LABEL", "CMD", "VOLUME", "EXPOSE", "USER"]), argument=ARGUMENTS)
def test_arguments_are_those_of_buildkit(keyword: str, argument: str) -> None:
    oracle = buildkit()
    source = f"FROM a\n{keyword} {argument}\n"
    try:
        ours = values(parse(source).stages[0].instructions[0])
        theirs = oracle.parse_string(source)[1].value
    except (DockerfileError, IndexError, oracle.GoParseError):
        return
    if argument.strip().startswith("[") and not oracle.parse_string(source)[1].json:
        return
    if argument.strip().startswith("[") and not argument.strip().endswith("]"):
        return  # The wheel's BuildKit still took JSON with something behind it.
    assert ours == tuple(theirs)


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
    started = time.monotonic()
    with pytest.raises(DockerfileError, match="instructions"):
        parse("FROM scratch\n" + "ENV A=b\n" * (MAX_INSTRUCTIONS + 1))
    assert time.monotonic() - started < 2


def test_remarks_tell_what_is_odd() -> None:
    remarks = parse("FROM scratch\nRUN a \\\n\n b\nCMD ['x']\n").remarks
    assert [(each.message, each.span) for each in remarks] == [
        ("an empty line inside a continued instruction", Span(2, 4)),
        ("looks like a JSON array but is none: a shell gets it", Span(5, 5)),
    ]
