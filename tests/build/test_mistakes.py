"""Dockerfiles with a mistake, one of each kind: what happened, the line it is in, and why or what to try."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine import Machine
from nbcontain.__main__ import main
from nbcontain.build.plan import BuildOptions
from nbcontain.errors import BuildError, DockerfileError

# The Dockerfile behind FROM box (unless it has one), the marked line, and words that have to be said.
MISTAKES: list[tuple[str, int, str, str]] = [
    ("FRM box", 1, "unknown instruction FRM", "did you mean FROM?"),
    ("from", 1, "FROM needs an argument", "FROM python:3.12-slim"),
    ("FROM box AS", 1, "FROM takes one image", "AS build"),
    ("FROM box AS 1abc", 1, "no name for a stage", "A letter first"),
    ("FROM a b c", 1, "FROM takes one image", "AS build"),
    ("FROM bOx", 1, "'bOx' is no image name", "lowercase"),
    ('FROM "box', 1, "is not closed", "Close it"),
    ("FROM nosuchimage:1", 1, "no image 'nosuchimage:1'", "Here are: box:latest"),
    ("ARG V\nFROM box:$V", 2, "'box:' is no image name", "ARG V=… before the first FROM, or --build-arg V=…"),
    ("FROM $BASE", 1, "FROM $BASE names no image", "--build-arg"),
    ("# syntax=evil/frontend\nFROM box", 1, "evil/frontend", "docker/dockerfile:1"),
    ("RUN echo x\nFROM box", 1, "RUN before the first FROM", "Begin with FROM"),
    ("RUM echo x", 2, "unknown instruction RUM", "did you mean RUN?"),
    ("COPY app.py", 2, "COPY needs a source and a destination", "COPY app.py /srv/"),
    ("COPY ap.py /x", 2, "no ap.py in the build context", "did you mean app.py?"),
    ("COPY app.py app2.py /x/", 2, "no app2.py", "did you mean app.py?"),
    ("COPY ignored /x", 2, "no ignored in the build context", "line 1 of .dockerignore leaves it out"),
    ("COPY --form=x app.py /x", 2, "unknown flag --form", "did you mean --from?"),
    ("COPY --chmod=999 app.py /x", 2, "--chmod=999 is no mode", "--chmod=755"),
    ("COPY --chown=nosuch app.py /x", 2, "no user 'nosuch'", "A number needs no entry"),
    ("COPY --chown=0:nosuch app.py /x", 2, "no group 'nosuch'", "A number needs no entry"),
    ("COPY app.py /bin\nCOPY app.py /bin/app.py/deeper", 3, "/bin/app.py cannot be made a directory", "has that name"),
    ("COPY app.py app.py /bin/busybox/", 2, "/bin/busybox cannot be made a directory", "has that name"),
    ("FROM box AS build\nFROM box\nCOPY --from=biuld /x /y", 3, "no image 'biuld:latest'", "did you mean build?"),
    ("FROM box AS b\nFROM box\nCOPY --from=b /etc/pass /y", 3, "no /etc/pass in that", "did you mean /etc/passwd?"),
    (
        "FROM box AS a\nCOPY --from=b / /\nFROM box AS b\nCOPY --from=a / /",
        2,
        "--from=b is no earlier stage",
        "earlier ones only",
    ),
    (f"ADD --checksum=sha256:{'a' * 64} app.py /x", 2, "--checksum is for one URL", "ADD each"),
    (f"ADD --checksum=sha256:{'a' * 64} http://a.test/x http://a.test/y /", 2, "--checksum is for one URL", "each"),
    (f"ADD --checksum=sha256:{'a' * 64} <<E /x\nE", 2, "--checksum is for one URL", "each"),
    ("FROM --platform=armd64 box", 1, "'armd64' is no platform", "did you mean"),
    ("RUN ln -s /b /a && ln -s /a /b\nCOPY app.py /a/x", 3, "/a is a symlink that leads in circles", ""),
    ("RUN ln -s /b /a && ln -s /a /b\nCOPY app.py /a", 3, "/a is a symlink that leads in circles", ""),
    ("RUN ln -s /b /a && ln -s /a /b\nWORKDIR /a/x", 3, "/a is a symlink that leads in circles", ""),
    ("COPY --exclude=[ app.py /x", 2, "--exclude: the pattern '[' has a [", r"is \["),
    ("COPY --exclude=! app.py /x", 2, "--exclude is a ! and nothing else", ""),
    ("RUN exit 3", 2, "exit code 3", "@failed sh"),
    ("RUN nosuchprogram --flag", 2, "exit code 127", "the command was not found"),
    ('RUN ["nosuchprogram"]', 2, "there is no command nosuchprogram", "not in PATH"),
    ("RUN ['echo', 'x']", 2, "exit code", "words need double quotes"),
    ("RUN --mount=type=cach,target=/x true", 2, 'unsupported mount type "cach"', "did you mean cache?"),
    ("RUN --mount=type=secret,id=tok,required cat /x", 2, "the secret tok is required", "--secret id=tok,src=FILE"),
    ("RUN --mount=type=secret,id=tok cat /run/secrets/tok", 2, "exit code 1", "not given the secret tok"),
    ("RUN --mount=type=ssh,required true", 2, "the ssh agent default is required", "--ssh default"),
    ("RUN --mount= true", 2, "--mount has no value", "--mount=type=cache,target="),
    ("RUN --mount=from=$A,target=/x true", 2, "'from' doesn't support variable expansion", "AS name"),
    ("RUN --mount=type=cache true", 2, "--mount=type=cache has no place", "target is missing"),
    ("RUN --security=insecure true", 2, "RUN --security=insecure is refused", "power over this machine"),
    ("RUN --network=none2 true", 2, "--network=none2 is none of", ""),
    ("RUN <<EOF\necho x", 2, "the heredoc <<EOF has no end", "Its last line is EOF"),
    ("ENV", 2, "ENV needs an argument", "ENV NAME=value"),
    ("ENV a", 2, "ENV a has no value", "ENV a="),
    ("ENV a=${b", 2, "missing '}'", "${NAME:-default}"),
    ('ENV a="unclosed', 2, 'a double quote (") is not closed', "Close it"),
    ("ENV a=it's", 2, "a single quote (') is not closed", "Close it"),
    ("ENV a=${b:?must-be-given}", 2, "must-be-given", ""),
    ("LABEL =x", 2, "has no name", "LABEL name=value"),
    ("EXPOSE http", 2, "'http' is no port", "EXPOSE 8080"),
    ("WORKDIR", 2, "WORKDIR needs an argument", "WORKDIR /srv"),
    ("WORKDIR /bin/busybox", 2, "/bin/busybox cannot be made a directory", "has that name"),
    ("USER nobody2\nRUN true", 3, "no user 'nobody2'", "useradd"),
    ("HEALTHCHECK --interval=3 CMD true", 2, "--interval=3 is no duration", "30s"),
    ("HEALTHCHECK CDM true", 2, "neither CMD nor NONE", "HEALTHCHECK CMD"),
    ("STOPSIGNAL SIGFOO", 2, "'SIGFOO' is no signal", "STOPSIGNAL SIGTERM"),
    ("SHELL /bin/sh -c", 2, "SHELL takes a JSON array", 'SHELL ["/bin/bash"'),
    ("ONBUILD ONBUILD RUN true", 2, "ONBUILD is not allowed in ONBUILD", ""),
    ("ADD http://127.0.0.1:1/x /x", 2, "cannot get http://127.0.0.1:1/x", "Connection refused"),
    ("ADD --checksum=sha256:abc http://127.0.0.1:1/x /x", 2, "is no digest", "sha256sum"),
    ("VOLUME", 2, "VOLUME needs an argument", "VOLUME /data"),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mistakes")
    (directory / "app.py").write_text("x\n")
    (directory / ".dockerignore").write_text("ignored\n")
    (directory / "ignored").write_text("x\n")
    return directory


@pytest.mark.parametrize(("text", "line", "what", "more"), MISTAKES, ids=[text[:40] for text, *_ in MISTAKES])
def test_a_mistake_is_told_with_its_line_and_what_to_try(
    box: Machine, context: Path, text: str, line: int, what: str, more: str
) -> None:
    begins = text.upper().startswith(("FROM", "FRM", "ARG V", "# SYNTAX", "RUN ECHO X\n"))
    with pytest.raises((BuildError, DockerfileError)) as caught:
        source = text if begins else f"FROM box\n{text}"
        box.engine.build(f"{source}\n", BuildOptions(context=context)).result()
    drawn = caught.value.lines()
    assert what in drawn[0] and more in "\n".join(drawn[1:]), "\n".join(drawn)
    assert caught.value.span is not None and caught.value.span.first == line
    assert any(each.startswith(f" ▶{line:4} │ ") for each in drawn)
    assert "[Errno" not in "\n".join(drawn)


def test_there_are_forty_kinds() -> None:
    assert len(MISTAKES) >= 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no directory nowhere"),
        (["-f", "nowhere", "."], "cannot read the Dockerfile nowhere"),
        (["-f", ".", "."], "Is a directory"),
        (["-t", "A B", "."], "'A B' is no image name"),
        (["--taget", "x", "."], "did you mean --target?"),
        (["--target", "biuld", "."], "did you mean build?"),
        (["--secret", "idx", "."], "--secret"),
        ([], "PATH"),
    ],
)
def test_a_mistake_on_the_terminal_is_told_in_three_lines(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS build\nLABEL a=b\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBCONTAIN_ROOT", str(tmp_path / "store"))
    assert main(["build", *words]) != 0
    out = capfd.readouterr().err
    assert said in out and "Traceback" not in out and "[Errno" not in out
