"""Devices by their vendors' names: files of the Container Device Interface (CDI's SPEC.md, 0.3 to 1.x).

What a file says is done as far as it is device nodes, mounts, variables and groups. Its hooks are programs that would
run with the engine's rights while the container is half made; they are not run (CVE-2025-23266), and that is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.errors import BadDocument, UsageError
from nbcontain.oci import strict_json
from nbcontain.oci.spec import Mount
from nbcontain.oci.strict_json import Fields
from nbcontain.values import dataclass

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""Of two files that have the same device, the one in the later directory counts."""
PLACES = "NBCONTAIN_CDI_DIRS"
"""A variable that names other directories, with colons between."""
_NAME = re.compile(r"(?P<kind>[A-Za-z][\w.-]*[A-Za-z0-9]/[A-Za-z][\w-]*)=(?P<name>[A-Za-z0-9][\w.:-]*|all)")
_LIMIT_BYTES = 4 << 20
_OUR_OWN = ("LD_", "PATH=", "HOME=", "GCONV_PATH=", "BASH_ENV=", "PYTHON")
"""Variables that decide which code a program runs: no device's business."""


@dataclass(frozen=True, slots=True)
class Edits:
    """What devices bring along."""

    mounts: tuple[Mount, ...] = ()
    env: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was left out, for people."""


def is_name(word: str) -> bool:
    """Whether --device's word is the name of such a device, and no path."""
    return _NAME.fullmatch(word) is not None


def of_gpus(word: str) -> tuple[str, ...]:
    """docker's --gpus as names of devices: all, a number, or device=0,1. Raises UsageError."""
    if word == "":
        return ()
    pairs = dict(part.partition("=")[::2] for part in re.split(r",(?=[a-z]+=)", word.strip('"')))
    if "device" in pairs:
        names = [each for each in pairs["device"].strip('"').split(",") if each]
    elif word == "all" or pairs.get("count") in ("all", "-1"):
        names = ["all"]
    elif (count := pairs.get("count", word)).isdecimal():
        names = [str(number) for number in range(int(count))]
    elif set(pairs) <= {"driver", "capabilities", "options"}:
        names = ["all"]
    else:
        names = []
    if not names or not all(is_name(f"nvidia.com/gpu={each}") for each in names):
        raise UsageError(f"--gpus {word}: that is no choice of GPUs", hint="--gpus all, --gpus 2, or --gpus device=0,1")
    return tuple(f"nvidia.com/gpu={each}" for each in names)


def edits(names: Sequence[str], environ: Mapping[str, str], *, asked: str = "--device") -> Edits:
    """What these devices bring along. Raises UsageError for one that no file has, and for files that are none."""
    if not names:
        return Edits()
    places = _places(environ)
    known, general, unreadable = _known(places)
    parts: list[Fields] = []
    seen: set[Path] = set()
    for name in dict.fromkeys(names):
        found = known.get(name)
        if found is None:
            raise _missing(name, known, places, unreadable, asked)
        path, device = found
        if path not in seen:
            seen.add(path)
            parts.append(general[path])
        parts.append(device)
    return _together(parts, names)


def chosen(word: str, environ: Mapping[str, str], *, required: bool) -> tuple[str, ...]:
    """The devices that RUN --device means: one by its name, KIND=* for all of a kind, or KIND for the first of it.

    What is not there is as it is for BuildKit: nothing, unless it is `required`. Raises UsageError then.
    """
    known, _, unreadable = _known(_places(environ))
    kind, equals, name = word.partition("=")
    found = [each for each in known if each == word or (each.startswith(f"{kind}=") and name in ("", "*"))]
    if not found and required:
        raise _missing(word, known, _places(environ), unreadable, "RUN --device")
    return tuple(found if equals else found[:1])


def _places(environ: Mapping[str, str]) -> list[Path]:
    return [Path(each) for each in environ.get(PLACES, ":".join(DIRECTORIES)).split(":") if each]


