"""A file that is read while it is written."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbcontain.store.growing import Growing


def test_what_is_written_is_read_as_it_comes_and_then_it_ends(tmp_path: Path) -> None:
    source = random.Random(1)
    pieces = [source.randbytes(source.choice((1, 511, 70_000, 300_000))) for _ in range(40)]
    path = tmp_path / "coming"
    path.touch()
    growing = Growing(path)

    def write() -> None:
        with path.open("wb", buffering=0) as file, growing:
            for piece in pieces:
                file.write(piece)
                growing.wrote(piece)

    writer = threading.Thread(target=write)
    writer.start()
    found, buffer = bytearray(), memoryview(bytearray(100_000))
    while count := growing.readinto(buffer):
        found += buffer[:count]
    writer.join()
    growing.close()
    assert bytes(found) == b"".join(pieces)


@contextmanager
def coming(path: Path, there: bytes, told: bytes) -> Iterator[Growing]:
    """A file with this in it, of which so much is said to be there."""
    path.write_bytes(there)
    growing = Growing(path)
    growing.wrote(told)
    yield growing
    growing.close()


def read(growing: Growing, room: int = 100) -> int:
    return growing.readinto(memoryview(bytearray(room)))


def test_it_is_not_read_beyond_what_is_said_to_be_there(tmp_path: Path) -> None:
    with coming(tmp_path / "coming", b"told, and left by another", b"told") as growing:
        assert read(growing) == 4
        growing.end()
        assert read(growing) == 0


def test_what_nobody_wants_any_more_is_not_read_to_its_end(tmp_path: Path) -> None:
    with coming(tmp_path / "coming", b"much more", b"much more") as growing:
        assert read(growing, 4) == 4
        growing.cut()
        assert read(growing, 4) == 0


def test_a_file_that_was_cut_off_ends_there(tmp_path: Path) -> None:
    with coming(tmp_path / "coming", b"some of it", bytes(1000)) as growing:
        (tmp_path / "coming").write_bytes(b"")
        assert read(growing) == 0
