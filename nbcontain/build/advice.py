"""What a build says of its Dockerfile besides BuildKit's checks: our own hints."""

from __future__ import annotations

from collections.abc import Mapping

from nbcontain.build.arguments import build_arguments
from nbcontain.build.request import BuildOptions
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.hints import hints
from nbcontain.dockerfile.rules import CheckOptions


def hints_of(dockerfile: ast.Dockerfile, options: BuildOptions, environ: Mapping[str, str]) -> tuple[ast.Remark, ...]:
    """Our own hints, less those that the Dockerfile does not want. Raises DockerfileError for a bad check option."""
    given = build_arguments(options.build_args, environ)
    wanted = CheckOptions.parse(given.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.check))
    return wanted.kept(hints(dockerfile), dockerfile.skipped)
