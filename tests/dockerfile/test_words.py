"""Quotes and variables: tables in corpus/words, and what hostile words may not do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.dockerfile.words import MAX_LENGTH, expand, split
from nbcontain.errors import DockerfileError

CORPUS = Path(__file__).parent.parent / "corpus" / "words"
VARIABLES = {"A": "aXbXc", "E": "", "P": "/usr/local/bin", "S": "x y", "N": "3"}
LETTERS = st.text(alphabet="aX$A{}:-+?#%/\\'\"` *E\n", max_size=24)


def rows(name: str) -> list[tuple[str, str]]:
    lines = [line for line in (CORPUS / name).read_text().split("\n") if line and not line.startswith("# ")]
    return [(word, wanted.strip()) for word, _, wanted in (line.rpartition(" |") for line in lines)]


@pytest.mark.parametrize(("word", "wanted"), rows("expand.txt") + rows("shell.txt"))
def test_a_word_becomes_what_the_table_says(word: str, wanted: str) -> None:
    if wanted == "!":
        with pytest.raises(DockerfileError):
            expand(word, VARIABLES)
    else:
        assert expand(word, VARIABLES) == wanted


def test_bash_expands_a_words_table_alike() -> None:
    table = rows("shell.txt")
    words = [word if any(quote in word for quote in "'\"\\") else f'"{word}"' for word, _ in table]
    # A word that ends in newlines would lose them in $(…), hence the dot.
    lines = "\n".join(f"""printf '%s\\0' "$(printf '%s.' {word})\"""" for word in words)
    script = f"shopt -u patsub_replacement 2>/dev/null\n{lines}\n"
    done = subprocess.run(
        ["bash", "-c", script], env={**VARIABLES, "PATH": os.defpath}, capture_output=True, check=True
    )
    said = [each.removesuffix(".") for each in done.stdout.decode().split("\0")[:-1]]
    assert [(word, each) for (word, _), each in zip(table, said, strict=True)] == table


@pytest.mark.parametrize(("word", "wanted"), rows("split.txt"))
def test_a_word_splits_as_the_table_says(word: str, wanted: str) -> None:
    assert split(word, VARIABLES) == json.loads(wanted)


def test_a_backtick_escapes_where_the_directive_says_so() -> None:
    assert expand("`$A \\$A", VARIABLES, escape="`") == "$A \\aXbXc"


def test_names_without_a_value_are_told() -> None:
    missing: set[str] = set()
    expand("$A $B ${C} ${D:-d} ${F#x} $1", VARIABLES, missing=missing)
    assert missing == {"B", "C", "F"}


def test_the_message_of_a_question_mark_is_shown() -> None:
    with pytest.raises(DockerfileError, match="V: say which"):
        expand("${V:?say which}", {})


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DockerfileError, match="nested"):
        expand("${A:-" * 5000 + "}" * 5000, {})


def test_a_value_cannot_grow_without_end() -> None:
    with pytest.raises(DockerfileError, match="longer"):
        expand("$A" * 20, {"A": "x" * (MAX_LENGTH // 10)})


@pytest.mark.parametrize(
    "pattern", ["//a*b/", "%%*b*c", "##*a*a*a*b", "#" + "*a" * 200 + "b", "//*a*a*b/x", "/" + "?" * 500 + "b/"]
)
def test_patterns_do_not_backtrack(pattern: str) -> None:
    started = time.monotonic()
    expand("${V" + pattern + "}", {"V": "a" * 60_000})
    assert time.monotonic() - started < 2


@given(LETTERS)
def test_any_word_is_expanded_or_refused(word: str) -> None:
    try:
        joined = "".join(expand(word, VARIABLES).split())
    except DockerfileError:
        return
    assert "".join("".join(split(word, VARIABLES)).split()) == joined


@given(st.text(alphabet="ab/*?", max_size=8), st.text(alphabet="ab/", max_size=8))
def test_prefixes_are_those_of_a_shell(pattern: str, value: str) -> None:
    """Against the definition: of all prefixes that match, the shortest and the longest."""
    import fnmatch

    ends = [end for end in range(len(value) + 1) if fnmatch.fnmatchcase(value[:end], pattern)]
    shortest, longest = (value[ends[0] :], value[ends[-1] :]) if ends else (value, value)
    escaped = pattern.replace("/", "\\/")
    assert expand("${V#" + escaped + "}", {"V": value}) == shortest
    assert expand("${V##" + escaped + "}", {"V": value}) == longest
