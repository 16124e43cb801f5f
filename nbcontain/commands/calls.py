"""`build --call`: what could be better in a Dockerfile, what it offers, what building it takes. Nothing is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nbcontain.display.values import Document, InProgress, Verdict
from nbcontain.errors import UsageError
from nbcontain.values import dataclass

if TYPE_CHECKING:
    # Builds come by here, and need none of it.
    from nbcontain.build.inputs import DockerfileSource, Inputs
    from nbcontain.build.lint import CheckReport
    from nbcontain.build.plan import BuildOptions
    from nbcontain.dockerfile import ast
    from nbcontain.engine import Engine

_HINT = "--call=build, check, outline or targets; with ,format=json a document"


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of a Dockerfile."""

    name: str
    is_json: bool = False


def call_of(text: str, *, is_check: bool) -> Call | None:
    """What --call and --check say; None for a build. Raises UsageError."""
    name, _, rest = text.partition(",")
    fields = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    form = fields.pop("format", "text")
    name = {"lint": "check", "": "build"}.get(name, name)
    if fields or form not in ("text", "json") or name not in ("build", "check", "outline", "targets"):
        raise UsageError(f"--call={text}: there is no such call", hint=_HINT)
    if is_check and name == "build":
        name = "check"
    return None if name == "build" else Call(name, form == "json")


def called(engine: Engine, call: Call, dockerfile: DockerfileSource, options: BuildOptions) -> InProgress[Verdict]:
    """The answer, in progress: a Dockerfile may have to be fetched.

    A check ends with 1 if one of BuildKit's found something, as docker does; our own hints are no failure.
    """
    if call.name == "check":
        from nbcontain.display.findings import Findings
        from nbcontain.display.outlines import check_document

        def drawn(report: CheckReport) -> Verdict:
            value = Document(check_document(report, options.dockerfile_name)) if call.is_json else Findings(report)
            return Verdict(value, 1 if report.checks or report.errors else 0)

        return InProgress(engine.builder.check(dockerfile, options, drawn), "work")
    looks: dict[str, Callable[[ast.Dockerfile, Inputs], object]] = {
        "targets": lambda parsed, given: _targets(call, parsed),
        "outline": lambda parsed, given: _outline(call, engine, options, parsed, given),
    }
    look = looks[call.name]
    return InProgress(
        engine.builder.examine(call.name, dockerfile, options, lambda parsed, given: Verdict(look(parsed, given), 0)),
        "work",
    )


def _targets(call: Call, parsed: ast.Dockerfile) -> object:
    from nbcontain.build.outline import targets_of
    from nbcontain.display.outlines import targets_document, targets_table

    targets = targets_of(parsed)
    return Document(targets_document(targets, parsed.source)) if call.is_json else targets_table(targets)


def _outline(call: Call, engine: Engine, options: BuildOptions, parsed: ast.Dockerfile, given: Inputs) -> object:
    from nbcontain.build.outline import outline_of
    from nbcontain.display.outlines import OutlineDrawing, outline_document

    outline = outline_of(parsed, options, engine.environ, given.names(options.platform))
    return Document(outline_document(outline, parsed.source)) if call.is_json else OutlineDrawing(outline)
