"""BuildKit's own Dockerfile parser (the wheel `dockerfile`, BuildKit of 2024, in Go) as a witness for ours.

The known differences are those of `OURS` and `_excused`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from nbcontain.dockerfile import ast, parse
from nbcontain.dockerfile.arguments import json_array, several
from nbcontain.dockerfile.json_form import NotStrings, json_strings
from nbcontain.dockerfile.lines import Line, Lines, split_line
from nbcontain.dockerfile.parser import read_instruction
from nbcontain.dockerfile.words import WHITESPACE
from nbcontain.errors import DockerfileError

dockerfile: Any = pytest.importorskip("dockerfile")

OURS = re.compile(
    # Programs of registries are not run to read a file, and a NUL is in no text: refused before anything is read.
    r"the syntax .*|a NUL character|a Dockerfile of more than .*|more than \d+ instructions"
)

LATER = re.compile(
    r"unknown (instruction|flag) .*|--\S* (has no value|is given twice)|--.* is (neither|none|no|less|too) .*"
    r"|.* has no name|.* is no name for a stage|FROM takes one image.*|HEALTHCHECK .*|SHELL takes a JSON array"
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
    if command is None or command == ast.ShellForm(""):
        return ()
    return command.argv if isinstance(command, ast.ExecForm) else (command.text,)
