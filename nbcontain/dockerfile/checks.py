"""BuildKit's checks that the Dockerfile's text alone decides; the plan adds those that need values and images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from nbcontain.dockerfile import ast
from nbcontain.dockerfile.ast import Remark
from nbcontain.dockerfile.nearest import nearest
from nbcontain.dockerfile.rules import CHECKS, did_you_mean
from nbcontain.dockerfile.words import Room, expand
from nbcontain.errors import BadReference, DockerfileError, Span
from nbcontain.oci.reference import Reference

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_ONCE = (ast.Cmd, ast.Entrypoint, ast.HealthCheck)


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds what is nobody's business."""
    return _SECRET.search(name) is not None and _NO_SECRET.search(name) is None


def checks(dockerfile: ast.Dockerfile, platforms: Mapping[str, str]) -> tuple[Remark, ...]:
    """What BuildKit's checks find. `platforms` are the arguments that every build has: TARGETPLATFORM and its like."""
    found = [*dockerfile.remarks, *_casing(dockerfile), *_names(dockerfile), *_bases(dockerfile, platforms)]
    for arg in dockerfile.arguments:
        found += _described(arg)
    shells: dict[str, bool] = {}
    for stage in dockerfile.stages:
        has_shell = shells.get(stage.base.image.lower(), False)
        found += _described(stage.base)
        for instruction in stage.instructions:
            has_shell = has_shell or isinstance(instruction, ast.DefaultShell)
            found += _of(instruction, has_shell)
        found += _repeated(stage)
        shells[stage.base.name] = has_shell
    return tuple(found)


def _word(instruction: ast.Instruction) -> str:
    """The keyword as it is written."""
    return re.split(r"[\t\v\f\r ]", instruction.text, maxsplit=1)[0]


def _of(instruction: ast.Instruction, has_shell: bool) -> Iterator[Remark]:
    span = instruction.span
    match instruction:
        case ast.Cmd(command=ast.ShellForm(text)) | ast.Entrypoint(command=ast.ShellForm(text)) if not has_shell:
            hint = '["program", "argument"]' + (", with double quotes" if ast.is_broken_json(text) else "")
            yield CHECKS["JSONArgsRecommended"].found(span, _word(instruction), hint=hint)
        case ast.Maintainer():
            hint = 'LABEL org.opencontainers.image.authors="…"'
            yield CHECKS["MaintainerDeprecated"].found(span, hint=hint)
        case ast.Env(pairs=pairs) | ast.Label(pairs=pairs):
            if instruction.is_legacy:
                yield CHECKS["LegacyKeyValueFormat"].found(span, _word(instruction))
            if isinstance(instruction, ast.Env):
                yield from _secrets("ENV", [name for name, _ in pairs], span)
        case ast.Arg(arguments=arguments):
            yield from _secrets("ARG", [name for name, _ in arguments], span)
            yield from _described(instruction)


def _secrets(keyword: str, names: list[str], span: Span) -> Iterator[Remark]:
    for name in names:
        if is_secret_name(name):
            hint = "RUN --mount=type=secret,id=… reads one that leaves no trace."
            yield CHECKS["SecretsUsedInArgOrEnv"].found(span, keyword, name, hint=hint)


def _described(instruction: ast.From | ast.Arg) -> Iterator[Remark]:
    """A comment right above a stage or an argument is its description, and begins with its name."""
    match instruction:
        case ast.From(name=name):
            keyword, names = "FROM", [name] if name else []
        case ast.Arg(arguments=arguments):
            keyword, names = "ARG", [name for name, _ in arguments]
    if names and instruction.comment and instruction.comment.split(" ")[0] not in names:
        shown = names[0] if len(names) == 1 else "<arg_key>"
        yield CHECKS["InvalidDefinitionDescription"].found(instruction.span, keyword, shown)


def _repeated(stage: ast.Stage) -> Iterator[Remark]:
    """Of an instruction that only counts once, all but the last; placed where what is ignored stands."""
    for kind in _ONCE:
        several = [each for each in stage.instructions if isinstance(each, kind)]
        for before, after in zip(several, several[1:], strict=False):
            yield CHECKS["MultipleInstructionsDisallowed"].found(before.span, _word(after))


def _casing(dockerfile: ast.Dockerfile) -> Iterator[Remark]:
    all_of_them = [each for stage in dockerfile.stages for each in (stage.base, *stage.instructions)]
    words = [_word(each) for each in all_of_them]
    counts = Counter(word.islower() for word in words if word in (word.lower(), word.upper()))
    is_lower = counts[True] > counts[False]
    for instruction, word in zip(all_of_them, words, strict=True):
        if word != (word.lower() if is_lower else word.upper()):
            majority = "lowercase" if is_lower else "uppercase"
            yield CHECKS["ConsistentInstructionCasing"].found(instruction.span, word, majority)


def _names(dockerfile: ast.Dockerfile) -> Iterator[Remark]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        base = stage.base
        if not base.name:
            continue
        keyword, *_, written_as, name = re.split(r"[\t\v\f\r ]+", base.text)
        if name != name.lower():
            yield CHECKS["StageNameCasing"].found(base.span, name)
        if keyword == keyword.lower():
            wanted = written_as.lower()
        else:
            wanted = written_as.upper() if keyword == keyword.upper() else written_as
        if written_as != wanted:
            yield CHECKS["FromAsCasing"].found(base.span, written_as, keyword)
        if base.name in _RESERVED:
            yield CHECKS["ReservedStageName"].found(base.span, base.name)
        if base.name in seen:
            yield CHECKS["DuplicateStageName"].found(base.span, base.name)
        seen.add(base.name)


def _bases(dockerfile: ast.Dockerfile, platforms: Mapping[str, str]) -> Iterator[Remark]:
    """FROM: its variables, its default image, its platform."""
    values = dict(platforms)
    declared = {name for arg in dockerfile.arguments for name, _ in arg.arguments} | set(platforms)
    room = Room()
    try:
        for arg in dockerfile.arguments:
            for name, default in arg.arguments:
                if default is not None:
                    values[name] = expand(default, values, dockerfile.escape, room=room)
    except DockerfileError:
        return  # Planning says what is wrong.
    names: set[str] = set()
    for stage in dockerfile.stages:
        base = stage.base
        missing: set[str] = set()
        try:
            image = expand(base.image, values, dockerfile.escape, missing, room)
            unset: set[str] = set()
            platform = expand(base.platform, values, dockerfile.escape, unset, room)
        except DockerfileError:
            return
        for name in sorted((missing | unset) - declared):
            near = did_you_mean(nearest(name, sorted(declared)))
            yield CHECKS["UndefinedArgInFrom"].found(base.span, name, near)
        if image.lower() not in names and not _is_image(image):
            yield CHECKS["InvalidDefaultArgInFrom"].found(base.span, base.image)
        if re.fullmatch(r"\$TARGETPLATFORM|\$\{TARGETPLATFORM\}", base.platform):
            yield CHECKS["RedundantTargetPlatform"].found(base.span, base.platform)
        elif platform and "$" not in base.platform and not _is_named_after(base.name, platform):
            yield CHECKS["FromPlatformFlagConstDisallowed"].found(base.span, platform)
        names.add(base.name)


def _is_image(name: str) -> bool:
    try:
        Reference.parse(name)
    except BadReference:
        return False
    return True


def _is_named_after(stage: str, platform: str) -> bool:
    """Whether a stage says by its name that it is for one platform: build-arm64."""
    return any(part in stage for part in platform.split("/")[:2] if part)
