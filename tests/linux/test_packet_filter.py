"""Bridges need the kernel's packet filter, and a kernel without it is found to be one before anything is begun."""

from __future__ import annotations

import errno
import struct

import pytest

from nbcontain.linux import probe


class Netlink:
    """A kernel that answers so."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __call__(self, family: int, kind: int, protocol: int = 0) -> Netlink:
        if self._code == errno.EPROTONOSUPPORT:
            raise OSError(self._code, "Protocol not supported")
        return self

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        return struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -self._code) + bytes(16)


@pytest.mark.parametrize("code", [errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_kernel_without_nf_tables_has_no_bridges(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(probe.socket, "socket", Netlink(code))
    with pytest.raises(OSError, match="no nf_tables: ") as told:
        probe._packet_filter()
    assert told.value.errno == code
