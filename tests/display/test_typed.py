"""Documents that know their types: docker's own documents and templates, and what docker made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nbcontain.display.docker_types import IMAGE, TYPES
from nbcontain.display.template import Template
from nbcontain.display.typed import Duration, Fields, Time, typed
from nbcontain.errors import UsageError

CORPUS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parent.parent / "corpus" / "inspected.json").read_text("utf-8")
)
"""What docker 28.2 and, where that refuses, 20.10 said, of documents of docker 20.10's daemon."""


def render(template: str, document: dict[str, Any], kind: str) -> str:
    return Template.parse(template).render(typed(document, TYPES[kind]))


@pytest.mark.parametrize("case", CORPUS["cases"], ids=lambda case: f"{case['of']} {case['template'][:50]}")
def test_a_template_of_a_document_gives_what_docker_gives(case: dict[str, Any]) -> None:
    document, kind = CORPUS["documents"][case["of"]], case["of"].replace("checked", "container")
    if case["gives"] is None:
        with pytest.raises(UsageError):
            render(case["template"], document, kind)
    else:
        assert render(case["template"], document, kind) == case["gives"]


@pytest.mark.parametrize("kind", ["image", "container", "volume", "network"])
def test_json_is_the_document_and_nothing_besides(kind: str) -> None:
    document = CORPUS["documents"][kind]
    assert json.loads(render("{{json .}}", document, kind)) == document


@pytest.mark.parametrize("kind", TYPES)
def test_every_field_answers_of_a_document_that_has_nothing(kind: str) -> None:
    nothing = typed(None, TYPES[kind])
    assert isinstance(nothing, Fields)
    for name in nothing.names():
        render("{{." + name + "}}{{json ." + name + "}}", {}, kind)
    assert render("{{json .}}", {}, kind) == "{}"


@pytest.mark.parametrize("name", ["__class__", "names", "whole", "_document", "get", "keys", "zero"])
def test_fields_are_still_no_attributes(name: str) -> None:
    with pytest.raises(UsageError):
        render("{{." + name + "}}", {}, "image")
    assert render("{{.Config.Labels." + name + "}}", {}, "image") == "<no value>"


def test_a_name_that_is_none_is_told_of_those_that_are_not_set_too() -> None:
    with pytest.raises(UsageError) as caught:
        render("{{.Config.ExposedPort}}", {"Config": {"Env": []}}, "image")
    assert "did you mean .ExposedPorts?" in caught.value.hint


def test_what_only_we_have_is_there_as_it_is() -> None:
    document = {"Spec": {"root": {"path": "x"}}, "Metadata": {"LayerSizes": [1, 2]}}
    assert render("{{.Spec.root.path}} {{.Metadata.LayerSizes}}", document, "container") == "x [1 2]"


def test_what_is_set_otherwise_than_its_type_says_is_shown_all_the_same() -> None:
    assert render("{{.RepoTags}} {{.Config}}", {"RepoTags": "odd", "Config": 7}, "image") == "odd 7"


def test_a_time_that_has_not_come_is_gos_zero() -> None:
    assert render("{{.Metadata.LastTagTime}}", {}, "image") == "0001-01-01 00:00:00 +0000 UTC"
    assert render("{{json .Metadata.LastTagTime}}", {}, "image") == '"0001-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (20_000_000, "20ms"), (90_000_000_000, "1m30s"),
     (3_600_000_000_000, "1h0m0s"), (3_723_500_000_000, "1h2m3.5s"), (-5_000_000_000, "-5s")],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(ns: int, text: str) -> None:
    assert str(Duration(ns)) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [("2024-05-01T12:00:00.500000Z", "2024-05-01 12:00:00.5 +0000 UTC"),
     ("2024-05-01T12:00:00+02:00", "2024-05-01 12:00:00 +0200 +0200"), ("", ""), ("soon", "soon")],
)  # fmt: skip
def test_times_are_written_as_go_writes_them(said: str, text: str) -> None:
    assert str(Time(said)) == text


def test_a_struct_is_true_and_a_pointer_to_nothing_is_not() -> None:
    assert typed(None, IMAGE)
    assert render("{{if .GraphDriver}}y{{end}}{{if .Config.Healthcheck}}y{{end}}", {}, "image") == "y"
    assert render("{{eq .Config.Healthcheck nil}} {{not .Config.Healthcheck}}", {}, "image") == "true true"
