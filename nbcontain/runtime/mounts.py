"""What a container sees besides its image: -v, --mount, --tmpfs and --volumes-from, read as docker reads them. Pure.

Whether what they name is there is looked up by the engine (`nbcontain.volumes`), which makes mounts of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from nbcontain.errors import UsageError
from nbcontain.options import option, with_defaults
from nbcontain.runtime.grants import tmpfs_options
from nbcontain.values import dataclass, field, replace

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_FLAGS = {
    "exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev",
}  # fmt: skip
"""What may be said of a bind or volume, and what it takes back."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_LIMIT = 512
"""As many mounts as one container may ask for: an image of thousands is no image of anybody's."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class MountOptions:
    """What `run` and `create` can be told of it."""

    volumes: tuple[str, ...] = option(
        "-v", "--volume", help="VOLUME or ./DIRECTORY:/path[:ro,U,O,…]; /path alone is an anonymous volume",
        metavar="[SOURCE:]PATH[:WORDS]",
    )  # fmt: skip
    mount: tuple[str, ...] = option(
        "--mount", help="type=bind|volume|tmpfs|image,source=…,target=/path[,readonly,…]", metavar="KEY=VALUE,…"
    )
    tmpfs: tuple[str, ...] = option(
        "--tmpfs", help="a directory in memory: /path[:size=64m,mode=1777,exec]", metavar="PATH"
    )
    volumes_from: tuple[str, ...] = option(
        "--volumes-from", help="the volumes and directories of that container too", metavar="CONTAINER[:ro]"
    )
    volume_driver: str = option("--volume-driver", help="local, which is the only one", metavar="DRIVER")


@dataclass(frozen=True, kw_only=True)
class MountPoint:
    """One thing that is to be mounted, as somebody asked for it."""

    said: str
    """The words that ask for it, for errors."""
    type: str
    """docker's word: bind, volume, tmpfs or image."""
    target: str
    source: str = ""
    """A path of this machine's, a volume's name or an image's; "" for an anonymous volume, and for tmpfs."""
    is_readonly: bool = False
    readonly_below: bool = True
    """Read-only includes what is mounted below the source."""
    recursive: bool = True
    """What is mounted below the source is there too."""
    propagation: str = ""
    subpath: str = ""
    """The part of a volume or image that is meant."""
    copies: bool = True
    """A volume that is empty is filled with what the image has there."""
    makes_source: bool = False
    """A directory that is missing is made, as for -v."""
    owns: bool = False
    """:U, all of it becomes the container's user's."""
    is_scratch: bool = False
    """:O, what is written goes elsewhere, and away with the container."""
    relabels: str = ""
    """SELinux's z or Z."""
    flags: tuple[str, ...] = ("nosuid", "nodev")
    driver: str = ""
    driver_options: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    tmpfs: tuple[str, ...] = ()
    """Options of a tmpfs."""
    of_image: bool = False
    """It is a VOLUME of the image."""

    @property
    def is_anonymous(self) -> bool:
        return self.type == "volume" and not self.source


def asked(options: MountOptions) -> tuple[MountPoint, ...]:
    """What the flags ask for. Raises UsageError, also where two ask for the same place."""
    found = [
        *(_of_volume(text, options.volume_driver) for text in options.volumes),
        *(of_mount(text, options.volume_driver) for text in options.mount),
        *(_of_tmpfs(text) for text in options.tmpfs),
    ]
    taken: set[str] = set()
    for each in found:
        if each.target in taken:
            raise UsageError(
                f"{each.said}: Duplicate mount point: {each.target}", why="something else is to be mounted there",
                hint="each place can be named once",
            )  # fmt: skip
        taken.add(each.target)
    return tuple(found)


def of_image(volumes: Sequence[str], taken: Sequence[str]) -> tuple[MountPoint, ...]:
    """An anonymous volume for each VOLUME of the image that nothing else is mounted at. Raises UsageError."""
    found = []
    for text in dict.fromkeys(volumes):
        said = f"the image's VOLUME {text!r}"
        target = checked_target(text, said)
        if target not in taken and target not in (each.target for each in found):
            found.append(MountPoint(said=said, type="volume", target=target, of_image=True))
    return tuple(found)


