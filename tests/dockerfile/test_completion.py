"""What is offered at the cursor of a Dockerfile that is being written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_dockerfiles import made
from nbcontain.dockerfile.completion import completions

HERE = ["app.py", "src/"]


def offered(text: str) -> list[str]:
    return completions(text, lambda: ["hello:1", "web:2"], lambda beginning: HERE)[1]


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("C", ["COPY", "CMD"]),
        ("FROM x\nen", ["env", "entrypoint"]),
        ("FROM h", ["hello:1", "host"]),
        ("FROM hello:1 ", ["AS"]),
        ("FROM hello AS build\nFROM b", ["build"]),
        ("FROM hello AS build\nCOPY --f", ["--from="]),
        ("FROM hello AS build\nCOPY --from=b", ["build"]),
        ("FROM hello AS build\nCOPY --link --from=", ["build", "hello:1", "web:2"]),
        ("FROM x\nCOPY a", ["app.py"]),
        ("FROM x\nCOPY --from=x a", []),
        ("RUN --n", ["--network="]),
        ("RUN --network=n", ["none"]),
        ("RUN --mount=type=s", ["secret", "ssh"]),
        ("RUN --mount=type=cache,sha", ["sharing="]),
        ("RUN --mount=type=cache,sharing=l", ["locked"]),
        ("RUN \\\n  # why\n  --mount=type=b", ["bind"]),
        ("RUN true --n", []),
        ("ARG VERSION=1\nENV VERBOSE=1 OTHER=2\nRUN echo $VER", ["VERSION", "VERBOSE"]),
        ("RUN echo ${TARGETA", ["TARGETARCH"]),
        ("RUN <<EOF\nCO", []),
        ("RUN <<EOF\ntrue\nEOF\nWO", ["WORKDIR"]),
        ("HEALTHCHECK --r", ["--retries="]),
        ("HEALTHCHECK --retries=3 ", ["CMD", "NONE"]),
        ("ONBUILD CO", ["COPY"]),
        ("ONBUILD COPY --li", ["--link"]),
        ("STOPSIGNAL SIGK", ["SIGKILL"]),
        ("NOPE --x", []),
    ],
)
def test_what_fits_is_offered(text: str, choices: list[str]) -> None:
    assert offered(text) == choices


def test_what_is_replaced_is_the_end_of_the_word() -> None:
    assert completions("RUN --mount=type=cache,sharing=l", list, lambda _: ())[0] == "l"
    assert completions("RUN echo ${X", list, lambda _: ())[0] == "X"


DOCKERFILES = st.randoms(use_true_random=False).map(made)


@given(DOCKERFILES | st.text(max_size=200), st.integers(0, 4000))
def test_no_beginning_of_a_dockerfile_is_too_much(text: str, end: int) -> None:
    fragment, found = completions(text[:end], list, lambda _: ())
    assert text[:end].endswith(fragment) and all(each.startswith(fragment) for each in found)
