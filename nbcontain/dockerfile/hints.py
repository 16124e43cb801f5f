"""Our own hints, for learners and for small images. None of them is BuildKit's, and none fails a build."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbcontain.dockerfile import ast
from nbcontain.dockerfile.ast import Remark
from nbcontain.dockerfile.rules import HINTS

_APT = re.compile(
    r"\bapt(?:-get)?\s+(?:-\S{1,99}\s{1,9}){0,9}(?P<verb>update|install|upgrade|dist-upgrade)\b"
    r"(?P<rest>[^;&|\n]{0,999})"
)
_PIP = re.compile(r"\bpip3?\s+install\b[^;&|\n]{0,999}")
_INSTALLS = re.compile(
    r"\b(?:pip3?\s+install\s[^;&|\n]{0,999}(?:-r\s|\s\.(?:\s|$))|npm\s+(?:ci|install|i)\b|yarn\s+install\b|poetry\s+install\b"
    r"|uv\s+sync\b|bundle\s+install\b|composer\s+install\b|go\s+mod\s+download\b)"
)
_DOWNLOAD_TO_SHELL = re.compile(r"\b(?:curl|wget)\b[^;&\n|]{0,999}\|\s*(?:sudo\s+)?(?:ba|z|da|a)?sh\b")
_SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,}|xox[abps]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY|glpat-[A-Za-z0-9_-]{20}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}"
    r"|[a-z][a-z0-9+.-]{0,20}://[^/\s:@$]{1,99}:[^/\s@$]{1,99}@"
)
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tzst|tar\.\w+|gz|bz2|xz|zst)$", re.IGNORECASE)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|git@|.*\.git(?:#|$)")
_MAX_SCRIPT = 50_000
"""Longer ones are not looked at: a hint is not worth the time."""


def hints(dockerfile: ast.Dockerfile) -> tuple[Remark, ...]:
    """What could be better."""
    found: list[Remark] = []
    names: set[str] = set()
    for number, stage in enumerate(dockerfile.stages):
        base = stage.base
        if _is_unpinned(base.image) and base.image.lower() not in names:
            tag = f"{base.image.removesuffix(':latest')}:1.2"
            found.append(HINTS["UnpinnedTag"].found(base.span, base.image, hint=f"Name one, as in FROM {tag}."))
        names |= {base.name, str(number)}
        found += _in_stage(stage)
    return (*found, *_root(dockerfile))


def _is_unpinned(image: str) -> bool:
    # host is made of this machine's programs: there are no versions of it.
    if image in ("scratch", "host") or "$" in image:
        return False
    name = image.rpartition("/")[2]
    return "@" not in name and (":" not in name or name.endswith(":latest"))


def _in_stage(stage: ast.Stage) -> Iterator[Remark]:
    whole_copy: ast.Copy | None = None
    has_pip_cache_off = False
    for each in stage.instructions:
        if isinstance(each, (ast.Copy, ast.Add)) and _needs_slash(each):
            yield HINTS["SlashMissing"].found(each.span, each.destination, hint=f"Write {each.destination}/")
        match each:
            case ast.Run(command=command) | ast.Cmd(command=command) | ast.Entrypoint(command=command) if (
                command == ast.ShellForm("")
            ):
                yield HINTS["EmptyCommand"].found(each.span, type(each).__name__.upper(), hint="Leave it away.")
            case ast.Run():
                yield from _in_run(each, has_pip_cache_off)
                if whole_copy and _INSTALLS.search(_script(each)):
                    hint = "COPY the list of dependencies first, install, and COPY the rest after it."
                    yield HINTS["CopyBeforeInstall"].found(whole_copy.span, hint=hint)
                    whole_copy = None
            case ast.Copy(sources=(("." | "./"),), from_=""):
                whole_copy = whole_copy or each
            case ast.Add(sources=sources, checksum="", unpack=None) if sources and not any(
                _ARCHIVE.search(source) or _REMOTE.match(source) or "$" in source for source in sources
            ):
                yield HINTS["AddForCopy"].found(each.span, hint="Write COPY: what is copied cannot surprise.")
            case ast.Env(pairs=pairs):
                has_pip_cache_off = has_pip_cache_off or any(name == "PIP_NO_CACHE_DIR" for name, _ in pairs)
                yield from _values(each, pairs)
            case ast.Arg(arguments=arguments):
                yield from _values(each, tuple((name, value or "") for name, value in arguments))
            case ast.Cmd(command=ast.ShellForm(text)) | ast.Entrypoint(command=ast.ShellForm(text)):
                yield from _broken_json(each, text)


def _needs_slash(copy: ast.Copy | ast.Add) -> bool:
    count = len(copy.sources) + len(copy.heredocs)
    keeps_directories = isinstance(copy, ast.Copy) and copy.parents
    return count > 1 and not keeps_directories and re.fullmatch(r"\.{0,2}|.*(/\.{0,2}|\$.*)", copy.destination) is None


def _values(each: ast.Instruction, pairs: ast.Pairs) -> Iterator[Remark]:
    for name, value in pairs:
        if _SECRET_VALUE.search(value):
            hint = "Take it back where it came from, and use RUN --mount=type=secret."
            yield HINTS["SecretInValue"].found(each.span, name, hint=hint)


def _broken_json(each: ast.Instruction, text: str) -> Iterator[Remark]:
    if ast.is_broken_json(text):
        hint = 'Words need double quotes: ["a", "b"].'
        yield HINTS["BrokenJSONForm"].found(each.span, hint=hint)


def _script(run: ast.Run) -> str:
    text = run.script if isinstance(run.command, ast.ShellForm) else " ".join(run.command.argv)
    return text if len(text) <= _MAX_SCRIPT else ""


def _caches(run: ast.Run, directory: str) -> bool:
    """Whether a cache mount holds this directory."""
    return any(
        value and value.rstrip("/").startswith(directory)
        for mount in run.mounts
        for key, value in mount.fields
        if key in ("target", "dst", "destination") and ("type", "cache") in mount.fields
    )


def _in_run(run: ast.Run, has_pip_cache_off: bool) -> Iterator[Remark]:
    script, span = _script(run), run.span
    if isinstance(run.command, ast.ShellForm):
        yield from _broken_json(run, run.command.text)
    yield from _apt(run, script)
    pip = _PIP.search(script)
    keeps = not has_pip_cache_off and not _caches(run, "/root/.cache") and "PIP_NO_CACHE_DIR" not in script
    if pip and keeps and "--no-cache-dir" not in pip[0]:
        hint = "pip install --no-cache-dir, or RUN --mount=type=cache,target=/root/.cache/pip"
        yield HINTS["PipCacheLeft"].found(span, hint=hint)
    if _DOWNLOAD_TO_SHELL.search(script):
        hint = "Download it, compare its sha256, and run it then; ADD --checksum=… does so, too."
        yield HINTS["DownloadToShell"].found(span, hint=hint)
    if re.fullmatch(r"\s*cd\s+[^;&|\n]+", script):
        yield HINTS["CdForWorkdir"].found(span, hint="WORKDIR lasts for all that follows.")
    if re.search(r"(?:^|[;&|\n])\s*sudo\s", script):
        yield HINTS["SudoInRun"].found(span, hint="Leave it away; USER chooses another one than root.")


def _apt(run: ast.Run, script: str) -> Iterator[Remark]:
    calls = list(_APT.finditer(script))
    verbs = {call["verb"] for call in calls}
    installs = [call for call in calls if call["verb"] == "install"]
    if verbs == {"update"}:
        hint = "Join it with the install: apt-get update && apt-get install -y …"
        yield HINTS["AptUpdateAlone"].found(run.span, hint=hint)
    if "update" in verbs and "/var/lib/apt/lists" not in script and not _caches(run, "/var/lib/apt"):
        hint = "&& rm -rf /var/lib/apt/lists/* in the same RUN makes the image smaller."
        yield HINTS["AptListsLeft"].found(run.span, hint=hint)
    for call in installs:
        words = f"{call[0]} {call['rest']}"
        if not re.search(r"\s(?:-[a-zA-Z]*[yq]{1,2}[a-zA-Z]*|--yes|--assume-yes)\b", words):
            yield HINTS["AptAsks"].found(run.span, hint="apt-get install -y …")
        if "--no-install-recommends" not in words:
            yield HINTS["AptRecommends"].found(run.span, hint="apt-get install -y --no-install-recommends …")
        break


def _root(dockerfile: ast.Dockerfile) -> Iterator[Remark]:
    """The last stage, and those below it."""
    stages = {stage.base.name: stage for stage in dockerfile.stages if stage.base.name}
    stage: ast.Stage | None = dockerfile.stages[-1]
    last, seen, program = dockerfile.stages[-1], set[str](), None
    while stage:
        users = [each for each in stage.instructions if isinstance(each, ast.User)]
        program = program or next((e for e in stage.instructions if isinstance(e, (ast.Cmd, ast.Entrypoint))), None)
        if users:
            if stage is last and users[-1].user.split(":")[0] in ("root", "0"):
                yield HINTS["RootAtEnd"].found(users[-1].span, hint="End with USER and a name or number of its own.")
            return
        name = stage.base.image.lower()
        stage = stages.get(name) if name not in seen else None
        seen.add(name)
    if program:
        hint = "USER before it, with a name that the image has, or a number: USER 1000. RUN useradd makes one."
        yield HINTS["RootAtEnd"].found(program.span, hint=hint)
