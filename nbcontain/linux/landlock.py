"""Landlock: what a process and its children can reach, whatever their root and rights (landlock(7))."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence

from nbcontain.linux import syscalls

_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""Every right to files that each version of the interface knows (linux/landlock.h)."""
_SCOPE_SOCKETS, _SCOPE_SIGNALS = 1, 2
_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY, _TRUNCATE, _DEVICE = 1, 2, 4, 8, 1 << 14, 1 << 15
_READING = _EXECUTE | _READ_FILE | _READ_DIRECTORY
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE
"""What can be allowed of something that is no directory."""


def version() -> int:
    """The kernel's version of the interface; 0 where there is none."""
    try:
        return syscalls.landlock_version()
    except OSError:
        return 0


def confine_to(
    path: str, others: Sequence[int] = (), readable: Sequence[int] = (), devices: Sequence[int] = ()
) -> bool:
    """From here on: only files below `path`, and, from version 6 on, signals and abstract sockets of one's own alone.

    `others` are directories, open, of which the same holds as of `path`; what is `readable`, directories or not, can be
    read and executed besides, and `devices` read and written. What is open stays open. False where the kernel has
    nothing of it. Takes no_new_privs, or CAP_SYS_ADMIN.
    """
    known = version()
    if known < 1:
        return False
    files = _FILE_RIGHTS[min(known, max(_FILE_RIGHTS))]
    scoped = _SCOPE_SOCKETS | _SCOPE_SIGNALS if known >= 6 else 0
    attributes = struct.pack("3Q", files, 0, scoped)
    size = 8 if known < 4 else 16 if known < 6 else 24
    rules = syscalls.landlock_ruleset(attributes[:size])
    try:
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            every = dict.fromkeys((place, *others), files)
            every |= dict.fromkeys(readable, _READING) | dict.fromkeys(devices, _OF_FILES & ~_EXECUTE)
            for each, rights in every.items():
                possible = files if stat.S_ISDIR(os.fstat(each).st_mode) else files & _OF_FILES
                syscalls.landlock_allow(rules, _BENEATH, struct.pack("=Qi", rights & possible, each))
        finally:
            os.close(place)
        syscalls.landlock_restrict(rules)
    finally:
        os.close(rules)
    return True
