"""What could stand at the cursor: in a command line commands, flags and names, in a cell what its Dockerfile takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nbcontain.build.sources import Source
from nbcontain.cells import CELL_OPTIONS
from nbcontain.commands.builds import DockerfileWords
from nbcontain.commands.table import GROUPS, Command, commands, find
from nbcontain.compose.model import SERVICE
from nbcontain.dockerfile.completion import completions
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.filters import CONTAINERS, IMAGES, PRUNING, VOLUMES
from nbcontain.handles import Container
from nbcontain.images import Image
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.magic_names import GROUP_MAGICS, LINE_MAGICS
from nbcontain.options import REST, flags_of
from nbcontain.runtime.annotations import DEFAULT_PATH
from nbcontain.values import dataclass, fields
from nbcontain.variables import is_data

_PLACE = re.compile(r"""([A-Za-z_]\w*)\[["'](/[^"']*)$""")
_MAGIC = re.compile(rf"(?:[^%]*=\s*|\s*)(%%?)({'|'.join(('docker', *LINE_MAGICS))})\s+(.*)$")
_OPEN_BRACE = re.compile(r"(?<!\{)\{(\w*)$")


def candidates(
    group: str, words: Sequence[str], engine: Engine, options: type | None = None
) -> list[str]:
    """What the last of `words`, which may be empty, could become; the others are what stands before it.

    `group` is the magic: "image", "container", or "" for the terminal's words. `options` are what the command takes
    where that is more than in a line, as in a cell. Reads the disk, makes nothing.
    """
    *before, last = words
    before = [word for word in before if word]
    if not group and before and before[0] in GROUPS:
        group, *before = before
    if not before:
        found = [] if last.startswith("-") else _commands(group)
    elif (command := find(group, before[0])) is None:
        found = []
    else:
        found = _words(command, _Typed.of(options or command.options, before[1:]), last, engine)
    return sorted({each for each in found if each.startswith(last)})


@dataclass(frozen=True, slots=True)
class _Typed:
    """What stands behind a command and before the cursor: what is no flag, and the flag that waits for its value."""

    options: type
    positionals: tuple[str, ...]
    flag: str = ""
    is_rest: bool = False
    """A program's own words have begun."""

    @classmethod
    def of(cls, options: type, words: Sequence[str]) -> _Typed:
        takes = {flag: each for each in fields(options) for flag in each.metadata.get("flags", ())}
        places = [each for each in fields(options) if "positional" in each.metadata]
        rest = next((at for at, each in enumerate(places) if each.metadata["nargs"] == REST), None)
        positionals: list[str] = []
        flag = ""
        for word in words:
            if flag:
                flag = ""
            elif not word.startswith("-") or word == "-" or (rest is not None and len(positionals) >= rest):
                positionals.append(word)
            elif (each := takes.get(word)) is not None and each.type != "bool" and not each.metadata["bare"][0]:
                flag = word
        return cls(options, tuple(positionals), flag, rest is not None and len(positionals) >= rest)

    def is_full(self) -> bool:
        """Whether it takes nothing more but flags."""
        places = [each.metadata["nargs"] for each in fields(self.options) if "positional" in each.metadata]
        return not {"+", "*", REST} & set(places) and len(self.positionals) >= len(places)


def _words(command: Command, typed: _Typed, last: str, engine: Engine) -> list[str]:
    """What could stand in a command's line after what is typed."""
    if typed.flag:
        return _values(command, typed.options, typed.flag, last, engine)
    if typed.is_rest:
        return _programs(command, typed.positionals, last, engine)
    if last.startswith("-"):
        flag, sign, value = last.partition("=")
        if sign:
            return [f"{flag}={each}" for each in _values(command, typed.options, flag, value, engine)]
        return flags_of(typed.options)
    return [] if typed.is_full() else _positionals(command, typed.positionals, last, engine)


def _values(command: Command, options: type, flag: str, last: str, engine: Engine) -> list[str]:
    """What a flag could be given."""
    if flag == "--filter":
        names = {"image ls": IMAGES, "container ps": CONTAINERS, "volume ls": VOLUMES}
        return [f"{name}=" for name in names.get(f"{command.group} {command.name}", PRUNING)]
    if flag == "--format":
        return ["json", "table"]
    if flag in ("-v", "--volume"):
        return _here(last) if last.startswith((".", "/", "~")) else _volumes(engine)
    if flag in _VALUES:
        return _VALUES[flag](engine)
    known = next((each for each in fields(options) if flag in each.metadata.get("flags", ())), None)
    is_file = known is not None and (known.metadata["metavar"].startswith(("FILE", "DIR|")) or flag in _FILES)
    return _here(last) if is_file else []


def _positionals(command: Command, before: Sequence[str], last: str, engine: Engine) -> list[str]:
    """What could stand next where `before` stands already, of what is no flag."""
    verb, number = f"{command.group} {command.name}", len(before)
    match command.group:
        case "system" | "builder" | "nbcontain" | "registry":
            return _here(last) if verb == "nbcontain tutorials" else []
        case "compose":
            return _services(engine)
        case "volume":
            return _here(last) if number else [] if command.name == "create" else _volumes(engine)
        case "network":
            # `connect` and `disconnect` take a network, and then a container.
            if number and command.name in ("connect", "disconnect"):
                return _containers(engine)
            return [] if command.name == "create" else _networks(engine)
        case "kernel" if command.name == "rm":
            return [each.name for each in engine.kernels.all()]
    if verb == "container cp":
        name, colon, path = last.partition(":")
        if colon:
            return _paths(lambda path: engine.transfers.names(engine.container(name), path), f"{name}:", path)
        return [*(f"{each}:" for each in _containers(engine)), *_here(last)]
    if verb in ("image cat", "image tree") and number:
        return _paths(lambda path: engine.anatomy.names(before[0], path), "", last)
    if verb in ("image build", "image load", "image import") and not number:
        return _here(last)
    if verb in ("container rename", "container port", "container open", "image from-host") and (
        number or command.group == "image"
    ):
        return []
    if command.group in ("image", "kernel", "manifest") or command.name in ("run", "create"):
        return _images(engine)
    return _images(engine) if verb == "container commit" and number else _containers(engine)


def _programs(command: Command, before: Sequence[str], last: str, engine: Engine) -> list[str]:
    """What could stand in a program's own line: what a container or an image has in its PATH, and paths inside."""
    if command.group != "container" or command.name == "top":
        return []
    try:
        if command.name in ("run", "create"):
            env = engine.image(before[0]).config.env
            names = partial(engine.anatomy.names, before[0])
        else:
            container = engine.container(before[0])
            env = container.bundle.spec.process.env
            names = partial(engine.transfers.names, container)
    except (NbcontainError, OSError, ValueError):
        return []
    if last.startswith("/"):
        return _paths(names, "", last)
    if len(before) > 1:
        return []
    path = dict(each.partition("=")[::2] for each in env).get("PATH", DEFAULT_PATH)
    directories = [each for each in path.split(":") if each.startswith("/")]
    found = {name.rpartition("/")[2] for each in directories for name in _paths(names, "", f"{each}/")} - {""}
    # All that there is would be hundreds of names: before the first letter what most people run.
    return sorted(found if last else found & _OFTEN)


def in_code(line: str, engine: Engine, variables: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """What the end of a line of a cell could become, and the part of it that this replaces; None where that is not
    ours to say.

    Paths inside where it ends like `web["/etc`; in a magic's line its words, `{variables}`, and variables that --put
    and --stdin name.
    """
    if (place := _PLACE.search(line)) is not None:
        value = variables.get(place[1])
        if isinstance(value, Container | Image):
            found = _paths(lambda path: value[path].names(), "", place[2])
            return place[2], sorted(each for each in found if each.startswith(place[2]))
        return None
    magic = _MAGIC.match(line)
    if magic is None:
        return None
    words = magic[3].split(" ")
    last, names = words[-1], [name for name in variables if not name.startswith("_")]
    braced = _OPEN_BRACE.search(last)
    if braced is not None:
        return braced[0], sorted(f"{{{name}}}" for name in names if name.startswith(braced[1]))
    if words[-2:-1] in (["--put"], ["--stdin"]):
        return last, sorted(name for name in names if name.startswith(last) and is_data(name, variables[name]))
    group = magic[2] if magic[2] in GROUP_MAGICS else ""
    if magic[1] == "%" or group == "compose":
        return last, candidates(group, words, engine)
    if len(words) == 1:
        return last, [verb for verb in CELL_OPTIONS if verb.startswith(last)]
    return last, candidates(group, words, engine, CELL_OPTIONS.get(words[0]))


def magic_of(line: str) -> str:
    """The magic in whose words a line ends; "" for none."""
    magic = _MAGIC.match(line)
    return magic[2] if magic is not None else ""


def _paths(names: Callable[[str], list[tuple[str, str]]], lead: str, path: str) -> list[str]:
    """What is under paths that begin so, one directory at a time."""
    directory = path.rpartition("/")[0] + "/"
    try:
        return [f"{lead}{directory}{name}{'/' if kind == 'directory' else ''}" for name, kind in names(directory)]
    except (NbcontainError, OSError):
        return []


def in_dockerfile_cell(text: str, engine: Engine, source_of: Callable[[str], Source]) -> tuple[str, list[str]]:
    """What the end of a %%dockerfile cell's text could become, and the part of it that this replaces.

    `source_of` gives the context of a name, which may be "".
    """
    line, newline, body = text.partition("\n")
    if not newline:
        words = line.split()[1:]
        words += [""] if line[-1:].isspace() or not words else []
        return words[-1], candidates("image", ["build", *words], engine, DockerfileWords)
    try:
        asked = re.search(r"--context[= ](\S+)", line)
        source = source_of(asked[1] if asked else "")
    except NbcontainError:
        source = {}
    return in_dockerfile(body, engine, source)


def in_dockerfile(text: str, engine: Engine, source: Source) -> tuple[str, list[str]]:
    """What the end of a Dockerfile that is being written could become, and the part that this replaces.

    `source` is its build context. Reads names on the disk, and no file.
    """
    return completions(text, lambda: _images(engine), lambda beginning: _files(source, beginning))


def _files(source: Source, beginning: str) -> list[str]:
    """What is in a context under paths that begin so, one directory at a time."""
    directory, slash, _ = beginning.rpartition("/")
    if isinstance(source, Mapping):
        below = [path.removeprefix(directory + slash) for path in source if path.startswith(directory + slash)]
        names = {head + middle for head, middle, _ in (each.partition("/") for each in below)}
    elif isinstance(source, Path) and ".." not in directory.split("/") and not directory.startswith("/"):
        try:
            with os.scandir(source / directory) as entries:
                names = {each.name + "/" * each.is_dir() for each in entries if each.name[:1] != "."}
        except OSError:
            names = set()
    else:
        names = set()
    return sorted(directory + slash + name for name in names)


def _here(beginning: str) -> list[str]:
    """Paths of this machine that begin so, one directory at a time."""
    directory, slash, _ = beginning.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(directory + slash) or ".") as entries:
            return [directory + slash + each.name + "/" * each.is_dir() for each in entries if each.name[:1] != "."]
    except OSError:
        return []


def _commands(group: str) -> list[str]:
    if group:
        return [name for each in commands() if each.group == group for name in (each.name, *each.aliases)]
    words = [each.name for each in commands() if each.group == "nbcontain"]
    return [*words, *GROUPS, *(word for each in commands() for word in each.top)]


def _images(engine: Engine) -> list[str]:
    try:
        names = [name for name, _ in engine.images() if name is not None]
    except (NbcontainError, OSError):
        return []
    return [each.familiar for each in names] + [each.familiar_repository for each in names if each.tag == "latest"]


def _containers(engine: Engine) -> list[str]:
    try:
        return [each.name for each in engine.containers()]
    except (NbcontainError, OSError):
        return []


def _networks(engine: Engine) -> list[str]:
    try:
        return [each.name for each in engine.networks.all()]
    except (NbcontainError, OSError):
        return []


def _services(engine: Engine) -> list[str]:
    """Of the projects that there are."""
    try:
        return [name for each in engine.containers() if (name := dict(each.info.labels).get(SERVICE))]
    except (NbcontainError, OSError):
        return []


def _volumes(engine: Engine) -> list[str]:
    try:
        return [each.name for each in engine.volumes]
    except (NbcontainError, OSError):
        return []


_VALUES: Mapping[str, Callable[[Engine], list[str]]] = {
    **dict.fromkeys(("--network", "--net"), _networks),
    **dict.fromkeys(("--cap-add", "--cap-drop"), lambda _: ["ALL", *CAPABILITIES]),
    "--pull": lambda _: ["always", "missing", "never", "newer"],
    "--restart": lambda _: ["always", "no", "on-failure", "unless-stopped"],
    "--volumes-from": _containers,
    "--interpreter": lambda _: ["bash", "node", "perl", "python3", "Rscript", "ruby", "sh"],
}
"""By flag: what it can be."""
_FILES = ("--file", "-f", "--project-directory")
"""Flags whose value is a file here, beside those that say so."""
_OFTEN = {"bash", "cat", "env", "ls", "node", "perl", "ps", "python", "python3", "R", "Rscript", "ruby", "sh"}
