"""The program that an idle supervisor is: a few kilobytes of the processor's own code (tools/c/pump.c), and what it has
to know. It writes output as lines of a journal; whatever else happens, it executes another program. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from nbcontain.linux import little_programs, pump_code
from nbcontain.linux.pump_code import GROWTH, HEAD_BYTES, RECORD_BYTES
from nbcontain.values import dataclass

_CODE_AT, _DATA_AT = 0x400000, 0x410000
"""Apart by the largest page there is, in memory as in the file."""
_FDS = 8
_OUT_BYTES = 64 + HEAD_BYTES + GROWTH * RECORD_BYTES
_STATE = struct.Struct(f"<QQ{'ihh' * _FDS}{'QQQ' * _FDS}qqqqQqQQQQQQQQQQQQ")
"""`struct state` of tools/c/pump.c."""
_POLLIN = 1
_COPY = "/proc/self/fd/"
_ZEROS = "0" * 10
_LOADED, _STACK = 1, 0x6474E551
_READ_EXECUTE, _READ_WRITE = 5, 6


@dataclass(frozen=True, slots=True)
class Execution:
    """A program to execute."""

    path: str
    argv: Sequence[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LittlePump:
    """What it does. `whole` is executed from a copy that nobody can change any more, `other` where that cannot be.

    Of their arguments `lost`, 20 digits, is how many bytes of output were lost, and `names` what the outputs are
    called, a word each: both as they then are, a word of spaces for one that has ended.
    """

    outputs: Mapping[int, bytes]
    """Where output is read, with what its lines have between the time and itself."""
    names: str
    watched: Sequence[int]
    """What else is waited for; the first is the container's end."""
    journal: int
    limit_bytes: int
    wake: float
    lost: str
    whole: Execution
    other: Execution

    def program(self, machine: str) -> dict[int, bytes]:
        """All that is in its file, and where, for this processor. Raises OSError where none is known, or it is too
        much."""
        if machine not in pump_code.CODE:
            raise OSError("no code is known for this processor")
        fds = [*self.outputs, *self.watched]
        if len(fds) > _FDS or any(len(head) > HEAD_BYTES for head in self.outputs.values()):
            raise OSError("more than there is room for")
        data = _Data()
        words = [data.text(name) for name in (self.names, self.lost, "python", _COPY + _ZEROS)]
        names, lost, name, copy = words
        streams = [
            (data.bytes(head), len(head), names + place)
            for head, place in zip(self.outputs.values(), _places(self.names), strict=True)
        ]
        numbers = (
            len(fds), len(streams), *(each for fd in fds for each in (fd, _POLLIN, 0)),
            *(0, 0, 0) * (_FDS - len(fds)), *(each for stream in streams for each in stream),
            *(0, 0, 0) * (_FDS - len(streams)), self.journal, self.limit_bytes,
            int(self.wake), int(self.wake % 1 * 1e9), lost, len(streams),
            *data.execution(self.whole), *data.execution(self.other), name, copy, copy + len(_COPY),
            data.bytes(b'{"time":'),
        )  # fmt: skip
        kept = data.end()
        contents = _STATE.pack(*numbers, kept, kept + RECORD_BYTES) + data.contents
        return _file(machine, contents, len(contents) + RECORD_BYTES + _OUT_BYTES)


class _Data:
    """What stands behind the state, each string once."""

    def __init__(self) -> None:
        self.contents = bytearray()
        self._texts: dict[str, int] = {}

    def end(self) -> int:
        """Where the next one would be; aligned, as whoever is there needs it."""
        self.contents += bytes(-len(self.contents) % 8)
        return _DATA_AT + _STATE.size + len(self.contents)

    def bytes(self, data: bytes) -> int:
        place = self.end()
        self.contents += data
        return place

    def text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = self.bytes(text.encode("utf-8", "surrogateescape") + b"\0")
        return self._texts[text]

    def execution(self, program: Execution) -> tuple[int, int, int]:
        env = [f"{name}={value}" for name, value in program.env.items()]
        return self.text(program.path), self._texts_at(program.argv), self._texts_at(env)

    def _texts_at(self, texts: Sequence[str]) -> int:
        places = [self.text(each) for each in texts]
        return self.bytes(struct.pack(f"<{len(places) + 1}Q", *places, 0))


def _places(words: str) -> list[int]:
    """Where each of them begins."""
    return [n for n, each in enumerate(words) if each != " " and (n == 0 or words[n - 1] == " ")]


def _file(machine: str, data: bytes, size: int) -> dict[int, bytes]:
    """An executable file (elf(5)): code that nobody may write to, and data that nobody may execute."""
    code, apart = pump_code.CODE[machine], _DATA_AT - _CODE_AT
    head_bytes = little_programs.head_bytes(3)
    length = head_bytes + len(code)
    head = little_programs.head(
        machine, _CODE_AT + head_bytes + pump_code.START[machine],
        (_LOADED, _READ_EXECUTE, 0, _CODE_AT, _CODE_AT, length, length, apart),
        (_LOADED, _READ_WRITE, apart, _DATA_AT, _DATA_AT, len(data), size, apart),
        (_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16),
    )  # fmt: skip
    return {0: head + code, apart: data}
