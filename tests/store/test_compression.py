"""Layers are compressed when they are made, and read however they were compressed."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import random
import sys
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import archive, member
from machine import until
from nbcontain.errors import BadArchive, DiskFull
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import LAYER_TAR_GZIP, Layer
from nbcontain.store import Store, compression, files
from nbcontain.store.compression import uncompressed
from nbcontain.store.gzip_stream import Packer
from nbcontain.store.layer_writer import layer_writer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "nothing": bytes,
}
DATA = random.Random(1).randbytes(300_000) + bytes(3_000_000)


def read(data: bytes) -> bytes:
    stream = uncompressed(io.BytesIO(data))
    found = bytearray()
    while chunk := stream.chunk():
        found += chunk
    return bytes(found)


def written(store: Store, pieces: list[bytes]) -> Layer:
    with layer_writer(store.blobs) as writer:
        for piece in pieces:
            writer.write(piece)
        return writer.commit()


@pytest.mark.parametrize("packer", PACKERS)
def test_every_compression_is_told_by_its_content(packer: str) -> None:
    assert read(PACKERS[packer](DATA)) == DATA


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"BZh", b"\x04\x22\x4d\x18"], ids=["gzip", "bzip2", "lz4"])
def test_a_tar_is_one_whatever_its_first_name_begins_with(magic: bytes) -> None:
    data = archive(member(magic + b"name", data=b"x"))
    assert read(data) == data


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_behind_each_other_are_one(packer: str) -> None:
    pack = PACKERS[packer]
    assert read(pack(b"one ") + pack(b"") + pack(b"two") + bytes(700)) == b"one two"


@pytest.mark.parametrize("number", [0x50, 0x5F])
def test_zstd_that_begins_with_what_is_to_be_skipped_is_zstd(number: int) -> None:
    assert read(bytes((number,)) + b"\x2a\x4d\x18" + bytes((4, 0, 0, 0)) + b"note" + zstd.compress(DATA)) == DATA


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_a_cut_stream_is_told_of(packer: str) -> None:
    with pytest.raises(BadArchive, match="cut off"):
        read(PACKERS[packer](DATA)[:-9])


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_what_follows_a_stream_and_is_none_is_told_of(packer: str) -> None:
    with pytest.raises(BadArchive):
        read(PACKERS[packer](b"data") + b"what is this")


def test_what_stands_before_gzips_data_is_not_held_whatever_its_length() -> None:
    """A name (FNAME, RFC 1952) is without end until a zero comes."""
    with pytest.raises(BadArchive):
        read(b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (8 << 20) + b"\0" + gzip.compress(b"data")[10:])


def test_a_disk_that_fails_under_an_archive_is_not_taken_for_damage() -> None:
    class Failing(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() > 400_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)  # type: ignore[arg-type]

    stream = uncompressed(Failing(gzip.compress(random.Random(4).randbytes(2_000_000))))
    with pytest.raises(OSError, match="Input/output error"):
        while stream.chunk():
            pass


def test_a_zstd_window_that_would_fill_the_memory_is_refused() -> None:
    huge = zstd.compress(b"x", options={zstd.CompressionParameter.window_log: 30})
    stretched = huge[:5] + bytes([0xA0]) + huge[6:]
    with pytest.raises(BadArchive):
        read(stretched + bytes(64))


@given(st.binary(max_size=400), st.sampled_from(["gzip", "bzip2", "xz", "zstd"]), st.data())
@settings(max_examples=150)
def test_damaged_streams_are_read_or_refused_and_nothing_else(content: bytes, packer: str, data: st.DataObject) -> None:
    packed = bytearray(PACKERS[packer](content))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(packed))
    except BadArchive:
        pass


def test_a_layer_is_stored_as_gzip_and_known_by_both_digests(store: Store) -> None:
    layer = written(store, [DATA])
    packed = store.blobs.path(layer.descriptor.digest).read_bytes()
    assert layer.descriptor.media_type == LAYER_TAR_GZIP
    assert layer.descriptor.digest == Digest.of(packed)
    assert layer.diff_id.hex == hashlib.sha256(DATA).hexdigest()
    assert gzip.decompress(packed) == DATA


@given(st.lists(st.integers(1, 1_500_000), max_size=6))
@settings(max_examples=15)
def test_a_layers_bytes_do_not_depend_on_the_pieces_it_came_in(store_of_the_session: Store, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(DATA)) for cut in cuts} | {0, len(DATA)})
    pieces = [DATA[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    assert written(store_of_the_session, pieces) == written(store_of_the_session, [DATA])


def test_a_layer_read_from_a_pipe_is_the_one_that_is_written(store: Store) -> None:
    reading, writing = os.pipe()
    data = random.Random(2).randbytes(5_500_000)

    def feed() -> None:
        with open(writing, "wb") as sink:
            sink.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with layer_writer(store.blobs) as writer:
        writer.read_from(reading)
        read = writer.commit()
    feeder.join()
    os.close(reading)
    assert read == written(store, [data])
    assert gzip.decompress(store.blobs.path(read.descriptor.digest).read_bytes()) == data


def test_a_slow_disk_gets_the_blocks_that_were_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be compressed waits for the disk, while what comes behind it goes through the same memory."""
    data = random.Random(2).randbytes(3 << 20) + bytes(40 << 20)
    write, waits = files.write, [0.3, 0.3]

    def slow(fd: int, part: bytes | memoryview) -> None:
        if waits:
            time.sleep(waits.pop())
        write(fd, part)

    monkeypatch.setattr(files, "write", slow)
    with layer_writer(store.blobs) as writer:
        writer.write(data)
        layer = writer.commit()
    blob = store.blobs.path(layer.descriptor.digest).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == layer.descriptor.digest.hex
    assert hashlib.sha256(gzip.decompress(blob)).hexdigest() == layer.diff_id.hex


