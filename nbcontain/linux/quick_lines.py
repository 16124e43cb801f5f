"""Output as lines of a journal, written by the processor's own code: the same as `output_lines.parts` gives.

Python needs three to five passes through each byte, which is more than the kernel takes to hand it over twice.
"""

from __future__ import annotations

import ctypes

from nbcontain.linux import code_memory, pump_code
from nbcontain.linux.pump_code import GROWTH, HEAD_BYTES, RECORD_BYTES

_SPARE_BYTES = 16
_word, _pointer = ctypes.c_size_t, ctypes.c_void_p
_Function = ctypes.PYFUNCTYPE(_word, _pointer, ctypes.c_char_p, _word, ctypes.c_char_p, _word)


class QuickLines:
    """Its code, and room for lines of so much output. Raises OSError where no code can be made, or none is known."""

    def __init__(self, size_bytes: int) -> None:
        self._lines = _Function(code_memory.loaded(pump_code.CODE))
        self._size_bytes = size_bytes
        # As much as can be needed, of which the kernel gives what is written to.
        records = -(-size_bytes // RECORD_BYTES)
        room = GROWTH * size_bytes + _SPARE_BYTES + records * (HEAD_BYTES + _SPARE_BYTES)
        self._place = code_memory.mapped(room)
        self._view = memoryview((ctypes.c_char * room).from_address(self._place)).cast("B")

    def of(self, head: bytes, data: bytes) -> memoryview:
        """Lines that begin so, with this output; what is given is written over by the next call."""
        if len(data) > self._size_bytes or len(head) > HEAD_BYTES:
            raise ValueError("more than there is room for")
        return self._view[: self._lines(self._place, head, len(head), data, len(data))]
