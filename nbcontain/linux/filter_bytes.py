"""A compiled filter and how it is to be loaded, as one piece of memory. Pure.

Who compiles a filter loads none, and need not know how.
"""

from __future__ import annotations

import struct

_FLAGS = struct.Struct("=Q")


def packed(program: bytes, flags: int) -> bytes:
    """Both as one."""
    return _FLAGS.pack(flags) + program


def unpacked(seccomp: bytes) -> tuple[bytes, int]:
    """The inverse of `packed`."""
    (flags,) = _FLAGS.unpack_from(seccomp)
    return seccomp[_FLAGS.size :], flags
