"""Where a kernel and whoever talks to it meet: a directory that is this user's alone, with one for sockets in it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import NbcontainError, Unavailable
from nbcontain.host import is_root
from nbcontain.oci.spec import Mount
from nbcontain.runtime.kernel_work import NAME as WORK
from nbcontain.store import files, removal

if TYPE_CHECKING:
    from nbcontain.runtime.launcher import Launcher

SOCKETS = "/run/nbcontain-kernel"
"""Where the container sees the sockets' directory."""
CONNECTION = f"{SOCKETS}/connection.json"
_SOCKETS = "s"
_PREFIX = "k"
"""Sockets are called k-1 to k-5, as Jupyter numbers them."""
_LONGEST = 107
"""Bytes in the path of a socket (unix(7)); the last one is a NUL."""
_KINDS = 5
_LOOK_S = 0.05


class KernelPlace:
    """One kernel's directory, held by this process: `sockets` is what its container sees of it."""

    def __init__(self, directory: Path, held: ExitStack, remove_tree: Callable[[Path], None]) -> None:
        self.directory = directory
        self.sockets = directory / _SOCKETS
        self._held = held
        self._remove_tree = remove_tree

    @classmethod
    def make(cls, environ: Mapping[str, str], remove_tree: Callable[[Path], None]) -> KernelPlace:
        """A new one, below this user's runtime directory; those whose holders died are removed.

        `remove_tree` removes what belongs to ids of containers. Raises Unavailable where there is no place.
        """
        base = _base(environ)
        for left in files.sweep(base):
            # What cannot be removed keeps no new kernel from its place.
            with suppress(OSError, NbcontainError):
                _removed(left, remove_tree)
        with ExitStack() as stack:
            directory = stack.enter_context(files.temporary_directory(base))
            # Whoever runs in the container may be nobody here: to come this far is the user alone, which is enough.
            files.make_new_directory(directory / _SOCKETS, 0o711)
            return cls(directory, stack.pop_all(), remove_tree)

    @property
    def ip(self) -> str:
        """What Jupyter calls an address: the beginning of the sockets' paths."""
        return str(self.sockets / _PREFIX)

    def write_connection(self, info: Mapping[str, Any]) -> None:
        """The connection file that the kernel reads, with its own view of the addresses."""
        key = info["key"]
        told = {**info, "ip": f"{SOCKETS}/{_PREFIX}", "key": key.decode() if isinstance(key, bytes) else key}
        files.replace(self.sockets / "connection.json", json.dumps(told).encode(), durable=False)

    def open(self, launcher: Launcher, goes_on: Callable[[], bool]) -> None:
        """Wait until the kernel has made its sockets, and see to it that they can be connected to.

        There is nothing to do where they are this user's, or root's to open; nor once the kernel is gone.
        """
        if is_root():
            return
        while goes_on():
            try:
                owners = {os.lstat(f"{self.ip}-{number}").st_uid for number in range(1, _KINDS + 1)}
            except FileNotFoundError:
                time.sleep(_LOOK_S)
                continue
            if owners != {os.getuid()}:
                world = (Mount("/", "bind", str(self.sockets), ("bind",)),)
                launcher.call("open_sockets", world, {}, imports=(WORK,))
            return

    def clear(self) -> None:
        """Away with what a kernel left, for the next one to begin."""
        _removed(self.sockets, self._remove_tree)
        files.make_new_directory(self.sockets, 0o711)

    def remove(self) -> None:
        """Away with all of it. Any number of times."""
        _removed(self.directory, self._remove_tree)
        self._held.close()


def _removed(path: Path, remove_tree: Callable[[Path], None]) -> None:
    try:
        removal.remove_tree(path)
    except PermissionError:
        remove_tree(path)


def _base(environ: Mapping[str, str]) -> Path:
    """The directory that holds all of this user's: in $XDG_RUNTIME_DIR, or in a temporary directory."""
    why = ""
    for above in filter(None, (environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), "/tmp")):
        name = "nbcontain" if above == environ.get("XDG_RUNTIME_DIR") else f"nbcontain-{os.getuid()}"
        base = Path(above).absolute() / name
        if len(f"{base}/.tmp-{'0' * 16}/s/{_PREFIX}-5".encode()) >= _LONGEST or ":" in str(base):
            why = f"{base}: a socket's path cannot be that"
            continue
        with suppress(OSError):
            files.make_directory(base, durable=False)
        try:
            found = base.lstat()
        except OSError as error:
            why = f"{base}: {error.strerror}"
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
            return base
        why = f"{base} is somebody else's, or open to others"
    raise Unavailable("there is no place for a kernel's sockets", why=why, hint="set XDG_RUNTIME_DIR or TMPDIR")
