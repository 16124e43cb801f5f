"""The parser against BuildKit's own, on Dockerfiles that are made up.

What BuildKit's parser reads must be read alike: instructions, flags, values, lines, documents. What it refuses must be
refused, too. `NBCONTAIN_DOCKERFILES=100000` sets how many made-up Dockerfiles are compared (`make soak`); each starts
from a number, so that a failure can be had again.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildkit_parser import difference
from made_dockerfiles import broken, corpus, made, smallest

COUNT = int(os.environ.get("NBCONTAIN_DOCKERFILES", "4000"))
SOAK_SEED = int(os.environ.get("NBCONTAIN_SEED", "0"))

FRAGMENTS = st.sampled_from(
    [
        "FROM a", "RUN echo hi", "\\\n", "\n", " ", "\t", "# c\n", "ENV a=b", "'", '"', "\\", "<<EOF\n", "EOF\n",
        "COPY a b", "--from=x ", "ONBUILD ", '["a", "b"]', "`", "# escape=`\n", "\r\n", "x", "  #y\n", "<<-E\n",
        "\tE\n", "<<'Q' > f\n", "Q\n", "LABEL a b  c", "CMD ", "\x0b", "\x0c", "é", "HEALTHCHECK CMD x", "EXPOSE 80 90",
        "VOLUME ",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(pieces=st.lists(FRAGMENTS, max_size=14))
def test_pieces_in_any_order_are_read_as_buildkit_reads_them(pieces: list[str]) -> None:
    assert difference("".join(pieces)) == ""


@settings(max_examples=300)
@given(
    keyword=st.sampled_from(["ENV", "LABEL", "CMD", "VOLUME", "EXPOSE", "USER", "ARG", "COPY", "HEALTHCHECK CMD"]),
    argument=st.text(alphabet="ab=\"' \\[],\u00e9#$", min_size=1, max_size=14),
)
def test_arguments_are_read_as_buildkit_reads_them(keyword: str, argument: str) -> None:
    assert difference(f"FROM a\n{keyword} {argument}\n") == ""


@pytest.mark.timeout(120 + COUNT // 100)
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
