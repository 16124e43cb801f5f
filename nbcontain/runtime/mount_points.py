"""One thing that is mounted into a container, as somebody asked for it. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from nbcontain.errors import UsageError
from nbcontain.values import dataclass, field, replace

SCRATCH = "scratch"
"""The directory of a bundle that holds what is written to its scratches (:O)."""
WORK = "nbcontain.runtime.volume_work"
"""Whose functions are run where the owners of a volume's files are known."""
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
FLAGS = {
    "exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev",
}  # fmt: skip
"""What may be said of a bind or volume, and what it takes back."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


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

    @property
    def is_anonymous(self) -> bool:
        return self.type == "volume" and not self.source


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


def with_flag(point: MountPoint, word: str) -> MountPoint:
    """A mount with one of FLAGS more, and without its contrary."""
    flags = [flag for flag in point.flags if flag not in (word, FLAGS[word])]
    return replace(point, flags=(*flags, *([word] if word.startswith("no") else [])))


def checked_driver(name: str) -> str:
    """A volume's driver, which can only be local. Raises UsageError."""
    if name not in ("", "local"):
        raise UsageError(
            f"error looking up volume plugin {name}: plugin {name!r} not found", why="there are no plugins here",
            hint="local, with volume-opt=type=…,volume-opt=device=…, mounts what this machine's kernel can",
        )  # fmt: skip
    return name


def consistent(point: MountPoint) -> MountPoint:
    """The same mount. Raises UsageError for what cannot be together."""
    if point.is_scratch and (point.owns or point.is_readonly):
        other = "U" if point.owns else "ro"
        raise UsageError(
            f"{point.said}: O and {other} cannot be together", why="O lays a scratch over what is there, which stays"
        )
    if point.is_scratch and point.propagation not in ("", "private", "rprivate"):
        raise UsageError(f"{point.said}: O and {point.propagation} cannot be together")
    return point