def _known(
    places: Sequence[Path],
) -> tuple[dict[str, tuple[Path, Fields]], dict[Path, Fields], list[str]]:
    known: dict[str, tuple[Path, Fields]] = {}
    general: dict[Path, Fields] = {}
    unreadable: list[str] = []
    for place in places:
        here: dict[str, tuple[Path, Fields]] = {}
        try:
            paths = sorted(place.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable.append(f"{place}: {error.strerror}")
            continue
        for path in paths:
            if path.suffix not in (".json", ".yaml", ".yml"):
                continue
            try:
                top = _read(path)
                kind = top.text("kind", required=True)
                version = top.text("cdiVersion", required=True)
                if not re.fullmatch(r"(0\.[3-9]|1)\.\d+(\.\d+)?", version):
                    raise BadDocument(f"cdiVersion {version} is not known")
                general[path] = top.object("containerEdits")
                for each in top.objects("devices", required=True):
                    name = f"{kind}={each.text('name', required=True)}"
                    if name in here:
                        raise UsageError(f"{name} is in two files", why=f"{here[name][0]} and {path}")
                    here[name] = (path, each.object("containerEdits"))
            except (OSError, BadDocument) as error:
                unreadable.append(f"{path}: {getattr(error, 'message', error)}")
        known |= here
    return known, general, unreadable


def _read(path: Path) -> Fields:
    with path.open("rb") as file:
        data = file.read(_LIMIT_BYTES + 1)
    if path.suffix == ".json":
        return strict_json.load(data, path.name)
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        document: Any = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise BadDocument(str(error)) from error
    return Fields(document, path.name)


def _missing(
    name: str, known: Mapping[str, object], places: Sequence[Path], unreadable: Sequence[str], asked: str
) -> UsageError:
    where = " and ".join(map(str, places))
    if asked == "--gpus":
        message, hint = (
            "could not select device driver with capabilities: [[gpu]]",
            "as root, with NVIDIA's driver here: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    else:
        message, hint = f"unresolvable CDI device {name}", "there are " + (", ".join(sorted(known)) or "none")
    why = "; ".join(unreadable) or f"no file in {where} has {name}"
    return UsageError(f"{asked} {name}: {message}", why=why, hint=hint)


def _together(parts: Sequence[Fields], names: Sequence[str]) -> Edits:
    mounts: dict[str, Mount] = {}
    env, groups, remarks = [], [], []
    for part in parts:
        for node in part.objects("deviceNodes"):
            path = _absolute(node.text("path", required=True), node)
            source = node.text("hostPath") or path
            mounts[path] = Mount(path, "bind", source, ("bind", "nosuid", "noexec", "ro"))
        for mount in part.objects("mounts"):
            path = _absolute(mount.text("containerPath", required=True), mount)
            mounts[path] = _bind(mount, path)
        for variable in part.texts("env") or ():
            if "=" not in variable or variable.startswith(_OUR_OWN):
                remarks.append(f"its variable {variable.partition('=')[0]} is not set")
            else:
                env.append(variable)
        groups += [str(each) for each in part.counts("additionalGids")]
        hooks = sorted({Path(hook.text("path")).name for hook in part.objects("hooks")})
        if hooks:
            remarks.append(f"its hooks ({', '.join(hooks)}) are not run: programs of a device's file never are here")
    told = tuple(f"{', '.join(names)}: {each}" for each in dict.fromkeys(remarks))
    return Edits(tuple(mounts.values()), tuple(env), tuple(dict.fromkeys(groups)), told)


def _bind(mount: Fields, path: str) -> Mount:
    """Files of the host's, to be looked at; a socket among them can be spoken to all the same."""
    source = _absolute(mount.text("hostPath", required=True), mount)
    if mount.text("type") not in ("", "bind", "none"):
        raise UsageError(f"{mount.place}: a mount of type {mount.text('type')}", why="a device's file gives binds here")
    words = mount.texts("options") or ()
    deep = "rbind" in words
    flags = ("rro", "rnosuid", "rnodev") if deep else ("ro", "nosuid", "nodev")
    more = ["noexec"] if "noexec" in words else []
    return Mount(path, "bind", source, ("rbind" if deep else "bind", *flags, *more))


def _absolute(path: str, fields: Fields) -> str:
    target = "/" + os.path.normpath(path).lstrip("/")
    if not path.startswith("/") or "\0" in path or target == "/" or target.split("/")[1] in ("proc", "sys"):
        raise UsageError(f"{fields.place}: {path!r} is no place for a device")
    return target
