"""The mount of type "cgroup": what a container sees of control groups. Run by init.

As the machine has them: one hierarchy of version 2, or a directory with one for each of version 1 (and of both). In a
cgroup namespace of its own a container's group is the root of each; in the machine's it is what is mounted there.
"""

from __future__ import annotations

import os

from nbcontain.linux import syscalls, trees
from nbcontain.linux.mount_options import MountOptions
from nbcontain.oci.spec import Mount
from nbcontain.runtime import sources


def hierarchies() -> list[tuple[str, str, str]]:
    """Where this machine has them mounted, the type there, and the controllers with commas between them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        rows = [line.split(" - ") for line in lines]
    found = []
    for left, right in rows:
        kind, options = right.split()[0], right.split()[-1].split(",")
        if kind in ("cgroup", "cgroup2"):
            names = ",".join(each for each in options if each not in _NOT_CONTROLLERS)
            found.append((left.split()[4], kind, names))
    return found


_NOT_CONTROLLERS = frozenset(
    {"rw", "ro", "xattr", "clone_children", "nsdelegate", "memory_recursiveprot", "noprefix", "none"}
)


def tree(mount: Mount, options: MountOptions, *, has_own: bool) -> tuple[int, list[tuple[str, int]]]:
    """The mount itself, detached, and those for directories of it, by their names. Raises OSError."""
    places = hierarchies()
    if len(places) == 1 and places[0][1] == "cgroup2":
        return _hierarchy(*places[0], options, has_own=has_own), []
    within = []
    for place, kind, names in places:
        within.append((os.path.basename(place), _hierarchy(place, kind, names, options, has_own=has_own)))
    data = (("source", "tmpfs"), ("mode", "755"), ("size", "1m"))
    return syscalls.new_mount("tmpfs", data, options.set & ~syscalls.MOUNT_ATTR_RDONLY), within


def fill(root_fd: int, path: str, within: list[tuple[str, int]], options: MountOptions) -> None:
    """Put the hierarchies where they belong, now that the directory for them is mounted at `path`."""
    place = trees.open_in(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, mount_fd in within:
            os.mkdir(name, 0o755, dir_fd=place)
            trees.attach(mount_fd, os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place))
            for link in name.split(","):
                if link != name:
                    os.symlink(name, link, dir_fd=place)
        syscalls.mount_setattr(place, options.set)
    finally:
        os.close(place)


def _hierarchy(place: str, kind: str, names: str, options: MountOptions, *, has_own: bool) -> int:
    if has_own:
        words = tuple(
            (name, value if sign else None) for name, sign, value in (each.partition("=") for each in names.split(","))
        )
        try:
            source = ("source", "cgroup")
            return syscalls.new_mount(kind, (source, *words) if kind == "cgroup" else (source,), options.set)
        except OSError:
            # In a user namespace that may not; what is mounted here shows the same.
            pass
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        rows = [line.rstrip("\n").split(":", 2) for line in lines]
    wanted = "" if kind == "cgroup2" else names
    own = next((path for _, each, path in rows if set(each.split(",")) == set(wanted.split(","))), "/")
    there = place + ("" if has_own else own.rstrip("/"))
    return sources.tree(Mount("", "bind", there, ("bind",)), MountOptions(options.set))
