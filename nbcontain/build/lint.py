"""A Dockerfile checked and not built: BuildKit's checks of every stage, and our hints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from nbcontain.build.arguments import build_arguments, platform_arguments
from nbcontain.build.named import NO_CONTEXTS, Contexts
from nbcontain.build.plan import BuildOptions, Resolve, plan
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.checks import checks
from nbcontain.dockerfile.hints import hints
from nbcontain.dockerfile.rules import CHECKS, CheckOptions
from nbcontain.errors import DockerfileError, ImageNotFound, RegistryError
from nbcontain.oci.image import Platform
from nbcontain.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found, in the order of the lines."""

    source: str
    remarks: tuple[ast.Remark, ...]
    errors: tuple[ast.Remark, ...] = ()
    """Why it could not be built."""

    @property
    def checks(self) -> tuple[ast.Remark, ...]:
        """What BuildKit would find, too."""
        return tuple(each for each in self.remarks if each.rule in CHECKS)


def check(
    dockerfile: ast.Dockerfile,
    options: BuildOptions,
    resolve: Resolve,
    environ: Mapping[str, str] = os.environ,
    is_ignored: Callable[[str], bool] = lambda path: False,
    contexts: Contexts = NO_CONTEXTS,
) -> CheckReport:
    """Plan every stage, and build none. Raises DockerfileError for a bad check option, and UsageError."""
    given = build_arguments(options.build_args, environ)
    wanted = CheckOptions.parse(given.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.check))
    # Whatever is found is given back, whether or not it would be an error.
    forgiving = replace(dockerfile, check="experimental=all")
    others = tuple(each for each in options.build_args if not each.startswith("BUILDKIT_DOCKERFILE_CHECK"))
    options = replace(options, build_args=others)
    platforms = platform_arguments(Platform.here(), options.platform)
    found = [*hints(dockerfile), *checks(dockerfile, platforms)]
    errors: list[ast.Remark] = []
    for number in range(len(dockerfile.stages)):
        try:
            wanted_stage = replace(options, target=str(number))
            found += plan(forgiving, wanted_stage, resolve, environ, is_ignored, contexts).remarks
        except DockerfileError as error:
            if isinstance(error.__cause__, (ImageNotFound, RegistryError)):
                message = f"{error.message}: what depends on it could not be checked"
                found.append(ast.Remark(message, error.span, error.hint))
            else:
                errors.append(ast.Remark(error.message, error.span, error.hint or error.why))
    return CheckReport(dockerfile.source, wanted.kept(found, dockerfile.skipped), tuple(dict.fromkeys(errors)))
