"""What could stand at the cursor: in a command line commands, flags and names, in a cell what its Dockerfile takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.build.sources import Source
from nbcontain.commands.table import GROUPS, commands, find
from nbcontain.dockerfile.completion import completions
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.filters import CONTAINERS, IMAGES, PRUNING, VOLUMES
from nbcontain.handles import Container
from nbcontain.images import Image
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.magic_names import GROUP_MAGICS, LINE_MAGICS
from nbcontain.options import flags_of
from nbcontain.values import fields
from nbcontain.variables import is_data

_PLACE = re.compile(r"""([A-Za-z_]\w*)\[["'](/[^"']*)$""")
_MAGIC = re.compile(rf"(?:[^%]*=\s*)?%%?({'|'.join(('docker', *LINE_MAGICS))})\s+(.*)$")
_OPEN_BRACE = re.compile(r"(?<!\{)\{(\w*)$")


def candidates(group: str, words: Sequence[str], engine: Engine) -> list[str]:
    """What the last of `words`, which may be empty, could become; the others are what stands before it.

    `group` is the magic: "image", "container", or "" for the terminal's words. Reads the disk, makes nothing.
    """
    *before, last = words
    if not group and before and before[0] in GROUPS:
        group, *before = before
    if not before:
        found = _commands(group)
    elif (command := find(group, before[0])) is None:
        found = []
    elif before[-1] == "--filter":
        names = {"image ls": IMAGES, "container ps": CONTAINERS, "volume ls": VOLUMES}
        known = names.get(f"{command.group} {command.name}", PRUNING)
        found = [f"{name}=" for name in known]
    elif before[-1] == "--format":
        found = ["json", "table"]
    elif before[-1] in _VALUES and before[-1] not in _switches(command.options):
        found = _VALUES[before[-1]](engine)
    elif last.startswith("/") and len(before) > 1 and f"{command.group} {command.name}" in ("image cat", "image tree"):
        found = _paths(lambda path: engine.anatomy.names(before[1], path), "", last)
    elif ":" in last and command.name == "cp":
        name, _, path = last.partition(":")
        found = _paths(lambda path: engine.transfers.names(engine.container(name), path), f"{name}:", path)
    elif last.startswith("-"):
        found = flags_of(command.options)
    elif command.group in ("system", "builder"):
        found = []
    elif command.group == "kernel" and command.name == "rm":
        found = [each.name for each in engine.kernels.all()]
    elif command.group == "volume":
        found = _volumes(engine)
    elif command.group == "network":
        # `connect` and `disconnect` take a network, and then a container.
        is_second = command.name in ("connect", "disconnect") and any(not each.startswith("-") for each in before[1:])
        found = _containers(engine) if is_second else [] if command.name == "create" else _networks(engine)
    elif command.group in ("image", "kernel") or command.name in ("run", "create"):
        found = _images(engine)
    else:
        found = _containers(engine)
    return sorted({each for each in found if each.startswith(last)})


def in_code(line: str, engine: Engine, variables: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What the end of a line of a cell could become, and the part of it that this replaces.

    Paths inside where it ends like `web["/et`, and in a magic's line paths, `{variables}`, and variables that --put and
    --stdin name; nothing elsewhere.
    """
    if (place := _PLACE.search(line)) is not None:
        value = variables.get(place[1])
        if isinstance(value, Container | Image):
            found = _paths(lambda path: value[path].names(), "", place[2])
            return place[2], sorted(each for each in found if each.startswith(place[2]))
        return "", []
    magic = _MAGIC.match(line)
    if magic is None:
        return "", []
    words = magic[2].split(" ")
    last, names = words[-1], [name for name in variables if not name.startswith("_")]
    braced = _OPEN_BRACE.search(last)
    if braced is not None:
        return braced[0], sorted(f"{{{name}}}" for name in names if name.startswith(braced[1]))
    if words[-2:-1] in (["--put"], ["--stdin"]):
        return last, sorted(name for name in names if name.startswith(last) and is_data(name, variables[name]))
    if ":" in last or "/" in last:
        return last, candidates(magic[1] if magic[1] in GROUP_MAGICS else "", words, engine)
    return "", []


def _paths(names: Callable[[str], list[tuple[str, str]]], lead: str, path: str) -> list[str]:
    """What is under paths that begin so, one directory at a time."""
    directory = path.rpartition("/")[0] + "/"
    try:
        return [f"{lead}{directory}{name}{'/' if kind == 'directory' else ''}" for name, kind in names(directory)]
    except (NbcontainError, OSError):
        return []


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


def _switches(options_type: type) -> set[str]:
    """Flags that no value follows: -v is a volume's for `run`, and a switch for `rm`."""
    return {
        flag for each in fields(options_type) if each.type == "bool" for flag in each.metadata.get("flags", ())
    }


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


def _volumes(engine: Engine) -> list[str]:
    try:
        return [each.name for each in engine.volumes]
    except (NbcontainError, OSError):
        return []


_VALUES: Mapping[str, Callable[[Engine], list[str]]] = {
    **dict.fromkeys(("--network", "--net"), _networks),
    **dict.fromkeys(("-v", "--volume"), _volumes),
    **dict.fromkeys(("--cap-add", "--cap-drop"), lambda _: ["ALL", *CAPABILITIES]),
    "--pull": lambda _: ["always", "missing", "never", "newer"],
    "--restart": lambda _: ["always", "no", "on-failure", "unless-stopped"],
    "--volumes-from": _containers,
    "--interpreter": lambda _: ["bash", "node", "perl", "python3", "Rscript", "ruby", "sh"],
}
"""By flag: what it can be."""
