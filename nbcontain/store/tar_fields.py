"""What stands in the fields of a tar's headers: numbers, and the records of an extended header; what is too much."""

from __future__ import annotations

from nbcontain.errors import BadArchive
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may cost before it is taken for a bomb."""

    entries: int = 4_000_000
    stream_bytes: int = 256 << 30
    """Of the whole uncompressed tar."""
    header_bytes: int = 1 << 20
    """Of one PAX header or long name."""
    path_bytes: int = 4096
    """PATH_MAX; no less than one header can say."""
    xattr_bytes: int = 64 << 10
    """Of one extended attribute: the kernel's XATTR_SIZE_MAX."""
    xattrs_bytes: int = 256 << 10
    """Of all that one entry has."""


DEFAULT_LIMITS = Limits()


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form `LENGTH key=value\\n`, where LENGTH counts all of it in decimal. Raises BadArchive."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        if space < 0:
            raise BadArchive("a PAX record without a length")
        end = position + decimal(data[position:space], "record length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key or b"\0" in key:
            raise BadArchive("a malformed PAX record")
        records[key] = value
        position = end
    return records


def record(key: bytes, value: bytes) -> bytes:
    """One such record, written."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def decimal(text: bytes, what: str) -> int:
    """A number of at most 19 digits. Raises BadArchive."""
    if not text.isdigit() or len(text) > 19:
        raise BadArchive(f"{text[:40]!r} is no {what}")
    return int(text)


def nanoseconds(text: bytes) -> int:
    """Seconds since the epoch with a fraction, as in `-1.5`. Raises BadArchive."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise BadArchive(f"{text[:40]!r} is no time")
    value = decimal(whole, "time") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


def octal(data: bytes, what: str) -> int:
    """An octal number, nothing being 0. Raises BadArchive."""
    text = data.strip(b"\0 ")
    if not text:
        return 0
    try:
        # int() alone would take signs, underscores and 0o.
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        why = "this is no tar archive, or it is damaged"
        raise BadArchive(f"a header's {what} is no number: {data!r}", why=why) from None


def number(data: bytes, what: str) -> int:
    """An octal number, or GNU's base-256: the first bit set, the rest big-endian two's complement."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ((1 << (len(data) * 8 - 1)) - 1)
        return value - (1 << (len(data) * 8 - 1)) if data[0] & 0x40 else value
    return octal(data, what)
