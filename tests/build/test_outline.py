"""What a Dockerfile says of itself: targets, outline, check, as text, as buildx's documents, in a cell; and hints."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from nbcontain.__main__ import main
from nbcontain.build.outline import outline_of, targets_of
from nbcontain.build.plan import BuildOptions
from nbcontain.commands.calls import Call, call_of
from nbcontain.display.outlines import OutlineDrawing, targets_table
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import UsageError

TEXT = """\
# GO chooses the compiler
ARG GO=1.22
ARG UNUSED=x
# base has the tools
FROM golang:${GO} AS base
ARG GO
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=secret,id=token go mod download
# not a description of it
FROM scratch AS other
ARG ELSEWHERE=1
# release is <b>what</b> is shipped
FROM base AS release
# PORT is where it listens
ARG PORT=80
ARG API_KEY
RUN --mount=type=secret,id=token,required=true --mount=type=secret,target=/run/secrets/late --mount=type=ssh true
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBCONTAIN_ROOT", str(tmp_path / "root"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text(TEXT)
    return tmp_path / "c"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["build", *words]) == 0
    return capsys.readouterr().out


def test_targets_are_the_stages_with_their_descriptions() -> None:
    """testTargetsList"""
    found = targets_of(parse(TEXT))
    assert [(each.name, each.description, each.base, each.is_default) for each in found] == [
        ("base", "has the tools", "golang:${GO}", False), ("other", "", "scratch", False),
        ("release", "is <b>what</b> is shipped", "base", True),
    ]  # fmt: skip


def test_an_outline_follows_what_arguments_are_made_of_and_fills_them_in() -> None:
    """testOutlineArgs and testOutlineSecrets"""
    text = """\
ARG BOX=box
ARG NOBODYS=x
ARG UNUSED=abc${NOBODYS}
# SUFFIX what follows
ARG SUFFIX="usy${BOX}"
FROM b${SUFFIX} AS first
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true
FROM alpine${UNUSED} AS second
RUN --mount=type=secret,id=unused true
FROM scratch AS third
ARG NUMBER
ENV KIND=secret
RUN --mount=type=$KIND,id=second${NUMBER} --mount=type=ssh,id=ssh3,required true
FROM third AS target
COPY --from=first /etc/passwd /
RUN --mount=type=cache,id=${NUMBER},target=/x true
"""
    outline = outline_of(parse(text), BuildOptions(target="target", build_args=("NUMBER=678",)), {}, {})
    assert [(each.name, each.value, each.description) for each in outline.arguments] == [
        ("BOX", "box", ""), ("SUFFIX", "usybox", "what follows"), ("NUMBER", "678", ""),
    ]  # fmt: skip
    assert [(each.name, each.is_required) for each in outline.secrets] == [("passwd", True), ("second678", False)]
    assert [(each.name, each.is_required) for each in outline.ssh] == [("default", False), ("ssh3", True)]
    assert [each.name for each in outline.caches] == ["678"]


def test_a_mount_whose_variables_say_nothing_is_shown_as_it_is_and_the_others_once() -> None:
    text = """\
FROM alpine
ARG NAME=one
ENV BAD=${NOBODYS:?}
RUN --mount=type=secret,id=$NAME --mount=type=secret,id=${NOBODYS:?} true
"""
    outline = outline_of(parse(text), BuildOptions(), {}, {})
    assert [each.name for each in outline.secrets] == ["one", "${NOBODYS:?}"]


def test_an_outline_has_what_the_target_and_the_stages_below_it_take() -> None:
    options = BuildOptions(build_args=("PORT=8080", "API_KEY=canary"))
    outline = outline_of(parse(TEXT), options, {}, {})
    assert [(each.name, each.value, each.description) for each in outline.arguments if each.name != "API_KEY"] == [
        ("GO", "1.22", "chooses the compiler"), ("PORT", "8080", "is where it listens"),
    ]  # fmt: skip
    assert "canary" not in str(outline)
    assert [(each.name, each.is_required) for each in outline.secrets] == [("token", True), ("late", False)]
    assert [each.name for each in outline.ssh] == ["default"]
    assert [each.name for each in outline.caches] == ["/root/.cache/go-build"]


def test_an_outline_of_a_target_leaves_out_what_others_take() -> None:
    outline = outline_of(parse(TEXT), BuildOptions(target="other"), {}, {})
    assert [each.name for each in outline.arguments] == ["ELSEWHERE"]
    assert outline.secrets == () and not outline.target.is_default
    with pytest.raises(UsageError):
        outline_of(parse(TEXT), BuildOptions(target="absent"), {}, {})


def test_they_are_printed_as_buildx_prints_them(context: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--call=targets", str(context)).splitlines()[:3] == [
        "TARGET             DESCRIPTION", "base               has the tools", "other",
    ]  # fmt: skip
    outline = said(capsys, "--call=outline", "--target=release", str(context))
    assert outline.startswith("TARGET:      release\nDESCRIPTION: is <b>what</b> is shipped\n\nBUILD ARG  VALUE")
    assert "SECRET  REQUIRED\ntoken   required\nlate" in outline


def test_they_are_buildxs_documents_for_programs(context: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = json.loads(said(capsys, "--call=targets,format=json", str(context)))
    assert targets["targets"][2] == {
        "name": "release", "default": True, "description": "is <b>what</b> is shipped", "base": "base",
        "location": {"ranges": [{"start": {"line": 12}, "end": {"line": 12}}]},
    }  # fmt: skip
    assert base64.b64decode(targets["sources"][0]).decode() == TEXT
    outline = json.loads(said(capsys, "--call=outline,format=json", str(context)))
    assert [each["name"] for each in outline["args"]] == ["GO", "PORT", "API_KEY"]
    assert outline["cache"][0]["ID"] == "/root/.cache/go-build"
    assert outline["secrets"][0] | {"location": None} == {"name": "token", "required": True, "location": None}
    (context / "Dockerfile").write_text("FROM scratch\nCMD run\n")
    assert main(["build", "--call=check,format=json", str(context)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["ruleName"] for each in found["warnings"]] == ["JSONArgsRecommended"]
    assert found["sources"][0]["filename"] == "Dockerfile"


def test_in_a_cell_they_are_cards_and_tables_with_nothing_live_in_them() -> None:
    parsed = parse(TEXT)
    for drawing in (targets_table(targets_of(parsed)), OutlineDrawing(outline_of(parsed, BuildOptions(), {}, {}))):
        assert "&lt;b&gt;what" in drawing.html() and "<b>what" not in drawing.html()
        assert "release" in str(drawing)


@pytest.mark.parametrize(
    ("text", "is_check", "call"),
    [("", False, None), ("build", False, None), ("", True, Call("check")), ("lint", False, Call("check")),
     ("check,format=json", True, Call("check", True)), ("outline", False, Call("outline"))],
)  # fmt: skip
def test_what_is_called_for(text: str, is_check: bool, call: Call | None) -> None:
    assert call_of(text, is_check=is_check) == call


@pytest.mark.parametrize("text", ["what", "targets,format=xml", "targets,more=1", ",format=json2"])
def test_a_call_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        call_of(text, is_check=False)
