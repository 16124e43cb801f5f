"""What could stand at the cursor in a Dockerfile that is being written: instructions, flags, stages, variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nbcontain.dockerfile.lines import Lines
from nbcontain.dockerfile.mounts import SHARINGS, TYPES
from nbcontain.dockerfile.parser import flags_of, keywords
from nbcontain.errors import DockerfileError

Files = Callable[[str], Sequence[str]]
"""The paths of the build context that begin with a text; directories end with a slash."""

_AS = re.compile(r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*\S+[ \t]+AS[ \t]+(\S+)", re.IGNORECASE | re.MULTILINE)
_NAMED = re.compile(r"(?:^|[ \t])([A-Za-z_][A-Za-z0-9_]*)(?==|[ \t\n])")
_DEFINED = re.compile(r"^[ \t]*(ARG|ENV)[ \t]+(.*)", re.IGNORECASE | re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]*)$")
_BUILTIN = (
    "BUILDARCH", "BUILDOS", "BUILDPLATFORM", "BUILDVARIANT", "TARGETARCH", "TARGETOS", "TARGETPLATFORM",
    "TARGETVARIANT",
)  # fmt: skip
_VALUES = {
    "network": ("default", "none", "host"),
    "mount": tuple(f"type={each}" for each in TYPES),
    "platform": ("$BUILDPLATFORM", "$TARGETPLATFORM", "linux/amd64", "linux/arm64"),
}
_MOUNT_FIELDS = ("from=", "id=", "mode=", "readonly", "sharing=", "source=", "target=", "uid=", "gid=")
_SIGNALS = ("SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH")


def completions(text: str, images: Callable[[], Sequence[str]], files: Files) -> tuple[str, list[str]]:
    """What the end of `text`, where the cursor is, could become: the part that would be replaced, and the choices.

    `text` may break off anywhere. `images` names the images that there are; it and `files` are asked only when they
    matter. Inside of a heredoc nothing is offered.
    """
    before, _, _ = text.rpartition("\n")
    try:
        list(Lines(before))
    except DockerfileError:
        return "", []
    line = _logical(text)
    if (variable := _VARIABLE.search(line)) is not None:
        return variable[1], _starting(variable[1], [*_variables(before), *_BUILTIN])
    words = line.split()
    last = "" if line[-1:].isspace() or not words else words[-1]
    found = _choices(words[:-1] if last else words, last, before, images, files)
    fragment = re.split("[=,]", last)[-1] if last.startswith("--") and "=" in last else last
    return fragment, _starting(fragment, found)


def _choices(
    done: Sequence[str], last: str, before: str, images: Callable[[], Sequence[str]], files: Files
) -> Sequence[str]:
    if not done or [each.upper() for each in done] == ["ONBUILD"]:
        return [each.lower() if last and last == last.lower() else each for each in keywords()]
    keyword, *rest = done[1:] if done[0].upper() == "ONBUILD" else done
    keyword = keyword.upper()
    arguments = [each for each in rest if not each.startswith("--")]
    if last.startswith("-") and not arguments:
        return _of_flag(keyword, last, before, images)
    if keyword == "FROM":
        return ("AS",) if arguments else [*images(), *_stages(before), "scratch", "host"]
    if keyword == "HEALTHCHECK":
        return () if arguments else ("CMD", "NONE")
    if keyword == "STOPSIGNAL":
        return _SIGNALS
    if keyword in ("COPY", "ADD") and not any(each.startswith("--from") for each in rest):
        return files(last)
    return ()


def _of_flag(keyword: str, last: str, before: str, images: Callable[[], Sequence[str]]) -> Sequence[str]:
    name, equals, value = last.removeprefix("--").partition("=")
    if not equals:
        return [f"--{each}" if kind is bool else f"--{each}=" for each, kind in flags_of(keyword).items()]
    if name == "from" or (name == "mount" and value.split(",")[-1].startswith("from=")):
        return [*_stages(before), *images()]
    if name == "mount" and value.split(",")[-1].startswith("sharing="):
        return SHARINGS
    if name == "mount" and value.split(",")[-1].startswith("type="):
        return TYPES
    if name == "mount" and "," in value:
        return _MOUNT_FIELDS
    return _VALUES.get(name, ())


def _starting(fragment: str, found: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(each for each in found if each.startswith(fragment)))


def _logical(text: str) -> str:
    """The line at the end of `text`, with the lines that it continues."""
    *before, line = text.split("\n")
    for each in reversed(before):
        if each.lstrip().startswith("#"):
            continue
        if not each.rstrip().endswith("\\"):
            break
        line = f"{each.rstrip()[:-1]} {line}"
    return line.lstrip()


def _stages(text: str) -> list[str]:
    return _AS.findall(text)


def _variables(text: str) -> list[str]:
    return [name for _, names in _DEFINED.findall(text) for name in _NAMED.findall(f"{names}\n")]
