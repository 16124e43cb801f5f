"""docker's --mount: which keys there are, what else they are called, and what each says of a mount. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from nbcontain.errors import UsageError, did_you_mean
from nbcontain.runtime.grants import tmpfs_options
from nbcontain.runtime.mount_points import (
    FLAGS,
    PROPAGATIONS,
    MountPoint,
    checked_driver,
    checked_target,
    consistent,
    with_flag,
)
from nbcontain.values import replace

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
    return consistent(_with_recursion(point, pairs))


def _fields(text: str, said: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"{said}: that cannot be read", why=str(error)) from None
    if '"' in "".join(rows[0] if rows else ()) and '""' not in text:
        raise UsageError(f"{said}: that cannot be read", why='bare " in a field', hint='quote all of it: "key=a,b"')
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
        hint = did_you_mean(key, _KEYS, "keys: " + " ".join(sorted(_KEYS)))
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
        return with_flag(point, word if _flag(value, word, point) else FLAGS[word])

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
    **{word: _flagged(word) for word in FLAGS},
}