def checked(points: Sequence[MountPoint]) -> tuple[MountPoint, ...]:
    """The same, in an order in which what lies inside of another comes later. Raises UsageError for too many."""
    if len(points) > _LIMIT:
        raise UsageError(f"{len(points)} mounts are more than a container can have here", why=f"{_LIMIT} at most")
    return tuple(sorted(points, key=lambda each: each.target.count("/")))


def checked_target(path: str, said: str) -> str:
    """Where something may be mounted, without . and .. and doubled slashes. Raises UsageError."""
    if not path.startswith("/") or "\0" in path:
        raise UsageError(
            f"{said}: invalid mount path: {path!r} mount path must be absolute", hint="as in /data, inside"
        )
    # normpath keeps two slashes at the beginning.
    target = "/" + os.path.normpath(path).lstrip("/")
    if target == "/" or target.split("/")[1] in ("proc", "sys"):
        raise UsageError(f"{said}: {target} cannot be covered", why="/, /proc and /sys are the container's own")
    return target


# --- -v ---


def _of_volume(text: str, driver: str) -> MountPoint:
    """docker's -v: PATH, SOURCE:PATH or SOURCE:PATH:WORDS. Raises UsageError."""
    said = f"-v {text}"
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) > 1 and not parts[1]):
        raise UsageError(
            f"{said}: invalid volume specification", hint="-v NAME:/path, -v ./directory:/path[:ro], or -v /path"
        )
    if len(parts) == 1:
        return MountPoint(said=said, type="volume", target=checked_target(text, said), driver=checked_driver(driver))
    source, target, words = parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []
    if not target.startswith("/") and len(parts) == 2 and all(word in _WORDS for word in target.split(",")):
        raise UsageError(
            f"{said}: invalid volume specification", why=f"{target} says how, and not where",
            hint=f"-v SOURCE:{source}:{target}",
        )  # fmt: skip
    target = checked_target(target, said)
    if source[0] in "./~":
        path = os.path.expanduser(source)
        point = MountPoint(said=said, type="bind", source=path, target=target, makes_source=True)
    else:
        point = MountPoint(said=said, type="volume", source=source, target=target, driver=checked_driver(driver))
    for word in words:
        point = _with_word(point, word)
    _refuse_both(said, words)
    return _consistent(point)


_GROUPS = (
    ("ro", "rw", "rro"), ("z", "Z"), PROPAGATIONS, ("copy", "nocopy"), ("consistent", "cached", "delegated"),
    ("bind", "rbind"), ("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev"), ("U",), ("O",),
)  # fmt: skip
"""Words of which there can be one each."""
_WORDS = frozenset(word for group in _GROUPS for word in group)


def _refuse_both(said: str, words: Sequence[str]) -> None:
    for group in _GROUPS:
        if len(given := [word for word in words if word in group]) > 1:
            raise UsageError(f"{said}: invalid mode: {','.join(words)}", why=f"{' and '.join(given)} is one too many")


def _with_word(point: MountPoint, word: str) -> MountPoint:
    """A mount with one more of -v's words. Raises UsageError."""
    match word:
        case "ro" | "rro":
            return replace(point, is_readonly=True)
        case "rw" | "copy" | "consistent" | "cached" | "delegated":
            return point
        case "z" | "Z":
            return replace(point, relabels=word)
        case "nocopy" if point.type == "volume":
            return replace(point, copies=False)
        case "bind" | "rbind" if point.type == "bind":
            return replace(point, recursive=word == "rbind")
        case "U":
            return replace(point, owns=True)
        case "O" if point.type in ("bind", "volume"):
            return replace(point, is_scratch=True)
        case _ if word in PROPAGATIONS and point.type == "bind":
            return replace(point, propagation=word)
        case _ if word in _FLAGS:
            return _with_flag(point, word)
    known = "ro rw z Z U O exec suid dev" + (" nocopy" if point.type == "volume" else f" rbind {' '.join(PROPAGATIONS)}")
    raise UsageError(f"{point.said}: invalid mode: {word}", why=f"a {point.type} can have: {known}")


def _with_flag(point: MountPoint, word: str) -> MountPoint:
    flags = [flag for flag in point.flags if flag not in (word, _FLAGS[word])]
    return replace(point, flags=(*flags, *([word] if word.startswith("no") else [])))


