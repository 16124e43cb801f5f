"""What a container sees besides its image: -v, --mount, --tmpfs and --volumes-from, read as docker reads them. Pure.

Whether what they name is there is looked up by the engine (`nbcontain.mounting`), which makes mounts of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from nbcontain.errors import UsageError
from nbcontain.options import option, with_defaults
from nbcontain.runtime.grants import tmpfs_options
from nbcontain.runtime.mount_keys import of_mount
from nbcontain.runtime.mount_points import (
    FLAGS,
    PROPAGATIONS,
    MountPoint,
    checked_driver,
    checked_target,
    consistent,
    with_flag,
)
from nbcontain.values import dataclass, replace

_LIMIT = 512
"""As many mounts as one container may ask for: an image of thousands is no image of anybody's."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class MountOptions:
    """What `run` and `create` can be told of it."""

    heading = "volumes and mounts"

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
    found: list[MountPoint] = []
    for text in dict.fromkeys(volumes):
        said = f"the image's VOLUME {text!r}"
        target = checked_target(text, said)
        if target not in taken and target not in (each.target for each in found):
            found.append(MountPoint(said=said, type="volume", target=target))
    return tuple(found)


def checked(points: Sequence[MountPoint]) -> tuple[MountPoint, ...]:
    """The same, in an order in which what lies inside of another comes later. Raises UsageError for too many."""
    if len(points) > _LIMIT:
        raise UsageError(f"{len(points)} mounts are more than a container can have here", why=f"{_LIMIT} at most")
    return tuple(sorted(points, key=lambda each: each.target.count("/")))


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
    return consistent(point)


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
        case _ if word in FLAGS:
            return with_flag(point, word)
    more = "nocopy" if point.type == "volume" else f"rbind {' '.join(PROPAGATIONS)}"
    known = f"ro rw z Z U O exec suid dev {more}"
    raise UsageError(f"{point.said}: invalid mode: {word}", why=f"a {point.type} can have: {known}")


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
