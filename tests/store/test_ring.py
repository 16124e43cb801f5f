"""Memory that a worker and whoever feeds it both see."""

from __future__ import annotations

import errno
import mmap
import os
import random
import threading

import pytest

import needs
from machine import until
from nbcontain.store.ring import Received, Sender


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_what_is_written_comes_out_in_whatever_pieces_it_was(sender: Sender) -> None:
    source = random.Random(1)
    pieces = [source.randbytes(source.choice((1, 511, 70_000, 262_144, 262_145, 900_000))) for _ in range(30)]

    def write() -> None:
        for piece in pieces:
            sender.write(memoryview(piece))
        sender.close()

    writer = threading.Thread(target=write)
    writer.start()
    received, found = Received(sender.fds), bytearray()
    while chunk := received.chunk():
        found += chunk
    writer.join()
    sender.leave()
    assert bytes(found) == b"".join(pieces)


def test_who_writes_is_told_when_nobody_reads_any_more(sender: Sender) -> None:
    sender.leave()
    with pytest.raises(BrokenPipeError):
        sender.write(bytes(2_000_000))
    sender.close()


def test_who_reads_cannot_take_the_memory_away_or_write_to_it(sender: Sender) -> None:
    needs.kernel()
    with pytest.raises(PermissionError):
        os.ftruncate(sender.fds[0], 0)
    received = Received(sender.fds)
    sender.write(b"piece")
    with pytest.raises(TypeError):
        received.chunk()[0] = 0
    with pytest.raises(PermissionError):
        os.pwrite(sender.fds[0], b"other", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(sender.fds[0], 4096)
    sender.close()
    sender.leave()


def test_a_ring_that_cannot_be_made_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before, made, pipe2 = os.listdir("/proc/self/fd"), [0], os.pipe2

    def pipe(flags: int) -> tuple[int, int]:
        made[0] += 1
        if made[0] == 2:
            raise OSError(errno.EMFILE, "too many open files")
        return pipe2(flags)

    monkeypatch.setattr(os, "pipe2", pipe)
    with pytest.raises(OSError, match="too many"):
        Sender()
    until(lambda: len(os.listdir("/proc/self/fd")) <= len(before))


def test_a_ring_that_was_not_read_to_its_end_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    sender = Sender()
    sender.write(b"never read")
    sender.close()
    sender.leave()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