def checked_driver(name: str) -> str:
    """A volume's driver, which can only be local. Raises UsageError."""
    if name not in ("", "local"):
        raise UsageError(
            f"error looking up volume plugin {name}: plugin {name!r} not found", why="there are no plugins here",
            hint="local, with volume-opt=type=…,volume-opt=device=…, mounts what this machine's kernel can",
        )  # fmt: skip
    return name


def _consistent(point: MountPoint) -> MountPoint:
    """Raises UsageError for what cannot be together."""
    if point.is_scratch and (point.owns or point.is_readonly):
        other = "U" if point.owns else "ro"
        raise UsageError(
            f"{point.said}: O and {other} cannot be together", why="O lays a scratch over what is there, which stays"
        )
    if point.is_scratch and point.propagation not in ("", "private", "rprivate"):
        raise UsageError(f"{point.said}: O and {point.propagation} cannot be together")
    return point


# --- --mount ---

_Change = Callable[[MountPoint, str], MountPoint]


def of_mount(text: str, driver: str = "") -> MountPoint:
    """docker's --mount: key=value, with commas between, as a line of CSV. Raises UsageError."""
    said = f"--mount {text}"
    pairs = [_pair(field_, said) for field_ in _fields(text, said)]
    kind = next((value.lower() for key, value in pairs if key == "type"), "volume")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        reason = {"npipe": "that is for Windows", "cluster": "there is no swarm here"}.get(kind, "")
        raise UsageError(
            f"{said}: invalid mount type {kind!r}", why=reason, hint="type=bind, volume, tmpfs or image"
        )
    point = MountPoint(said=said, type=kind, target="", driver=checked_driver(driver) if kind == "volume" else "")
    for key, value in pairs:
        point = _with_pair(point, key, value)
    if not point.target:
        raise UsageError(f"{said}: target is required", hint="target=/path, inside the container")
    if kind in ("bind", "image") and not point.source:
        raise UsageError(f"{said}: source is required", hint=f"source={'IMAGE' if kind == 'image' else '/directory'}")
    if kind == "tmpfs":
        if point.source:
            raise UsageError(f"{said}: cannot specify 'source' for a tmpfs", why="it begins empty, in memory")
        access = ("ro",) if point.is_readonly else ()
        point = replace(point, tmpfs=tmpfs_options((*point.tmpfs, *access), said))
    if kind == "image" and not any(key in ("rw", "readwrite", "ro", "readonly") for key, _ in pairs):
        point = replace(point, is_readonly=True)
    return _consistent(_with_recursion(point, pairs))


def _fields(text: str, said: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"{said}: that cannot be read", why=str(error)) from None
    if len(rows) != 1 or not text:
        raise UsageError(f"{said}: that is no mount", hint="--mount type=bind,source=./data,target=/data")
    return rows[0]


_BARE = frozenset({"readonly", "ro", "rw", "readwrite", "volume-nocopy", "bind-nonrecursive", "u", "chown", "scratch",
                   "exec", "noexec", "suid", "nosuid", "dev", "nodev", "no-dereference"})  # fmt: skip
"""Keys that can stand alone."""
_ALIASES = {
    "src": "source", "dst": "target", "destination": "target", "ro": "readonly", "readwrite": "rw", "chown": "u",
    "subpath": "volume-subpath", "propagation": "bind-propagation",
}  # fmt: skip


