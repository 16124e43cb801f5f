"""Memory of this process with the processor's own code in it. Some machines let nobody make that."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# Unlike CDLL it keeps Python's lock, and does not look for threads: a forked child has but one.
_libc = ctypes.PyDLL(None, use_errno=True)
_mmap, _mprotect, _munmap = _libc.mmap, _libc.mprotect, _libc.munmap
_word, _int, _pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
_mmap.argtypes, _mmap.restype = (_pointer, _word, _int, _int, _int, ctypes.c_long), _word
_mprotect.argtypes = (_pointer, _word, _int)
_munmap.argtypes = (_pointer, _word)
_get_buffer, _release_buffer = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
_get_buffer.argtypes = (ctypes.py_object, _pointer, _int)
_release_buffer.argtypes, _release_buffer.restype = (_pointer,), None
_BUFFER_WORDS = 16
"""More than a Py_buffer has (Python's C API), whose first one is an address."""
_READ_WRITE, _READ_EXECUTE, _PRIVATE, _FAILED = 3, 5, 0x22, (1 << 64) - 1


def pages(size_bytes: int) -> int:
    """So many bytes, rounded up to whole pages."""
    page = os.sysconf("SC_PAGESIZE")
    return -(-size_bytes // page) * page


def mapped(size_bytes: int) -> int:
    """The address of new memory, which begins at a page, and is all zeros. Raises OSError."""
    place: int = _mmap(None, size_bytes, _READ_WRITE, _PRIVATE, -1, 0)
    if place == _FAILED:
        raise _error()
    return place


def make_code(place: int, code: bytes) -> None:
    """Have this be the code there, to be run and not to be written to any more, to the end of its last page. Raises
    OSError."""
    ctypes.memmove(place, code, len(code))
    if _mprotect(place, len(code), _READ_EXECUTE):
        raise _error()


def loaded(codes: Mapping[str, bytes]) -> int:
    """The address of the code for this processor, of these by machine (uname(2)), to be run. Raises OSError, also where
    none is known."""
    code = codes.get(os.uname().machine)
    if code is None:
        raise OSError("no code is known for this processor")
    place = mapped(pages(len(code)))
    make_code(place, code)
    return place


def address(view: memoryview) -> int:
    """Where its first byte is, for as long as somebody has it."""
    found = (_word * _BUFFER_WORDS)()
    _get_buffer(view, found, 0)
    _release_buffer(found)
    return found[0]


def is_possible(code: bytes) -> bool:
    """Whether this process may do that."""
    try:
        place = mapped(pages(len(code)))
    except OSError:
        return False
    try:
        make_code(place, code)
    except OSError:
        return False
    finally:
        _munmap(place, pages(len(code)))
    return True


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
