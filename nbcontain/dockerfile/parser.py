"""From the text of a Dockerfile to its values. `@instruction` names the function that reads each instruction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from nbcontain.dockerfile import ast
from nbcontain.dockerfile.arguments import (
    command_form,
    duration,
    json_array,
    one,
    pairs,
    quoted_words,
    refuse,
    several,
)
from nbcontain.dockerfile.flags import Flags, Known, read_flags
from nbcontain.dockerfile.lines import Line, Lines, heredoc_of, split_line
from nbcontain.dockerfile.mounts import mount_flag
from nbcontain.dockerfile.nearest import nearest
from nbcontain.errors import DockerfileError, Span
from nbcontain.truth import truth
from nbcontain.whitespace import WHITESPACE

MAX_INSTRUCTIONS = 10_000
Read = Callable[[Line, Flags], ast.Instruction]
_READERS: dict[str, tuple[Read, Known]] = {}

_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*")


def parse(source: str) -> ast.Dockerfile:
    """The Dockerfile that this text says. Raises DockerfileError, placed in the source."""
    lines = Lines(source)
    arguments: list[ast.Arg] = []
    stages: list[tuple[ast.From, list[ast.Instruction]]] = []
    skipped: list[tuple[Span, frozenset[str]]] = []
    count = 0
    try:
        for line in lines:
            count += 1
            if line.skipped:
                skipped.append((line.span, line.skipped))
            if count > MAX_INSTRUCTIONS:
                refuse(line, f"more than {MAX_INSTRUCTIONS} instructions")
            instruction = read_instruction(line)
            match instruction:
                case ast.From():
                    stages.append((instruction, []))
                case ast.Arg() if not stages:
                    arguments.append(instruction)
                case _ if not stages:
                    refuse(
                        line,
                        f"{line.keyword} before the first FROM",
                        hint="Begin with FROM; only ARG may stand before it.",
                    )
                case _:
                    stages[-1][1].append(instruction)
    except DockerfileError as error:
        error.source = source
        raise
    if not stages:
        where = arguments[-1].span if arguments else None
        raise DockerfileError(
            "no FROM in this Dockerfile", where, source, hint="The first instruction is FROM image, or FROM scratch."
        )
    found = tuple(ast.Stage(base, tuple(instructions)) for base, instructions in stages)
    return ast.Dockerfile(source, tuple(arguments), found, lines.escape, lines.remarks, lines.check, tuple(skipped))


def parse_trigger(trigger: str, span: Span, escape: str = "\\") -> ast.Instruction:
    """The instruction that an ONBUILD holds, placed at `span`. Raises DockerfileError."""
    lines = list(Lines(trigger, escape))
    if len(lines) != 1:
        raise DockerfileError(f"ONBUILD takes one instruction, not {len(lines)}", span)
    line = lines[0]
    if line.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise DockerfileError(f"{line.keyword} is not allowed in ONBUILD", span)
    try:
        return read_instruction(Line(span, line.keyword, line.flags, line.rest, line.text, line.escape, line.heredocs))
    except DockerfileError as error:
        error.span = span
        raise


def read_instruction(line: Line) -> ast.Instruction:
    """The instruction on this line. Raises DockerfileError with a span and no source."""
    if line.keyword not in _READERS:
        near = nearest(line.keyword, _READERS)
        refuse(
            line,
            f"unknown instruction {line.keyword}",
            hint=f"did you mean {near}?" if near else "A line that continues another needs a \\ at that one's end.",
        )
    read, known = _READERS[line.keyword]
    try:
        return read(line, read_flags(line, known))
    except DockerfileError as error:
        error.span = error.span or line.span
        raise


def instruction(keyword: str, **flags: type[object]) -> Callable[[Read], Read]:
    """Decorator: this function reads `keyword`, which takes these flags: a str, a bool, or a tuple of many str."""

    def register(read: Read) -> Read:
        _READERS[keyword] = (read, {name.replace("_", "-"): kind for name, kind in flags.items()})
        return read

    return register


def keywords() -> tuple[str, ...]:
    """Every instruction there is."""
    return tuple(_READERS)


def flags_of(keyword: str) -> Mapping[str, type[object]]:
    """The flags that an instruction takes, as `read_flags` knows them; none for what is no instruction."""
    return _READERS[keyword][1] if keyword in _READERS else {}


# --- the instructions -------------------------------------------------------------------------


@instruction("FROM", platform=str)
def _from(line: Line, flags: Flags) -> ast.From:
    words = list(several(line))
    if len(words) != 1 and not (len(words) == 3 and words[1].lower() == "as"):
        refuse(line, "FROM takes one image, and perhaps AS and a name", hint="FROM python:3.12-slim AS build")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        refuse(
            line,
            f"{words[2]!r} is no name for a stage",
            hint="A letter first, then letters, digits, dots, dashes and underscores.",
        )
    return ast.From(
        span=line.span,
        text=line.text,
        image=words[0],
        name=name,
        platform=flags.text("platform"),
        comment=line.comment,
    )


@instruction("ARG")
def _arg(line: Line, flags: Flags) -> ast.Arg:
    one(line)
    arguments: list[tuple[str, str | None]] = []
    for word in quoted_words(line):
        name, equals, default = word.partition("=")
        if not name:
            refuse(line, f"{word!r} has no name", hint="Write ARG name or ARG name=default.")
        arguments.append((name, default if equals else None))
    return ast.Arg(span=line.span, text=line.text, arguments=tuple(arguments), comment=line.comment)


@instruction("ENV")
def _env(line: Line, flags: Flags) -> ast.Env:
    found, is_legacy = pairs(line)
    return ast.Env(span=line.span, text=line.text, pairs=found, is_legacy=is_legacy)


@instruction("LABEL")
def _label(line: Line, flags: Flags) -> ast.Label:
    found, is_legacy = pairs(line)
    return ast.Label(span=line.span, text=line.text, pairs=found, is_legacy=is_legacy)


def _device(line: Line, value: str) -> ast.DeviceFlag:
    """[name=]NAME[,required[=BOOL]]; what is no key is the name, as vendor.example/kind=one is."""
    name, is_required = "", False
    for field in value.split(","):
        key, equals, said = field.partition("=")
        key = key.lower()
        if key == "required":
            if (known := truth(said) if equals else True) is None:
                refuse(line, f"--device: required={said} is neither true nor false")
            is_required = known
        elif key == "name" and equals and name:
            refuse(line, f"--device: its name is {name} already")
        elif not name:
            name = said if key == "name" and equals else field
        else:
            near = nearest(key, ("name", "required"))
            refuse(line, f"unexpected key {key!r} in --device", hint=f"did you mean {near}?" if near else "")
    if not name:
        refuse(line, "--device has no name", hint="--device=vendor.example/kind=name, as in the vendor's CDI file")
    return ast.DeviceFlag(name, is_required)


@instruction("RUN", mount=tuple, network=str, device=tuple, security=str)
def _run(line: Line, flags: Flags) -> ast.Run:
    network = flags.text("network") or "default"
    if network not in ("default", "none", "host"):
        refuse(line, f"--network={network} is none of default, none and host")
    security = flags.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        refuse(line, f"--security={security} is neither sandbox nor insecure")
    # As in BuildKit, a RUN, CMD or ENTRYPOINT without words is a shell's that has nothing to do.
    text, shown = line.rest, line.text
    command = command_form(line, text)
    is_document = bool(line.heredocs) and isinstance(command, ast.ShellForm) and heredoc_of(text) is not None
    if is_document:
        summary, *more = line.heredocs[0].content.strip().split("\n")
        shown = f"{line.text} ({summary}{'…' if more else ''})"
    return ast.Run(
        span=line.span,
        text=shown,
        command=command,
        network=network,
        security=security,
        mounts=tuple(mount_flag(each) for each in flags.many("mount")),
        devices=tuple(_device(line, each) for each in flags.many("device")),
        heredocs=line.heredocs,
        is_document=is_document,
    )


def _files(line: Line) -> tuple[tuple[str, ...], tuple[ast.Heredoc, ...], str]:
    """The paths, the documents, and the destination."""
    words = json_array(line, line.rest)
    words = several(line) if words is None else words
    if len(words) < 2:
        refuse(line, f"{line.keyword} needs a source and a destination", hint=f"{line.keyword} app.py /srv/")
    if heredoc_of(words[-1]):
        refuse(line, f"{line.keyword} cannot accept a heredoc as a destination")
    by_name = {each.name: each for each in line.heredocs}
    paths: list[str] = []
    documents: list[ast.Heredoc] = []
    for word in words[:-1]:
        if heredoc := heredoc_of(word):
            documents.append(by_name.get(heredoc.name, heredoc))
        else:
            paths.append(word)
    return tuple(paths), tuple(documents), words[-1]


@instruction("COPY", **{"from": str, "chown": str, "chmod": str, "link": bool, "parents": bool, "exclude": tuple})
def _copy(line: Line, flags: Flags) -> ast.Copy:
    sources, heredocs, destination = _files(line)
    return ast.Copy(
        span=line.span,
        text=line.text,
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_set("link"),
        parents=flags.is_set("parents"),
        excludes=flags.many("exclude"),
    )


@instruction("ADD", chown=str, chmod=str, link=bool, exclude=tuple, checksum=str, keep_git_dir=bool, unpack=bool)
def _add(line: Line, flags: Flags) -> ast.Add:
    sources, heredocs, destination = _files(line)
    return ast.Add(
        span=line.span,
        text=line.text,
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_set("link"),
        excludes=flags.many("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.truth("keep-git-dir"),
        unpack=flags.truth("unpack"),
    )


@instruction("WORKDIR")
def _workdir(line: Line, flags: Flags) -> ast.Workdir:
    return ast.Workdir(span=line.span, text=line.text, path=one(line))


@instruction("USER")
def _user(line: Line, flags: Flags) -> ast.User:
    return ast.User(span=line.span, text=line.text, user=one(line))


@instruction("CMD")
def _cmd(line: Line, flags: Flags) -> ast.Cmd:
    return ast.Cmd(span=line.span, text=line.text, command=command_form(line, line.rest))


@instruction("ENTRYPOINT")
def _entrypoint(line: Line, flags: Flags) -> ast.Entrypoint:
    return ast.Entrypoint(span=line.span, text=line.text, command=command_form(line, line.rest))


@instruction("SHELL")
def _shell(line: Line, flags: Flags) -> ast.DefaultShell:
    argv = json_array(line, one(line))
    if not argv:
        refuse(line, "SHELL takes a JSON array", hint='SHELL ["/bin/bash", "-o", "pipefail", "-c"]')
    return ast.DefaultShell(span=line.span, text=line.text, argv=argv)


@instruction("EXPOSE")
def _expose(line: Line, flags: Flags) -> ast.Expose:
    return ast.Expose(span=line.span, text=line.text, ports=several(line))


@instruction("VOLUME")
def _volume(line: Line, flags: Flags) -> ast.Volume:
    paths = json_array(line, one(line))
    paths = several(line) if paths is None else paths
    paths = tuple(path.strip(WHITESPACE) for path in paths)
    if not paths or "" in paths:
        refuse(line, "VOLUME needs a path", hint='VOLUME /data, or VOLUME ["/data", "/cache"]')
    return ast.Volume(span=line.span, text=line.text, paths=paths)


@instruction("STOPSIGNAL")
def _stop_signal(line: Line, flags: Flags) -> ast.StopSignal:
    return ast.StopSignal(span=line.span, text=line.text, signal=one(line))


@instruction("HEALTHCHECK", interval=str, timeout=str, start_period=str, start_interval=str, retries=str)
def _health_check(line: Line, flags: Flags) -> ast.HealthCheck:
    kind, *rest = several(line, 2)
    if kind.upper() == "NONE":
        if rest:
            refuse(line, "HEALTHCHECK NONE takes no arguments")
        return ast.HealthCheck(span=line.span, text=line.text, command=None)
    if kind.upper() != "CMD":
        refuse(line, f"HEALTHCHECK {kind} is neither CMD nor NONE", hint="HEALTHCHECK CMD curl -f localhost")
    command = command_form(line, rest[0]) if rest else None
    if command is None or command == ast.ExecForm(()):
        refuse(line, "HEALTHCHECK CMD needs a command")
    retries = flags.text("retries") or "0"
    if not re.fullmatch(r"\+?[0-9]{1,9}", retries):
        refuse(line, f"--retries={retries} is no number of attempts")
    return ast.HealthCheck(
        span=line.span,
        text=line.text,
        command=command,
        interval_ns=duration(line, flags, "interval"),
        timeout_ns=duration(line, flags, "timeout"),
        start_period_ns=duration(line, flags, "start-period"),
        start_interval_ns=duration(line, flags, "start-interval"),
        retries=int(retries),
    )


@instruction("MAINTAINER")
def _maintainer(line: Line, flags: Flags) -> ast.Maintainer:
    return ast.Maintainer(span=line.span, text=line.text, name=one(line))


@instruction("ONBUILD")
def _on_build(line: Line, flags: Flags) -> ast.OnBuild:
    trigger = one(line) + "".join(f"\n{each.content}{each.name}" for each in line.heredocs)
    keyword = split_line(trigger, line.span, line.escape).keyword
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        refuse(line, f"{keyword} is not allowed in ONBUILD")
    # Read now, so that a mistake shows here and not in every build on top of this image.
    parse_trigger(trigger, line.span, line.escape)
    return ast.OnBuild(span=line.span, text=line.text, trigger=trigger)
