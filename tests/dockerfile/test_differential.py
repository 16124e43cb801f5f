"""The parser against BuildKit's own, which the wheel `dockerfile` holds (BuildKit of 2024, in Go).

What BuildKit's parser reads must be read alike: instructions, flags, values, lines, documents. What it refuses must be
refused, too. `NBCONTAIN_DOCKERFILES=100000` sets how many made-up Dockerfiles are compared (`make soak`); each starts
from a number, so that a failure can be had again. The known differences are those of `OURS` and `_excused`.
"""

from __future__ import annotations

import os
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_dockerfiles import broken, corpus, made, smallest
from nbcontain.dockerfile import ast, parse
from nbcontain.dockerfile.arguments import json_array, several
from nbcontain.dockerfile.json_form import NotStrings, json_strings
from nbcontain.dockerfile.lines import Line, Lines, split_line
from nbcontain.dockerfile.parser import read_instruction
from nbcontain.dockerfile.words import WHITESPACE
from nbcontain.errors import DockerfileError

COUNT = int(os.environ.get("NBCONTAIN_DOCKERFILES", "4000"))
SOAK_SEED = int(os.environ.get("NBCONTAIN_SEED", "0"))

dockerfile: Any = pytest.importorskip("dockerfile")

OURS = re.compile(
    # Programs of registries are not run to read a file, and a NUL is in no text: refused before anything is read.
    r"the syntax .*|a NUL character|a Dockerfile of more than .*|more than \d+ instructions"
)

LATER = re.compile(
    r"unknown (instruction|flag) .*|--\S* (has no value|is given twice)|--.* is (neither|none|no|less|too) .*"
    r"|.* has no name|.* is no name for a stage|FROM takes one image.*|HEALTHCHECK .*|SHELL takes a JSON array"
    # An empty RUN, CMD or ENTRYPOINT is one that does nothing to BuildKit; here it is a mistake.
    r"|.* needs .*|.* cannot accept a heredoc as a destination|.* is not allowed in ONBUILD|ONBUILD takes one .*"
    r"|.* is a Dockerfile feature that nbcontain does not have yet|'from' doesn't support .*|--mount.*|--link= .*",
    re.DOTALL,
)
"""What BuildKit refuses too, but later than its parser: in `instructions.Parse`, which the wheel does not run."""


def difference(source: str) -> str:
    """What is read otherwise; "" if nothing is."""
    # `# check=` became a directive (1.8): in the wheel it is a comment that ends the directives.
    if re.search(r"^\s*#\s*check\s*=", source, re.IGNORECASE | re.MULTILINE):
        return ""
    try:
        theirs = [each for each in dockerfile.parse_string(source) if each.cmd]
    except UnicodeDecodeError:
        return ""  # half a character, see `_half_characters`
    except dockerfile.GoParseError as error:
        return _refused(source, str(error))
    try:
        ours = list(Lines(source))
    except DockerfileError as error:
        return "" if OURS.fullmatch(error.message) or _excused(theirs) else f"we refuse: {error.message}"
    if [(line.keyword, line.span.first, line.span.last) for line in ours] != [
        (each.cmd.upper(), each.start_line, each.end_line) for each in theirs
    ]:
        return "" if _excused(theirs) else f"{ours} is {theirs}"
    for line, each in zip(ours, theirs, strict=True):
        if _excused([each]):
            continue
        if line.flags != tuple(each.flags):
            return f"{line.flags} is {each}"
        documents = [(doc.name, doc.content, doc.fd) for doc in line.heredocs]
        if line.keyword != "ONBUILD" and documents != [(d.name, d.content, d.file_descriptor) for d in each.heredocs]:
            return f"{documents} is {each.heredocs}"
        if found := _other_values(line, each):
            return found
    return ""


def _refused(source: str, error: str) -> str:
    try:
        parse(source)
    except DockerfileError:
        return ""
    is_newer = "comprised of strings only" in error and re.search(r"\]\s*\S", source)
    return "" if is_newer else f"they refuse: {error}"


def _excused(theirs: list[Any]) -> bool:
    return any(_half_characters(each.original) or _is_loose_json(each) for each in theirs)


def _half_characters(original: str) -> bool:
    """Whether BuildKit would cut characters in half: it reads flags, and HEALTHCHECK's first word, byte by byte.

    There `é` becomes `Ã©`, and `à`, whose second byte is a space to it, two words. We read characters.
    """
    return re.search(r"(--|health)[^\n]*[^\0-\x7f]", original, re.IGNORECASE) is not None


