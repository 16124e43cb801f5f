"""What a program writes, as lines of its container's journal: the same bytes as `events.encode` gives, at once.

Run by the supervisor and by the pump, which imports this by its own name and nothing besides.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_BYTES = 8192
"""Longer output is cut into several lines of moderate size."""
_TABS = b"\t\r\x1b"
_CONTROLS = bytes(each for each in (*range(32), 127) if each not in (*_TABS, 10))
_END = b"}\n"


def head(now: float, task: str, stream: str) -> bytes:
    """Where each of them begins, up to the output itself."""
    return b'{"time":%r%b' % (round(now, 6), after_time(task, stream))


def after_time(task: str, stream: str) -> bytes:
    """What of that comes after the time."""
    return f',"kind":"output","task":"{task}","stream":"{stream}","data":'.encode()


def parts(now: float, task: str, stream: str, data: bytes) -> list[bytes]:
    """The lines, three parts each, to be written one after the other."""
    begin = head(now, task, stream)
    found: list[bytes] = []
    for start in range(0, len(data), RECORD_BYTES):
        found += (begin, quoted(data[start : start + RECORD_BYTES]), _END)
    return found


def quoted(data: bytes) -> bytes:
    """A string of JSON. Plain text, which most output is, is looked through as a whole, not character by character."""
    if not data.isascii() or len(data.translate(None, _CONTROLS)) < len(data):
        # Not before it is needed: a module more is memory of every idle container's.
        from _json import encode_basestring_ascii

        said: str = encode_basestring_ascii(data.decode("utf-8", "surrogateescape"))
        return said.encode()
    data = data.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    data = data.replace(b"\t", b"\\t").replace(b"\r", b"\\r").replace(b"\x1b", b"\\u001b")
    return b'"%b"' % data


def missing(lines: "Sequence[bytes | memoryview]", size_bytes: int, written: int) -> int:
    """How much output of so many bytes is not in the journal, where only the first `written` bytes of its lines are."""
    if written >= sum(map(len, lines)):
        return 0
    whole = b"".join(lines)[: max(0, written)].count(b"\n")
    return max(0, size_bytes - whole * RECORD_BYTES)
