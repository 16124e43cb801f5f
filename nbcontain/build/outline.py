"""What a Dockerfile offers to whoever builds it: its targets, and what one of them takes (buildx's --call). Pure.

A stage or an ARG is described by the comment above it that begins with its name: `# release is what is shipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from nbcontain.build.named import Contexts
from nbcontain.build.plan import BuildOptions, Planning
from nbcontain.build.recipe import masked
from nbcontain.dockerfile import ast
from nbcontain.dockerfile.words import Room, expand
from nbcontain.errors import DockerfileError, Span, StoreError
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.truth import truth
from nbcontain.values import dataclass, replace

_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Target:
    """One stage, as --target names it."""

    name: str
    """"" for one that has only its number."""
    description: str
    base: str
    platform: str
    span: Span
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """Something that a build can be given, where it is first asked for."""

    name: str
    span: Span
    description: str = ""
    value: str = ""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """What building one target takes."""

    target: Target
    arguments: tuple[Input, ...]
    secrets: tuple[Input, ...]
    ssh: tuple[Input, ...]
    caches: tuple[Input, ...]


def targets_of(dockerfile: ast.Dockerfile) -> tuple[Target, ...]:
    """Every stage, in the order of the file; the last is what a build without --target makes."""
    stages = dockerfile.stages
    return tuple(_target(stage, is_default=number == len(stages)) for number, stage in enumerate(stages, 1))


def outline_of(
    dockerfile: ast.Dockerfile, options: BuildOptions, environ: Mapping[str, str], contexts: Contexts
) -> Outline:
    """What the target and the stages that it needs ask for. Raises UsageError and DockerfileError as `plan` does."""
    planning = Planning(dockerfile, options, _no_image, environ, lambda path: False, contexts)
    target = planning.target()
    stages = [dockerfile.stages[number] for number in sorted(planning.needed(target))]
    mounts = list(_mounts(dockerfile, stages, planning.scene.global_args, planning.scene.build_args))
    return Outline(
        _target(dockerfile.stages[target], is_default=target == len(dockerfile.stages) - 1),
        _arguments(dockerfile.arguments, stages, planning.scene.global_args, planning.scene.build_args),
        _mounted(mounts, "secret"), _mounted(mounts, "ssh", "default"), _mounted(mounts, "cache"),
    )  # fmt: skip


def _no_image(reference: Reference, platform: Platform) -> Image:
    raise StoreError(f"{reference} is not asked for here")


def _target(stage: ast.Stage, *, is_default: bool) -> Target:
    base = stage.base
    return Target(base.name, described(base.comment, (base.name,)), base.image, base.platform, base.span, is_default)


def described(comment: str, names: Sequence[str]) -> str:
    """The description in a comment, if it begins with one of these names."""
    first, _, rest = comment.partition(" ")
    return rest.strip() if first and first.lower() in [name.lower() for name in names] else ""


def _arguments(
    declared: Sequence[ast.Arg], stages: Sequence[ast.Stage], values: Mapping[str, str], given: Mapping[str, str]
) -> tuple[Input, ...]:
    """Those before the first FROM that count for these stages, and those of the stages; each where it is first met."""
    own = [each for stage in stages for each in stage.instructions if isinstance(each, ast.Arg)]
    wanted = {name for stage in stages for name in _VARIABLE.findall(f"{stage.base.image} {stage.base.platform}")}
    wanted |= {name for arg in own for name, default in arg.arguments if default is None}
    # What a wanted one is made of stands before it.
    for arg in reversed(declared):
        for name, default in reversed(arg.arguments):
            wanted |= set(_VARIABLE.findall(default or "")) if name in wanted else set()
    found: dict[str, Input] = {}
    for arg, is_global in (*((arg, True) for arg in declared), *((arg, False) for arg in own)):
        for name, default in arg.arguments:
            if name in found or (is_global and name not in wanted):
                continue
            value = given.get(name, default if default is not None and not is_global else values.get(name, ""))
            found[name] = Input(name, arg.span, described(arg.comment, (name,)), masked(name, value) if value else "")
    return tuple(found.values())


def _mounts(
    dockerfile: ast.Dockerfile, stages: Sequence[ast.Stage], values: Mapping[str, str], given: Mapping[str, str]
) -> Iterator[tuple[dict[str, str | None], Span]]:
    """The mounts of these stages with what their arguments and variables say; what those cannot say stays as it is."""
    known: dict[str, dict[str, str]] = {}
    fill = partial(_expanded, escape=dockerfile.escape, room=Room())
    for stage in stages:
        here = dict(known.get(stage.base.image.lower(), {}))
        for each in stage.instructions:
            match each:
                case ast.Arg(arguments=arguments):
                    for name, default in arguments:
                        usual = values.get(name, "") if default is None else fill(default, here)
                        here[name] = given.get(name, usual)
                case ast.Env(pairs=pairs):
                    here |= {name: fill(value, here) for name, value in pairs}
                case ast.Run(mounts=mounts):
                    for mount in mounts:
                        yield {key: value and fill(value, here) for key, value in mount.fields}, each.span
        known[stage.base.name.lower()] = here


def _expanded(text: str, variables: Mapping[str, str], escape: str, room: Room) -> str:
    try:
        return expand(text, variables, escape, room=room)
    except DockerfileError:
        return text


def _mounted(mounts: Sequence[tuple[Mapping[str, str | None], Span]], kind: str, usual: str = "") -> tuple[Input, ...]:
    """The mounts of one type by their id; one is required if any step requires it."""
    found: dict[str, Input] = {}
    for fields, span in mounts:
        if fields.get("type") != kind:
            continue
        name = next(filter(None, _names(fields)), usual)
        need = "required" in fields and truth(fields["required"] or "true") is True
        known = found.get(name, Input(name, span))
        found[name] = replace(known, is_required=known.is_required or need)
    return tuple(found.values())


def _names(fields: Mapping[str, str | None]) -> Iterator[str | None]:
    """What a mount is known by."""
    yield fields.get("id")
    for key in ("target", "dst", "destination"):
        value = fields.get(key)
        yield value.rpartition("/")[2] if value and fields.get("type") == "secret" else value
