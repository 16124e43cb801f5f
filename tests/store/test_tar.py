from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from archives import archive, directory, member, symlink
from nbcontain.errors import BadArchive
from nbcontain.store import compression, tar

CORPUS = Path(__file__).parents[1] / "corpus" / "tar"


def entries(data: bytes, limits: tar.Limits = tar.DEFAULT_LIMITS) -> list[tuple[tar.Entry, int]]:
    reader = tar.Reader(compression.uncompressed(io.BytesIO(data)), limits)
    found = []
    while (entry := reader.next()) is not None:
        found.append((entry, entry.size))
    reader.finish()
    return found


def names(data: bytes) -> list[bytes]:
    return [entry.name for entry, _ in entries(data)]


def raw(
    name: bytes, size: bytes = b"00000000000", kind: bytes = b"0", checksum: int | None = None, **fields: bytes
) -> bytes:
    """A header written by hand, so that it may be wrong."""
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")
    block[100:108] = fields.get("mode", b"0000644\0")
    block[108:116] = fields.get("uid", b"0000000\0")
    block[116:124] = fields.get("gid", b"0000000\0")
    block[124:136] = size.ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[157:257] = fields.get("link", b"").ljust(100, b"\0")
    block[257:265] = fields.get("magic", b"ustar\x0000")
    block[345:500] = fields.get("prefix", b"").ljust(155, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) if checksum is None else checksum)
    return bytes(block)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    body = b"".join(records)
    return raw(b"pax", b"%011o" % len(body), kind) + body + bytes(-len(body) % 512)


END = bytes(1024)


