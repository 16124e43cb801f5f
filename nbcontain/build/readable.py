"""As much of a Dockerfile as can be read, for what is told of it although it cannot be built."""

from __future__ import annotations

from nbcontain.build.lint import CheckReport
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import DockerfileError
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Readable:
    """A Dockerfile; or what stands above the line that cannot be read, and what is wrong there."""

    dockerfile: ast.Dockerfile
    error: DockerfileError | None = None

    @classmethod
    def of(cls, source: str) -> Readable:
        """Raises DockerfileError where nothing stands above it."""
        try:
            return cls(parse(source))
        except DockerfileError as error:
            if error.span is None:
                raise
            above = "\n".join(source.split("\n")[: error.span.first - 1])
            try:
                return cls(parse(above), error)
            except DockerfileError:
                raise error from None

    def told(self, report: CheckReport) -> CheckReport:
        """The report on it. Of half a file BuildKit's checks are told: hints are about the whole."""
        if self.error is None:
            return report
        wrong = ast.Remark(self.error.message, self.error.span, self.error.hint or self.error.why)
        return CheckReport(self.error.source, report.checks, (wrong,))