def _pair(text: str, said: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    key = key.strip().lower()
    if not equals:
        if key not in _BARE:
            raise UsageError(f"{said}: invalid field {text!r} must be a key=value pair")
        value = "true"
    elif not value and key not in ("bind-propagation", "consistency"):
        raise UsageError(f"{said}: invalid value for {key!r}: value is empty")
    return _ALIASES.get(key, key), value


def _with_pair(point: MountPoint, key: str, value: str) -> MountPoint:
    """A mount with one more of --mount's pairs. Raises UsageError."""
    prefix = key.partition("-")[0]
    if prefix in ("bind", "volume", "tmpfs", "image") and key in _KEYS and prefix != point.type:
        if key == "volume-subpath" and point.type == "image":
            key = "image-subpath"
        else:
            raise UsageError(f"{point.said}: cannot mix '{prefix}-*' options with mount type {point.type!r}")
    change = _KEYS.get(key)
    if change is None:
        from difflib import get_close_matches

        near = get_close_matches(key, _KEYS, 1)
        hint = f"did you mean {near[0]}?" if near else "keys: " + " ".join(sorted(_KEYS))
        raise UsageError(f"{point.said}: unexpected key {key!r} in '{key}={value}'", hint=hint)
    return change(point, value)


def _flag(text: str, key: str, point: MountPoint) -> bool:
    """A truth as Go reads it (strconv.ParseBool). Raises UsageError."""
    told = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if text.lower() not in told:
        raise UsageError(f"{point.said}: invalid value for {key}: {text}", hint=f"{key}, or {key}=false")
    return told[text.lower()]


def _source(point: MountPoint, value: str) -> MountPoint:
    return replace(point, source=os.path.expanduser(value) if point.type == "bind" else value)


def _propagation(point: MountPoint, value: str) -> MountPoint:
    if value and value not in PROPAGATIONS:
        raise UsageError(f"{point.said}: invalid propagation mode: {value}", hint=" ".join(PROPAGATIONS))
    return replace(point, propagation=value)


def _recursion(point: MountPoint, value: str) -> MountPoint:
    match value:
        case "enabled" | "readonly":
            return replace(point, recursive=True)
        case "writable":
            return replace(point, readonly_below=False)
        case "disabled":
            return replace(point, recursive=False)
    raise UsageError(
        f"{point.said}: invalid value for bind-recursive: {value}", hint="enabled, disabled, writable or readonly"
    )


def _with_recursion(point: MountPoint, pairs: Sequence[tuple[str, str]]) -> MountPoint:
    how = dict(pairs).get("bind-recursive", "")
    if how in ("readonly", "writable") and not point.is_readonly:
        raise UsageError(
            f"{point.said}: option 'bind-recursive={how}' requires 'readonly' to be specified in conjunction"
        )
    if how == "readonly" and point.propagation != "rprivate":
        raise UsageError(
            f"{point.said}: option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in "
            "conjunction"
        )
    return point


def _subpath(point: MountPoint, value: str) -> MountPoint:
    """A path below the volume, which its symlinks cannot lead out of either: the kernel sees to that."""
    if value.startswith("/") or ".." in value.split("/") or "\0" in value:
        raise UsageError(
            f"{point.said}: invalid subpath {value!r}", why="it has to be a relative path within the volume"
        )
    return replace(point, subpath=os.path.normpath(value))


def _option(point: MountPoint, value: str) -> MountPoint:
    name, equals, text = value.partition("=")
    if not equals:
        raise UsageError(f"{point.said}: invalid value for volume-opt: {value}", hint="volume-opt=type=tmpfs")
    return replace(point, driver_options={**point.driver_options, name: text})


def _label(point: MountPoint, value: str) -> MountPoint:
    name, _, text = value.partition("=")
    return replace(point, labels={**point.labels, name: text})


def _relabel(point: MountPoint, value: str) -> MountPoint:
    if value not in ("shared", "private"):
        raise UsageError(f"{point.said}: invalid value for relabel: {value}", hint="shared, or private")
    return replace(point, relabels="z" if value == "shared" else "Z")


def _tmpfs_size(point: MountPoint, value: str) -> MountPoint:
    if not re.fullmatch(r"\d+([kmgt]i?)?b?", value, re.IGNORECASE):
        raise UsageError(f"{point.said}: invalid value for tmpfs-size: {value}", hint="tmpfs-size=64m")
    return replace(point, tmpfs=(*point.tmpfs, f"size={value.lower().replace('i', '').removesuffix('b') or '0'}"))


def _tmpfs_mode(point: MountPoint, value: str) -> MountPoint:
    if not re.fullmatch("[0-7]{1,4}", value):
        raise UsageError(f"{point.said}: invalid value for tmpfs-mode: {value}", hint="tmpfs-mode=1777")
    return replace(point, tmpfs=(*point.tmpfs, f"mode={value.rjust(3, '0')}"))


def _consistency(point: MountPoint, value: str) -> MountPoint:
    if value not in ("", "default", "consistent", "cached", "delegated"):
        raise UsageError(f"{point.said}: invalid value for consistency: {value}")
    return point


def _flagged(word: str) -> _Change:
    def change(point: MountPoint, value: str) -> MountPoint:
        return _with_flag(point, word if _flag(value, word, point) else _FLAGS[word])

    return change


_KEYS: Mapping[str, _Change] = {
    "type": lambda point, value: point,
    "source": _source,
    "target": lambda point, value: replace(point, target=checked_target(value, point.said)),
    "readonly": lambda point, value: replace(point, is_readonly=_flag(value, "readonly", point)),
    "rw": lambda point, value: replace(point, is_readonly=not _flag(value, "rw", point)),
    "consistency": _consistency,
    "bind-propagation": _propagation,
    "bind-nonrecursive": lambda point, value: replace(point, recursive=not _flag(value, "bind-nonrecursive", point)),
    "bind-recursive": _recursion,
    "bind-create-src": lambda point, value: replace(point, makes_source=_flag(value, "bind-create-src", point)),
    "volume-nocopy": lambda point, value: replace(point, copies=not _flag(value, "volume-nocopy", point)),
    "volume-subpath": _subpath,
    "volume-label": _label,
    "volume-driver": lambda point, value: replace(point, driver=checked_driver(value)),
    "volume-opt": _option,
    "tmpfs-size": _tmpfs_size,
    "tmpfs-mode": _tmpfs_mode,
    "image-subpath": _subpath,
    "relabel": _relabel,
    "u": lambda point, value: replace(point, owns=_flag(value, "U", point)),
    "scratch": lambda point, value: replace(point, is_scratch=_flag(value, "scratch", point)),
    **{word: _flagged(word) for word in _FLAGS},
}


# --- --tmpfs and --volumes-from ---


def _of_tmpfs(text: str) -> MountPoint:
    said = f"--tmpfs {text}"
    path, _, words = text.partition(":")
    target = checked_target(path, said)
    return MountPoint(
        said=said, type="tmpfs", target=target, tmpfs=tmpfs_options(tuple(filter(None, words.split(","))), said)
    )


def of_container(word: str) -> tuple[str, str]:
    """--volumes-from: the container, and "ro", "rw" or nothing. Raises UsageError."""
    name, _, text = word.partition(":")
    words = [each for each in text.split(",") if each]
    if not name or any(each not in ("ro", "rw", "z", "Z") for each in words) or {"ro", "rw"} <= set(words):
        raise UsageError(f"--volumes-from {word}: that is no container", hint="--volumes-from NAME, or NAME:ro")
    return name, "ro" if "ro" in words else "rw" if "rw" in words else ""


# --- what is kept of them ---


def record(point: MountPoint, *, name: str, source: str, destination_options: Sequence[str]) -> dict[str, object]:
    """What a container's record says of a mount, in docker's names, for inspect and for --volumes-from."""
    mode = ",".join(destination_options)
    said: dict[str, object] = {
        "Type": point.type, "Source": source, "Destination": point.target, "Mode": mode, "RW": not point.is_readonly,
        "Propagation": point.propagation or ("rprivate" if point.type == "bind" else ""),
    }  # fmt: skip
    if point.type == "volume":
        said |= {"Name": name, "Driver": point.driver or "local", "Anonymous": point.is_anonymous}
    more = {
        "Subpath": point.subpath, "Scratch": point.is_scratch, "NonRecursive": not point.recursive,
        "WritableBelow": not point.readonly_below, "Tmpfs": list(point.tmpfs),
        "Flags": list(point.flags) if point.flags != ("nosuid", "nodev") else [],
    }  # fmt: skip
    return said | {key: value for key, value in more.items() if value}


def from_record(said: Mapping[str, object], word: str, access: str) -> MountPoint | None:
    """The same mount for another container (--volumes-from); None for what is not shared: memory and images."""
    kind = str(said.get("Type", ""))
    if kind not in ("bind", "volume"):
        return None
    flags = said.get("Flags")
    return MountPoint(
        said=f"--volumes-from {word}", type=kind, target=str(said["Destination"]),
        source=str(said["Name"] if kind == "volume" else said["Source"]),
        is_readonly=access == "ro" or (not said.get("RW", True) and access != "rw"),
        readonly_below=not said.get("WritableBelow"), recursive=not said.get("NonRecursive"),
        propagation=str(said.get("Propagation", "")) if kind == "bind" else "", subpath=str(said.get("Subpath", "")),
        is_scratch=bool(said.get("Scratch")), copies=False,
        flags=tuple(map(str, flags)) if isinstance(flags, list) else ("nosuid", "nodev"),
    )  # fmt: skip
