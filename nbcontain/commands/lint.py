"""`build --check`: what could be better in a Dockerfile, under its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.build.lint import CheckReport
from nbcontain.build.plan import BuildOptions
from nbcontain.display.findings import Findings
from nbcontain.display.values import InProgress, Verdict

if TYPE_CHECKING:
    from nbcontain.engine import Engine


def checked(engine: Engine, dockerfile: str, options: BuildOptions) -> InProgress[Verdict]:
    """Ends with 1 if one of BuildKit's checks found something, as docker does; our own hints are no failure."""

    def drawn(report: CheckReport) -> Verdict:
        return Verdict(Findings(report), 1 if report.checks or report.errors else 0)

    return InProgress(engine.builder.check(dockerfile, options, drawn), "work")