def directly(data: bytes, step: int, *, in_pieces: bool) -> tuple[dict[bytes, bytes], str]:
    """What the members hold, read into memory of our own, so much at a time."""

    class Pieces:
        def __init__(self) -> None:
            self.left = io.BytesIO(data)

        def chunk(self) -> bytes:
            return self.left.read(700)

    found = {}
    reader = tar.Reader(Pieces() if in_pieces else io.BytesIO(data))
    while (entry := reader.next()) is not None:
        held, room = bytearray(), memoryview(bytearray(step))
        while count := reader.readinto(room):
            held += room[:count]
        found[entry.name] = bytes(held)
    return found, reader.finish()


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_data_is_read_to_where_it_is_wanted(step: int, in_pieces: bool) -> None:
    held = {b"small": b"12345", b"none": b"", b"large": os.urandom(900_001), b"last": b"!" * 512}
    data = archive(*(member(name.decode(), data=content) for name, content in held.items()))
    assert directly(data, step, in_pieces=in_pieces) == (held, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("in_pieces", [False, True])
def test_data_that_is_cut_off_is_told_of_by_who_reads_it_to_where_it_is_wanted(in_pieces: bool) -> None:
    data = archive(member("large", data=os.urandom(900_001)))
    with pytest.raises(BadArchive, match="cut off"):
        directly(data[:800_000], 1 << 20, in_pieces=in_pieces)


def test_data_at_hand_is_there_until_its_piece_is_left() -> None:
    # So many with their headers fill pieces, which then end between two of them.
    held = {f"f{number}".encode(): os.urandom(1500) for number in range(400)} | {b"large": os.urandom(900_001)}
    held |= {f"g{number}".encode(): os.urandom(number * 997) for number in range(50)}
    views: list[tuple[bytes, memoryview]] = []
    found = {}

    def leave() -> None:
        found.update((name, bytes(view)) for name, view in views)
        views.clear()

    # One buffer for all pieces: what is looked at too late is another's.
    reader = tar.Reader(io.BytesIO(archive(*(member(name, data=data) for name, data in held.items()))), leaving=leave)
    while (entry := reader.next()) is not None:
        if (view := reader.whole()) is not None:
            views.append((entry.name, view))
        else:
            leave()
            found[entry.name] = b"".join(iter(lambda: bytes(reader.chunk()), b""))
    leave()
    assert found == held


FILE = raw(b"f")


@given(
    st.lists(
        st.builds(
            tar.Entry,
            name=st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/")),
            kind=st.sampled_from([tar.REGULAR, tar.DIRECTORY, tar.FIFO]),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32 - 2),
            gid=st.integers(0, 2**32 - 2),
            size=st.just(0),
            mtime_ns=st.integers(-(2**31), 2**34).map(lambda seconds: seconds * 10**9),
            link=st.binary(max_size=300).filter(lambda name: b"\0" not in name),
            xattrs=st.dictionaries(
                st.binary(min_size=1, max_size=9).filter(lambda key: not set(key) & set(b"=\0")).map(b"user.".__add__),
                st.binary(max_size=40),
            ),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(written: list[tar.Entry]) -> None:
    assert [entry for entry, _ in entries(archive(*[(entry, b"") for entry in written]))] == written


def test_python_reads_what_is_written() -> None:
    long = "d" * 90 + "/" + "é" * 90
    large = member(long, data=b"x", uid=3_000_000)
    data = archive(directory("a/"), member("a/f", data=b"hello"), large, symlink("l", "y" * 120))
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        found = [(each.name, each.uid if each.uid > 9 else 0, each.linkname) for each in read]
        body = read.extractfile("a/f")
        assert body is not None
        assert body.read() == b"hello"
    assert [name for name, _, _ in found] == ["a", "a/f", long, "l"]
    assert (found[2][1], found[3][2]) == (3_000_000, "y" * 120)


@pytest.mark.parametrize("flavour", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
def test_gnu_tars_formats_are_read(flavour: str, tmp_path: Path) -> None:
    program = needs.program("tar")
    (tmp_path / ("d" * 60)).mkdir()
    (tmp_path / ("d" * 60) / ("f" * (30 if flavour in ("ustar", "v7") else 120))).write_bytes(b"data" * 200)
    made = subprocess.run(
        # Old formats have no room for the large numbers that users of some clusters have.
        [program, "-c", f"--format={flavour}", "--owner=0", "--group=0", "-C", str(tmp_path), "."],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert sorted(names(made))[-1].endswith(b"fff")
    assert sum(size for _, size in entries(made)) == 800


@pytest.mark.parametrize("case", sorted(CORPUS.glob("*.tar.hex")), ids=lambda path: path.name)
def test_the_corpus_reads_as_written_down(case: Path) -> None:
    data = bytes.fromhex(case.read_text())
    expected = case.with_name(case.name.replace(".tar.hex", ".txt")).read_text()
    try:
        lines = [f"{e.kind.decode()} {e.mode:o} {e.uid} {e.gid} {n} {e.name!r} {e.link!r}\n" for e, n in entries(data)]
        found = "".join(lines)
    except BadArchive as error:
        found = f"refused: {error.message}\n"
    assert found == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x" * 300, id="half a header"),
        pytest.param(b"x" * 512, id="no header"),
        pytest.param(raw(b"f", checksum=1) + END, id="a wrong checksum"),
        pytest.param(raw(b"f", b"00000001000") + b"short", id="cut off inside a file"),
        pytest.param(raw(b"f", b"\xff" * 12) + END, id="a negative size (CVE-2025-8194)"),
        pytest.param(raw(b"f", b"\x80" + b"\xff" * 11) + END, id="a size beyond 63 bits"),
        pytest.param(raw(b"f", b"-0000000001") + END, id="a signed octal"),
        pytest.param(raw(b"f", b"0_1") + END, id="an underscore in an octal"),
        pytest.param(raw(b"f", b"00000000009") + END, id="a nine in an octal"),
        pytest.param(raw(b"f", uid=b"\xff" * 8) + END, id="a negative owner"),
        pytest.param(raw(b"f", kind=b"S") + END, id="a GNU sparse file"),
        pytest.param(pax(b"22 GNU.sparse.major=1\n") + FILE + END, id="a PAX sparse file"),
        pytest.param(raw(b"f", kind=b"M") + END, id="a continued volume"),
        pytest.param(raw(b"f", kind=b"Z") + END, id="an unknown type"),
        pytest.param(raw(b"L", b"%011o" % (1 << 30), b"L") + END, id="a long name of a gigabyte"),
        pytest.param(pax(b"99 path=x\n") + FILE + END, id="a PAX record that is too short"),
        pytest.param(pax(b"3 path=x\n") + FILE + END, id="a PAX record that is too long"),
        pytest.param(pax(b"0 path=x\n") + FILE + END, id="a PAX record of no length"),
        pytest.param(pax(b"+9 path=x\n") + FILE + END, id="a PAX length with a sign"),
        pytest.param(pax(b"8 pathx\n") + FILE + END, id="a PAX record without a value"),
        pytest.param(pax(b"11 path=a\0\n") + FILE + END, id="a name with NUL"),
        pytest.param(pax(b"14 size=-0001\n") + FILE + END, id="a negative PAX size"),
        pytest.param(pax(b"14 mtime=1e99\n") + FILE + END, id="a PAX time with an exponent"),
        pytest.param(pax(b"9 path=x\n", kind=b"g") + FILE + END, id="a global header that names every file"),
        pytest.param(pax(b"9 path=x\n") + END, id="an extended header without an entry"),
        pytest.param(pax(b"9 path=x\n") * 40 + FILE + END, id="a chain of extended headers"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(600), id="zstd"),
        pytest.param(b"\xfd7zXZ\0" + bytes(600), id="xz"),
        pytest.param(gzip.compress(FILE + END)[:-9], id="gzip cut off"),
        pytest.param(gzip.compress(FILE + END)[:20] + b"\xff" * 60, id="gzip damaged"),
        pytest.param(gzip.compress(FILE + END) + b"junk", id="gzip with something after it"),
    ],
)
def test_a_bad_archive_is_refused(data: bytes) -> None:
    with pytest.raises(BadArchive):
        entries(data)


def test_pax_overrules_the_header() -> None:
    [(entry, _)] = entries(pax(b"16 path=a/b/cde\n", b"14 uid=700000\n") + FILE + END)
    assert (entry.name, entry.uid) == (b"a/b/cde", 700_000)


def test_a_star_archives_times_are_no_part_of_the_name() -> None:
    header = bytearray(raw(b"f", prefix=b"dir".ljust(131, b"\0") + b"00000000000 00000000000 "[:12]))
    header[508:512] = b"tar\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert names(bytes(header) + END) == [b"dir/f"]


def test_old_tars_name_directories_by_a_slash() -> None:
    assert entries(raw(b"d/", kind=b"\0", magic=bytes(8)) + END)[0][0].kind == tar.DIRECTORY


def test_a_signed_checksum_of_old_writers_is_right_too() -> None:
    unsigned = bytearray(raw("é".encode()))
    unsigned[148:156] = b" " * 8
    signed = sum(struct.unpack("512b", unsigned))
    assert names(raw("é".encode(), checksum=signed) + END) == ["é".encode()]


def test_a_hard_links_size_is_no_data() -> None:
    assert names(raw(b"l", b"00000001000", b"1", link=b"f") + FILE + END) == [b"l", b"f"]


def test_the_digest_covers_what_comes_after_the_end() -> None:
    one, two = tar.Reader(io.BytesIO(FILE + END)), tar.Reader(io.BytesIO(FILE + END + b"more"))
    while one.next() and two.next():
        pass
    assert one.finish() != two.finish()


def test_several_gzip_members_are_one_archive() -> None:
    whole = archive(member("a", data=b"x" * 700), member("b"))
    assert names(gzip.compress(whole[:600]) + gzip.compress(whole[600:]) + bytes(100)) == [b"a", b"b"]


def test_a_gzip_bomb_ends_at_the_limit() -> None:
    bomb = gzip.compress(raw(b"f", b"77777777777") + bytes(30 << 20))
    with pytest.raises(BadArchive, match="unpacks to more than"):
        entries(bomb, tar.Limits(stream_bytes=8 << 20))


def test_too_many_entries_end_at_the_limit() -> None:
    with pytest.raises(BadArchive, match="more than 10 entries"):
        entries(FILE * 11 + END, tar.Limits(entries=10))


@given(st.data())
@settings(max_examples=300)
def test_a_flipped_byte_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(pax(b"16 path=a/b/cde\n") + raw(b"f", b"00000000005") + b"12345".ljust(512, b"\0") + FILE + END)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        entries(bytes(whole[:cut]))
    except BadArchive as error:
        assert error.message
