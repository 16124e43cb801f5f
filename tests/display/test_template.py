"""Go's templates over plain values, beside what docker's own program made of the same texts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from nbcontain.display.template import Template
from nbcontain.display.template_syntax import DEPTH_LIMIT
from nbcontain.errors import UsageError

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "templates.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
VALUE = {"Name": "default"}
WORDS = """{{ }} {{- -}} . .A .B.C $ $x := = , | ( ) "a" 'a' ` 1 2.5 nil true if else end range with break continue
define call and or not len index slice eq lt json printf print split join pad truncate %5d /* */ é"""
PIECES = st.sampled_from(WORDS.split())
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["A", "B", "C", "x y"]), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["template"][:40])
def test_a_template_gives_what_docker_gives(case: dict[str, Any]) -> None:
    if case["gives"] is None:
        with pytest.raises(UsageError):
            Template.parse(case["template"]).render(VALUE)
    else:
        assert Template.parse(case["template"]).render(VALUE) == case["gives"]


def test_the_recorded_answers_are_still_dockers() -> None:
    asked = [needs.program("docker", "docker.io"), "context", "inspect", "default", "-f"]
    newest = subprocess.run([*asked, '{{with ""}}{{else with "b"}}{{end}}'], capture_output=True)
    if newest.returncode:
        pytest.skip("this docker's templates are older than Go 1.23's, which were recorded: docker 20.10's are")
    good = [case for case in CASES if case["gives"] is not None and not case["template"].startswith("{{-")]
    text = '{{"\\x1e"}}'.join(case["template"] for case in good)
    done = subprocess.run([*asked, text], capture_output=True, text=True, check=True)
    # {{- and -}} reach into the neighbours.
    assert done.stdout[:-1].split("\x1e") == [case["gives"] for case in good]


def test_fields_are_keys_and_never_attributes() -> None:
    for text in ("{{.__class__}}", "{{.ID.__class__}}", '{{index . "__class__" "x"}}', "{{.items}}", "{{$.keys}}"):
        with pytest.raises(UsageError):
            Template.parse(text).render({"ID": "x"})


def test_an_error_points_at_its_place_and_says_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        Template.parse("{{.ID}} {{.Nam}}").render({"ID": "x", "Name": "y"})
    assert caught.value.why.splitlines() == ["{{.ID}} {{.Nam}}", "          ^"]
    assert "did you mean .Name?" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "{{range 100000}}{{range 100000}}x{{end}}{{end}}",
        '{{$x := "xxxxxxxxxxxxxxxxxxxx"}}{{range 100}}{{$x = print $x $x}}{{end}}',
        '{{pad "x" 1000000000 0}}',
        '{{printf "%1000000000s" "x"}}',
        "(" * 3 + "{{" + "(" * 5000,
        "{{if true}}" * 5000,
    ],
)
def test_no_template_takes_the_machine(text: str) -> None:
    with pytest.raises(UsageError):
        Template.parse(text).render({})


@settings(max_examples=250)
@given(st.lists(PIECES, max_size=14), PLAIN)
def test_whatever_is_written_is_a_text_or_an_error_of_ours(pieces: list[str], value: object) -> None:
    for text in ("{{" + " ".join(pieces) + "}}", "".join(pieces)):
        try:
            assert isinstance(Template.parse(text).render(value), str)
        except UsageError as error:
            assert error.lines()


@settings(max_examples=100)
@given(PLAIN)
def test_json_is_json(value: Any) -> None:
    text = Template.parse("{{json .}}").render(value)
    if "NaN" not in text and "Infinity" not in text:
        assert json.loads(text) == json.loads(json.dumps(value))


def test_the_limits_are_far_from_what_people_write() -> None:
    value = {"L": [{"N": str(number)} for number in range(10_000)]}
    assert len(Template.parse("{{range .L}}{{.N}},{{end}}").render(value)) == 48_890
    assert DEPTH_LIMIT >= 50
