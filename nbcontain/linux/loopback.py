"""The interface that every network namespace has, and that is down in a new one (netdevice(7))."""

from __future__ import annotations

import _socket as socket
import fcntl
import struct


def bring_up() -> None:
    """Bring `lo` up in this process's network namespace."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        request = fcntl.ioctl(any_socket.fileno(), get_flags, struct.pack("16sh22x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket.fileno(), set_flags, struct.pack("16sh22x", b"lo", flags | up))
    finally:
        any_socket.close()
