"""What arrives on a channel, and what does not."""

from __future__ import annotations

import os

import pytest

from nbcontain.channel import Channel


@pytest.mark.parametrize("packet", [b"{", b"[]", b'{"$large":1}'])
def test_descriptors_that_come_with_what_is_no_message_are_closed(packet: bytes) -> None:
    ours, theirs = Channel.pair()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    theirs._send(packet, [writing])
    os.close(writing)
    with pytest.raises((ValueError, OSError)):
        ours.receive()
    # The end of a pipe is seen when nobody has its other end.
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""
    os.close(reading)
    ours.close()
    theirs.close()


def test_a_large_packet_without_its_memory_is_no_message() -> None:
    ours, theirs = Channel.pair()
    theirs._send(b'{"$large":1}', [])
    with pytest.raises(ValueError, match="memory"):
        ours.receive()
    ours.close()
    theirs.close()


def test_the_last_word_of_who_leaves_something_unread_arrives() -> None:
    ours, theirs = Channel.pair()
    ours.send({"started": True})
    theirs.send({"do": "keep"})
    # It closes without having read ours: the kernel tells of that before it gives what was sent.
    theirs.close()
    assert ours.receive() == ({"do": "keep"}, [])
    assert ours.receive() == (None, [])
    ours.close()
