"""Output as lines of a journal, written by the processor's own code: the same as `output_lines.parts` gives.

Python needs three to five passes through each byte, which is more than the kernel takes to hand it over twice.
"""

from __future__ import annotations

import ctypes
import os

from nbcontain.linux import pump_code

RECORD_BYTES = 8192
"""Longer output is cut into several lines of moderate size, as tools/pump.c does it."""
_GROWTH = 6
"""A byte becomes so many at most: \\\\u and four digits."""
_HEAD_BYTES, _SPARE_BYTES = 512, 16
_READ_WRITE, _READ_EXECUTE, _PRIVATE, _FAILED = 3, 5, 0x22, (1 << 64) - 1

_libc = ctypes.PyDLL(None, use_errno=True)
_word, _int, _pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
_mmap = _libc.mmap
_mmap.argtypes, _mmap.restype = (_pointer, _word, _int, _int, _int, ctypes.c_long), _word
_mprotect = _libc.mprotect
_mprotect.argtypes = (_pointer, _word, _int)
_Function = ctypes.PYFUNCTYPE(_word, _pointer, ctypes.c_char_p, _word, ctypes.c_char_p, _word)


class QuickLines:
    """Its code, and room for lines of so much output. Raises OSError where no code can be made, or none is known."""

    def __init__(self, size_bytes: int) -> None:
        code = pump_code.CODE.get(os.uname().machine)
        if code is None:
            raise OSError("no code is known for this processor")
        self._size_bytes = size_bytes
        # As much as can be needed, of which the kernel gives what is written to.
        self._records = -(-size_bytes // RECORD_BYTES)
        self._room = _GROWTH * size_bytes + _SPARE_BYTES + self._records * (_HEAD_BYTES + _SPARE_BYTES)
        self._place = _mapped(self._room)
        page = os.sysconf("SC_PAGESIZE")
        place = _mapped(-(-len(code) // page) * page)
        ctypes.memmove(place, code, len(code))
        if _mprotect(place, len(code), _READ_EXECUTE):
            raise _error()
        self._lines = _Function(place)
        self._view = memoryview((ctypes.c_char * self._room).from_address(self._place)).cast("B")

    def of(self, head: bytes, data: bytes) -> memoryview:
        """Lines that begin so, with this output; what is given is written over by the next call."""
        if len(data) > self._size_bytes or len(head) > _HEAD_BYTES:
            raise ValueError("more than there is room for")
        return self._view[: self._lines(self._place, head, len(head), data, len(data))]


def _mapped(size: int) -> int:
    place: int = _mmap(None, size, _READ_WRITE, _PRIVATE, -1, 0)
    if place == _FAILED:
        raise _error()
    return place


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