@pytest.mark.parametrize("processors", [1, 2, 8])
def test_blocks_are_as_they_were_read_in_whatever_order_they_are_compressed(
    store: Store, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    pack, chance = Packer.pack, random.Random(4)

    def unevenly(packer: Packer, block: bytes) -> tuple[bytes, ...]:
        # As where a processor is somebody else's for a while: what comes behind is compressed long before.
        if chance.random() < 0.2:
            time.sleep(0.05)
        return pack(packer, block)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(Packer, "pack", unevenly)
    parts = [bytes([number]) * (1 << 20) for number in range(40)]
    data = b"".join(parts)
    layer = written(store, [data])
    assert gzip.decompress(store.blobs.path(layer.descriptor.digest).read_bytes()) == data
    monkeypatch.undo()
    assert written(store, [data]) == layer


def test_what_hinders_a_compressor_is_raised_and_ends_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, pack, packed = threading.active_count(), Packer.pack, 0

    def fails(packer: Packer, block: bytes) -> tuple[bytes, ...]:
        nonlocal packed
        packed += 1
        if packed == 5:
            raise MemoryError
        return pack(packer, block)

    monkeypatch.setattr(Packer, "pack", fails)
    with pytest.raises(MemoryError):
        written(store, [random.Random(3).randbytes(1_000_000) for _ in range(30)])
    until(lambda: threading.active_count() <= threads)
    assert not list(store.layout.tmp.iterdir())


def test_a_full_disk_ends_a_large_layer_and_its_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, wrote = threading.active_count(), 0
    write = files.write

    def fills_up(fd: int, data: bytes | memoryview) -> None:
        nonlocal wrote
        wrote += len(data)
        if wrote > 3_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data)

    monkeypatch.setattr(files, "write", fills_up)
    with pytest.raises(DiskFull):
        written(store, [random.Random(3).randbytes(1_000_000) for _ in range(30)])
    until(lambda: threading.active_count() <= threads)
    assert not list(store.layout.tmp.iterdir())


def test_a_large_layer_that_is_given_up_leaves_no_thread(store: Store) -> None:
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), layer_writer(store.blobs) as writer:
        writer.write(bytes(20_000_000))
        raise KeyboardInterrupt
    until(lambda: threading.active_count() <= threads)
    assert not list(store.layout.tmp.iterdir())


def test_a_layers_bytes_hold_no_time_and_no_name(store: Store) -> None:
    layer = written(store, [b"tar"])
    header = store.blobs.path(layer.descriptor.digest).read_bytes()[:10]
    assert header[3:8] == bytes(5)


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_told_by_how_much_it_is_of_how_little(packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    bomb = PACKERS[packer](bytes(64 << 20))
    with pytest.raises(BadArchive, match=f"the {packer} data is a bomb") as caught:
        read(bomb)
    assert "unpack to more than" in caught.value.why
    # What is no bomb may be as large as it likes.
    data = random.Random(2).randbytes(3 << 20)
    assert read(PACKERS[packer](data)) == data
