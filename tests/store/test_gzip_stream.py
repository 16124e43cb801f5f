"""gzip in which what cannot be compressed is stored: every decompressor reads it, and the same blocks give the same."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from nbcontain.store.gzip_stream import HEAD, Packer, Tally

MIB = 1 << 20
TEXT = (b"some words that come again, and %d\n" % 7) * 40_000
RANDOM = os.urandom(MIB)
BLOCKS = {
    "text": TEXT[:MIB],
    "random": RANDOM,
    "both": RANDOM[: MIB // 2] + TEXT[: MIB // 2],
    "short": TEXT[:300_000],
    "few": RANDOM[:9],
    "nothing": b"",
}


def packed(blocks: list[bytes]) -> bytes:
    packer, tally = Packer(), Tally()
    for each in blocks:
        tally.add(each)
    return b"".join([HEAD, *(part for each in blocks for part in packer.pack(each)), tally.end()])


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), max_size=5))
def test_what_goes_in_comes_out(names: list[str]) -> None:
    blocks = [BLOCKS[name] for name in names]
    found = packed(blocks)
    assert gzip.decompress(found) == isal_zlib.decompress(found, 31) == b"".join(blocks)
    assert packed(blocks) == found


def test_it_works_without_isal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    blocks = [TEXT[:MIB], RANDOM, TEXT[:MIB]]
    assert gzip.decompress(packed(blocks)) == b"".join(blocks)


def test_what_cannot_be_compressed_is_stored_and_text_is_not() -> None:
    assert RANDOM[:60_000] in packed([RANDOM])
    assert len(packed([TEXT[:MIB]])) < MIB // 20


def test_what_comes_of_a_block_depends_on_nothing_else() -> None:
    """So any number of threads can make the blocks of a stream."""
    packer = Packer()
    several = [packer.pack(BLOCKS[name]) for name in ("text", "both", "few", "random", "both", "text", "nothing")]
    alone = [Packer().pack(BLOCKS[name]) for name in ("text", "both", "few", "random", "both", "text", "nothing")]
    assert several == alone
    assert several[0] == several[-2]


WHEREVER = """
import mmap, random
from nbcontain.store.gzip_stream import Packer

chosen = random.Random(1)
# What a block begins with comes again, which is found by a table that a stray write must not hit.
word = bytes(chosen.randrange(97, 123) for _ in range(40))
data = b"".join(word + bytes(chosen.randrange(97, 123) for _ in range(12)) for _ in range(40))
found, held = set(), []
for _ in range(150_000):
    packer = Packer()
    found.add(b"".join(packer.pack(data)))
    del packer
    # Part of where it was: the next one is elsewhere.
    held.append(mmap.mmap(-1, 1 << 16, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ))
print(len(found))
"""


def test_what_comes_of_a_block_is_the_same_wherever_in_memory_it_is_made() -> None:
    """ISA-L hashes a block's third byte by the address of its own state (2.32's `write_first_byte`)."""
    environ = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "32768"}
    command = [sys.executable, "-c", WHEREVER]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("1\n", "")
