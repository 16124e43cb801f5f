"""Where binds come from: copies of mounts, made before the container leaves the host's mounts or by itself after that.

What is to be shared with the host, or shown with other ids, has to be taken by somebody who is of the host: the
supervisor, or whoever stands in its place. Everything else init takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nbcontain.errors import SetupFailed
from nbcontain.linux import mount_options, syscalls, trees
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.mount_options import MountOptions
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime.annotations import OF, PART

_MOST = 200
"""One packet carries 253 descriptors."""


def tree(mount: Mount, options: MountOptions, user_ns: int = -1) -> int:
    """A detached copy of what a bind shows, with its attributes. Raises OSError. `user_ns` maps its ids."""
    nofollow = os.O_NOFOLLOW if options.words & {"src-nofollow", "copy-symlink"} else 0
    source = os.open(mount.source, os.O_PATH | os.O_CLOEXEC | nofollow)
    return part(source, mount, options, user_ns)


def part(tree_fd: int, mount: Mount, options: MountOptions, user_ns: int = -1) -> int:
    """A copy of the mount at `tree_fd`, which is closed: from the path in it on that the option PART names."""
    name = next((option.removeprefix(PART) for option in mount.options if option.startswith(PART)), "")
    source = tree_fd
    try:
        if name:
            source = trees.open_in(tree_fd, name)
        fd = syscalls.open_tree(source, recursive="rbind" in options.words)
    except OSError as error:
        error.filename = mount.source
        raise
    finally:
        for each in {source, tree_fd}:
            os.close(each)
    try:
        set_attributes(fd, options, user_ns)
    except OSError as error:
        os.close(fd)
        error.filename = mount.source
        raise
    return fd


def set_attributes(fd: int, options: MountOptions, user_ns: int = -1) -> None:
    """What a mount's options say of it, and of those below it (mount_setattr(2)). Raises OSError."""
    if user_ns >= 0:
        recursive = "ridmap" in options.words
        syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_IDMAP, recursive=recursive, user_ns=user_ns)
    if options.set or options.clear:
        syscalls.mount_setattr(fd, options.set, options.clear)
    if options.deep_set or options.deep_clear:
        syscalls.mount_setattr(fd, options.deep_set, options.deep_clear, recursive=True)
    # What is not to be shared with where it comes from is nobody else's business.
    recursive = "rbind" in options.words
    if not options.crosses:
        syscalls.mount_setattr(fd, 0, propagation=syscalls.MS_PRIVATE, recursive=recursive)
    if options.propagation:
        syscalls.mount_setattr(fd, 0, propagation=options.propagation & ~syscalls.MS_REC, recursive=recursive)


def need_host(spec: Spec) -> bool:
    """Whether there is a mount that only somebody of the host can take."""
    return any(_needs_host(mount) for mount in spec.mounts)


def opened(
    spec: Spec, user_namespace: Callable[[IdMap], int], *, own_map: str = "", every: bool = False
) -> dict[int, int]:
    """Supervisor: descriptors of the binds that init could not take itself (or of `every` one), by their place.

    `user_namespace` makes one with a map; `own_map` is the file of the container's, for "idmap" without one.
    Raises SetupFailed.
    """
    found: dict[int, int] = {}
    try:
        for number, mount in enumerate(spec.mounts):
            if not (_needs_host(mount) or every) or len(found) >= _MOST:
                continue
            options = mount_options.parse(mount.options, PART)
            if mount.type != "bind" and not options.is_bind:
                continue
            found[number] = _opened(mount, options, user_namespace, own_map)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def refused(mount: Mount, error: OSError, named: str) -> SetupFailed:
    """What to raise where the kernel refuses a mount; `named` stands for a file that the error does not name."""
    return SetupFailed(
        f"cannot mount {mount.source or mount.type} for {mount.destination}",
        errno=error.errno,
        path=mount.source,
        why=f"{os.fsdecode(error.filename or named)}: {error.strerror}",
    )


def _needs_host(mount: Mount) -> bool:
    return bool(mount.uid_mappings) or any(
        word in ("idmap", "ridmap", "shared", "rshared", "slave", "rslave") or word.startswith(OF)
        for word in mount.options
    )


def _opened(mount: Mount, options: MountOptions, user_namespace: Callable[[IdMap], int], own_map: str) -> int:
    user_ns = -1
    try:
        if owner := next((word.removeprefix(OF) for word in mount.options if word.startswith(OF)), ""):
            from nbcontain.runtime import joins

            return joins.tree_of(owner, mount.source, options.set)
        if mount.uid_mappings:
            user_ns = user_namespace(IdMap(mount.uid_mappings, mount.gid_mappings))
        elif options.words & {"idmap", "ridmap"}:
            if not own_map:
                raise SetupFailed(f"cannot mount {mount.source} with other ids", why="there is no map of ids for it")
            user_ns = os.open(own_map, os.O_RDONLY | os.O_CLOEXEC)
        return tree(mount, options, user_ns)
    except OSError as error:
        raise refused(mount, error, mount.source) from error
    finally:
        if user_ns >= 0:
            os.close(user_ns)
