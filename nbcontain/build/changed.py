"""An image's config changed by a few instructions of a Dockerfile: commit -c and import -c."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.build.plan import BuildOptions, plan
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.parser import parse
from nbcontain.errors import DockerfileError
from nbcontain.oci.image import Image, ImageConfig
from nbcontain.values import replace

_ALLOWED = (
    ast.Cmd, ast.Entrypoint, ast.Env, ast.Expose, ast.HealthCheck, ast.Label, ast.OnBuild, ast.StopSignal, ast.User,
    ast.Volume, ast.Workdir,
)  # fmt: skip
_NAMES = "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR"


def changed(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The config after these instructions, as docker changes it: only the config, never a file.

    Raises DockerfileError for what is none of the instructions that say something of the config.
    """
    if not changes:
        return config
    source = "FROM base\n" + "".join(f"{change}\n" for change in changes)
    parsed = parse(source)
    for instruction in parsed.stages[-1].instructions:
        if not isinstance(instruction, _ALLOWED):
            raise DockerfileError(
                f"{type(instruction).__name__.upper()} changes more than the config", instruction.span, source,
                hint=f"-c takes {_NAMES}",
            )  # fmt: skip
    # The triggers of what is changed are for those who build on it.
    base = Image.of(replace(config, on_build=(), history=()), ())
    made = plan(parsed, BuildOptions(), lambda reference, platform: base).config
    env = made.env
    if not any(entry.startswith("PATH=") for entry in config.env) and not any(
        isinstance(instruction, ast.Env) and any(name == "PATH" for name, _ in instruction.pairs)
        for instruction in parsed.stages[-1].instructions
    ):
        # A build gives an image without a PATH the usual one; this is no build.
        env = tuple(entry for entry in env if not entry.startswith("PATH="))
    return replace(
        made, env=env, on_build=(*config.on_build, *made.on_build), history=config.history, diff_ids=config.diff_ids,
        created=config.created, platform=config.platform,
    )  # fmt: skip