def _is_loose_json(theirs: Any) -> bool:
    """Whether something stands behind a JSON array: the wheel does not mind, to today's BuildKit it is none then."""
    at = theirs.original.find("[")
    try:
        return theirs.json and json_strings(theirs.original[at:].strip(WHITESPACE)) is None
    except NotStrings:
        return False


def _other_values(line: Line, theirs: Any) -> str:
    try:
        found = read_instruction(line)
    except DockerfileError as error:
        # A trigger is read here, so that a mistake shows soon; BuildKit reads it when another image is built on this.
        is_later = line.keyword == "ONBUILD" or LATER.fullmatch(error.message)
        return "" if is_later else f"we refuse: {error.message}: {theirs}"
    if line.keyword == "ONBUILD":
        inner = split_line(line.rest, line.span, line.escape)
        if inner.keyword != (theirs.sub_cmd or "").upper():
            return f"{inner.keyword} is {theirs}"
        try:
            found = read_instruction(inner)
        except DockerfileError:
            return ""
        line = inner
    mine = _values(found, line)
    return "" if mine == tuple(theirs.value) else f"{mine} is {theirs}"


def _values(found: ast.Instruction, line: Line) -> tuple[str, ...]:
    """The words of an instruction as the wheel has them."""
    match found:
        case ast.From() | ast.Expose():
            return several(line)
        case ast.Arg(arguments=arguments):
            return tuple(name if default is None else f"{name}={default}" for name, default in arguments)
        case ast.Env(pairs=pairs) | ast.Label(pairs=pairs):
            return tuple(word for pair in pairs for word in pair)
        case ast.Copy() | ast.Add():
            words = json_array(line, line.rest)
            return several(line) if words is None else words
        case ast.Volume():
            words = json_array(line, line.rest)
            return several(line) if words is None else words
        case ast.DefaultShell(argv=argv):
            return argv
        case ast.HealthCheck(command=None):
            return (line.rest,)
        case ast.HealthCheck(command=command):
            return (several(line, 2)[0], *_words(command))
        case ast.Run(command=command) | ast.Cmd(command=command) | ast.Entrypoint(command=command):
            return _words(command)
        case _:
            return (line.rest,)


def _words(command: ast.CommandForm | None) -> tuple[str, ...]:
    return command.argv if isinstance(command, ast.ExecForm) else (command.text,) if command else ()


FRAGMENTS = st.sampled_from(
    [
        "FROM a", "RUN echo hi", "\\\n", "\n", " ", "\t", "# c\n", "ENV a=b", "'", '"', "\\", "<<EOF\n", "EOF\n",
        "COPY a b", "--from=x ", "ONBUILD ", '["a", "b"]', "`", "# escape=`\n", "\r\n", "x", "  #y\n", "<<-E\n",
        "\tE\n", "<<'Q' > f\n", "Q\n", "LABEL a b  c", "CMD ", "\x0b", "\x0c", "é", "HEALTHCHECK CMD x", "EXPOSE 80 90",
        "VOLUME ",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(pieces=st.lists(FRAGMENTS, max_size=14))
def test_pieces_in_any_order_are_read_as_buildkit_reads_them(pieces: list[str]) -> None:
    assert difference("".join(pieces)) == ""


@settings(deadline=None, max_examples=300)
@given(
    keyword=st.sampled_from(["ENV", "LABEL", "CMD", "VOLUME", "EXPOSE", "USER", "ARG", "COPY", "HEALTHCHECK CMD"]),
    argument=st.text(alphabet="ab=\"' \\[],\u00e9#$", min_size=1, max_size=14),
)
def test_arguments_are_read_as_buildkit_reads_them(keyword: str, argument: str) -> None:
    assert difference(f"FROM a\n{keyword} {argument}\n") == ""


def test_made_up_dockerfiles_are_read_as_buildkit_reads_them() -> None:
    texts = corpus()
    for number in range(SOAK_SEED, SOAK_SEED + COUNT):
        chance = random.Random(number)
        source = made(chance) if number % 2 else broken(chance, texts)
        if difference(source):
            small = smallest(source, lambda text: bool(difference(text)))
            pytest.fail(f"number {number}: {small!r}: {difference(small)}")


@pytest.mark.parametrize("source", corpus())
def test_the_corpus_is_read_as_buildkit_reads_it(source: str) -> None:
    assert difference(source) == ""
