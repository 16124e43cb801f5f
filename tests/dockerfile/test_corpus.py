"""Dockerfiles as files: NAME/Dockerfile with its ast.json, or with the error.txt that the user sees.

After a wanted change, `python tests/dockerfile/test_corpus.py` writes the results anew; read the difference.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nbcontain.dockerfile import parse
from nbcontain.errors import DockerfileError, Span

CORPUS = Path(__file__).parent.parent / "corpus" / "dockerfile"
CASES = sorted(path.name for path in CORPUS.iterdir())


def as_json(value: Any) -> Any:
    if isinstance(value, Span):
        return f"{value.first}-{value.last}"
    if dataclasses.is_dataclass(value):
        fields = {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
        dropped = {"source", "text"} if hasattr(value, "span") or hasattr(value, "source") else set()
        defaults = {each.name: each.default for each in dataclasses.fields(value)}
        kept = {
            name: field
            for name, field in fields.items()
            if name not in dropped and field not in ("", 0, []) and not (field is None and defaults[name] is None)
        }
        return {"kind": type(value).__name__, **kept}
    return [as_json(each) for each in value] if isinstance(value, tuple) else value


def result(name: str) -> tuple[str, str]:
    """The name and content of the file that says what parsing gives."""
    try:
        found = parse((CORPUS / name / "Dockerfile").read_bytes().decode())
    except DockerfileError as error:
        return "error.txt", "\n".join(error.lines()) + "\n"
    return "ast.json", json.dumps(as_json(found), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_dockerfile_says_what_its_folder_says(name: str) -> None:
    file, text = result(name)
    expected = CORPUS / name / file
    assert expected.exists(), text
    assert text == expected.read_text()


if __name__ == "__main__":
    for case in CASES:
        file, text = result(case)
        for other in {"ast.json", "error.txt"} - {file}:
            (CORPUS / case / other).unlink(missing_ok=True)
        (CORPUS / case / file).write_text(text)
